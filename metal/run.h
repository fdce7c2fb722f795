// SPDX-License-Identifier: Apache-2.0
// What the steps of one run share: RunContext::device points to it. Steps write dispatches into one
// command buffer, which the GPU gets as a whole; a dispatch sees all that those before it wrote, as
// encoders of compute commands order them unless they are asked not to.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "device.h"
#include "exec/step.h"
#include "gpu/staging.h"

namespace trine::metal {

class Run {
 public:
  explicit Run(std::shared_ptr<Device> device);
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Dispatches `kernel` with these buffers and the arguments behind them. Nothing is thrown: what
  // fails is said by submit().
  template <class Args>
  void dispatch(const Launch& launch, std::initializer_list<Place> buffers,
                const Args& args) noexcept {
    dispatch(launch, buffers, &args, sizeof args);
  }
  // Hands over what was dispatched; DeviceError when that could not be.
  void commit();
  // Until what was handed over is done; DeviceError when something failed.
  void wait();
  // Forgets what was dispatched, once nothing of it runs any more.
  void abandon() noexcept;

  Device& device() const noexcept { return *device_; }
  // Of memory in the arena or among the inputs.
  Place place(const void* p) const noexcept;

  Buffer inputs;  // and scratch of the host behind them
  Id arena = nullptr;
  const std::byte* arena_start = nullptr;
  gpu::StagedCaches caches;
  Ref pages;        // the keys and values, as they were when the run began
  Place partial;    // attention's
  size_t used = 0;  // of `inputs`

 private:
  void dispatch(const Launch& launch, std::initializer_list<Place> buffers, const void* args,
                size_t bytes) noexcept;
  bool open() noexcept;

  std::shared_ptr<Device> device_;
  Ref commands_, encoder_;  // being written
  Ref committed_;
  const char* failed_ = nullptr;
};

// RunContext::device is const for the sake of the host's backends.
inline Run& run_of(const RunContext& c) noexcept {
  return *const_cast<Run*>(static_cast<const Run*>(c.device));
}

}  // namespace trine::metal
