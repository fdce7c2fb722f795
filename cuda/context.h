// SPDX-License-Identifier: Apache-2.0
// One stream with the memory that a run's inputs and outputs pass through. Everything is enqueued;
// only finish() and wait() block. A sequence of steps that comes again with the same sizes is
// recorded as a CUDA graph and launched as one.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <tuple>
#include <vector>

#include "backend.h"
#include "gpu/staging.h"
#include "kernels/attention.h"
#include "run.h"

namespace trine::cuda {

// The steps lowered so far that need a workspace, each size once: what it depends on besides the
// batch.
struct Workspaces {
  struct Linear {
    DType w_dtype;
    int64_t k;
    bool operator==(const Linear&) const = default;
  };
  std::vector<AttentionArgs> attentions;
  std::vector<Linear> linears;
};

class Context : public DeviceContext {
 public:
  Context(int device, const Workspaces& workspaces);
  ~Context() override;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const void* get() const noexcept override { return &run_; }
  void reserve(const RunSize& size) override;
  size_t bytes() const noexcept override;
  void begin(RunContext& c) override;
  void run(std::span<const Step> steps, const RunContext& c) override;
  void wait() override;
  void fetch(const RunContext& c, const Operand& value, int64_t begin, int64_t rows,
             float* to) override;
  void finish() override;

 private:
#ifndef TRINE_SIMT
  // All that launches depend on besides what lies in device memory.
  using Key = std::tuple<const Step*, const void*, const void*, const void*, int64_t, int32_t,
                         int64_t, int64_t, bool, bool>;
  struct Recorded {
    Key key;
    cudaGraphExec_t graph = nullptr;  // null: seen once
  };
  void record(Recorded& entry, std::span<const Step> steps, const RunContext& c);
  std::list<Recorded> graphs_;  // the latest first
#endif
  struct Pending {  // to be copied to the caller once the stream has run
    size_t offset, bytes;
    float* to;
  };

  void launch(std::span<const Step> steps, const RunContext& c) const noexcept;
  void throw_failed() const;
  void forget_graphs() noexcept;
  void grow_outputs(size_t bytes);
  void grow_workspace(const RunContext& c);

  int device_;
  const Workspaces& workspaces_;
  cudaStream_t stream_ = nullptr;
  Run run_;
  std::shared_ptr<std::byte> staging_, inputs_;  // pinned, and its copy on the device
  gpu::Staging staged_{kChunkKeys};
  size_t input_bytes_ = 0;
  std::shared_ptr<std::byte> outputs_;  // pinned
  size_t output_bytes_ = 0, output_used_ = 0;
  std::vector<Pending> pending_;
  std::shared_ptr<std::byte> workspace_;
  size_t workspace_bytes_ = 0;
  std::shared_ptr<std::byte> counters_;
  int64_t counters_size_ = 0;
};

}  // namespace trine::cuda
