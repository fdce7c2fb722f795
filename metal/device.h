// SPDX-License-Identifier: Apache-2.0
// One GPU as Metal has it: its queue, its memory and the kernels, compiled from their source when a
// model first needs them and shared by all models that are there.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "kernels/launch.h"
#include "objc.h"

namespace trine::metal {

// Memory that processor and GPU share.
struct Buffer {
  Ref object;
  std::byte* contents = nullptr;
  size_t bytes = 0;
};

// Somewhere in a buffer.
struct Place {
  Id buffer = nullptr;
  int64_t offset = 0;         // bytes
  std::byte* host = nullptr;  // where the processor finds it
  explicit operator bool() const noexcept { return buffer != nullptr; }
};

class Device {
 public:
  // GPUs that can be used: 1 or more, or a DeviceError that says why none can.
  static int count();
  // DeviceError when there is no such GPU, or the kernels don't compile for it.
  static std::shared_ptr<Device> open(int index);
  ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const std::string& name() const noexcept { return name_; }  // "Apple M2"
  int family() const noexcept { return family_; }             // 8: of Apple's GPUs
  Id queue() const noexcept { return queue_.get(); }
  // The largest buffer that there can be.
  size_t most_bytes() const noexcept;

  // DeviceError when there is no memory left. Not cleared.
  Buffer allocate(size_t bytes);
  // Around memory of the host, which the GPU reads and writes in place; the memory must outlive the
  // buffer. Without an object where the system doesn't want to.
  Buffer around(const void* memory, size_t bytes);
  // Bytes that pages of such memory have.
  static size_t page_bytes() noexcept;

  // Makes the kernel's pipeline if there is none yet; DeviceError when the GPU can't run it in
  // threadgroups of so many threads.
  void prepare(Kernel kernel, uint32_t threads);
  // Null for what was not prepared.
  Id pipeline(Kernel kernel) const noexcept {
    return pipelines_[static_cast<size_t>(kernel)].get();
  }

 private:
  explicit Device(Ref device);
  Id library(std::string_view source);

  Ref device_, queue_;
  std::string name_;
  int family_ = 0;
  std::mutex mutex_;
  std::map<std::string_view, Ref> libraries_;  // by the source's name
  Ref pipelines_[kKernels];
};

// What the GPU said of a command buffer that failed, and what to do.
std::string explain_failure(Id command_buffer);

}  // namespace trine::metal
