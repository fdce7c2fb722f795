// SPDX-License-Identifier: Apache-2.0
#include "context.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "kernels/linear.h"
#include "memory.h"

namespace trine::cuda {
namespace {

using gpu::round_up;

constexpr size_t kLine = gpu::Staging::kLine;
#ifndef TRINE_SIMT
constexpr size_t kGraphs = 64;
#endif
// Outputs beyond this are copied straight to the caller's memory, piece by piece.
constexpr size_t kMostPinnedOutput = size_t{64} << 20;

}  // namespace

Context::Context(int device, const Workspaces& workspaces)
    : device_(device), workspaces_(workspaces) {
  use(device_);
  check("creating a stream", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  run_.stream = stream_;
}

Context::~Context() {
  cudaSetDevice(device_);
  cudaStreamSynchronize(stream_);  // nothing below may still be in use
  forget_graphs();
  cudaStreamDestroy(stream_);
}

void Context::reserve(const RunSize& size) {
  use(device_);
  const size_t bytes = staged_.bytes_for(size);
  if (bytes > input_bytes_) {
    forget_graphs();
    const size_t roomy = round_up(bytes + bytes / 2, kLine);
    input_bytes_ = 0;
    staging_ = pinned_alloc(roomy, device_);
    inputs_ = device_alloc(roomy, device_);
    input_bytes_ = roomy;
  }
}

// Grown when a batch needs more than any before, outside of the steps.
void Context::grow_workspace(const RunContext& c) {
  int64_t need = 0, counters = 0;
  for (const Workspaces::Linear& linear : workspaces_.linears) {
    const int64_t rows = std::max<int64_t>(c.tokens, c.batch.sequences);
    need = std::max(need, linear_workspace(linear.w_dtype, rows, linear.k));
  }
  for (AttentionArgs a : workspaces_.attentions) {
    a.batch = ragged(c);
    if (a.causal && c.caches != nullptr) {
      a.cache.data = &a;  // not read: only whether there are caches counts
      a.cache.max_keys = static_cast<int32_t>(c.max_total);
    }
    need = std::max(need, attention_workspace(a));
    counters = std::max(counters, attention_counters(a));
  }
  if (static_cast<size_t>(need) > workspace_bytes_) {
    forget_graphs();
    workspace_bytes_ = 0;
    workspace_.reset();
    const auto roomy = static_cast<size_t>(need + need / 2);
    workspace_ = device_alloc(roomy, device_);
    workspace_bytes_ = roomy;
  }
  if (counters > counters_size_) {
    forget_graphs();
    counters_size_ = 0;
    counters_.reset();
    const auto bytes = static_cast<size_t>(2 * counters) * sizeof(int32_t);
    counters_ = device_alloc(bytes, device_);
    // They are zero again after each launch.
    check("clearing counters", cudaMemset(counters_.get(), 0, bytes));
    check("clearing counters", cudaStreamSynchronize(nullptr));
    counters_size_ = 2 * counters;
  }
  run_.workspace = workspace_.get();
  run_.counters = reinterpret_cast<int32_t*>(counters_.get());
}

size_t Context::bytes() const noexcept { return input_bytes_ + workspace_bytes_; }

void Context::begin(RunContext& c) {
  use(device_);
  // A run that failed half-way may still be reading the staging memory.
  if (staged_.used() > 0) cudaStreamSynchronize(stream_);
  output_used_ = 0;
  pending_.clear();
  run_.error = cudaSuccess;
  run_.caches = staged_.write(c, staging_.get(), inputs_.get());
  grow_workspace(c);
  check("copying inputs to the GPU", cudaMemcpyAsync(inputs_.get(), staging_.get(), staged_.used(),
                                                     cudaMemcpyHostToDevice, stream_));
}

void Context::launch(std::span<const Step> steps, const RunContext& c) const noexcept {
  for (const Step& step : steps) {
    step.run(step.args.get(), c);
    if (run_.error != cudaSuccess) return;
  }
}

#ifdef TRINE_SIMT
// The emulator has no graphs: its launches run as they come.
void Context::forget_graphs() noexcept {}

void Context::run(std::span<const Step> steps, const RunContext& c) {
  launch(steps, c);
  throw_failed();
}
#else
void Context::forget_graphs() noexcept {
  for (const Recorded& r : graphs_) {
    if (r.graph != nullptr) cudaGraphExecDestroy(r.graph);
  }
  graphs_.clear();
}

void Context::record(Recorded& entry, std::span<const Step> steps, const RunContext& c) {
  // Relaxed: other threads may allocate meanwhile; nothing in a launch does.
  check("recording a run", cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed));
  launch(steps, c);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
  if (run_.error == cudaSuccess) {
    check("recording a run", ended);
    const cudaError_t made = cudaGraphInstantiate(&entry.graph, graph, 0);
    cudaGraphDestroy(graph);
    check("recording a run", made);
  } else if (graph != nullptr) {
    cudaGraphDestroy(graph);
  }
}

void Context::run(std::span<const Step> steps, const RunContext& c) {
  if (steps.empty()) return;
  const Key key{
      steps.data(),      c.token_rows, inputs_.get(), workspace_.get(),    c.tokens,
      c.batch.sequences, c.max_length, c.max_total,   c.caches != nullptr, run_.caches.all_cached};
  const auto found =
      std::find_if(graphs_.begin(), graphs_.end(), [&](const Recorded& r) { return r.key == key; });
  if (found == graphs_.end()) {
    launch(steps, c);
    graphs_.push_front({key, nullptr});
    if (graphs_.size() > kGraphs) {
      if (graphs_.back().graph != nullptr) cudaGraphExecDestroy(graphs_.back().graph);
      graphs_.pop_back();
    }
  } else {
    graphs_.splice(graphs_.begin(), graphs_, found);
    Recorded& entry = graphs_.front();
    if (entry.graph == nullptr) record(entry, steps, c);
    if (run_.error == cudaSuccess) check("launching a run", cudaGraphLaunch(entry.graph, stream_));
  }
  throw_failed();
}
#endif

void Context::throw_failed() const { check(run_.failed, run_.error); }

void Context::wait() {
  throw_failed();
  check("running", cudaStreamSynchronize(stream_));
}

void Context::grow_outputs(size_t bytes) {
  if (bytes <= output_bytes_) return;
  finish();  // what waits in the old memory goes out first
  output_bytes_ = 0;
  outputs_ = pinned_alloc(bytes + bytes / 2, device_);
  output_bytes_ = bytes + bytes / 2;
}

void Context::fetch(const RunContext& c, const Operand& value, int64_t begin, int64_t rows,
                    float* to) {
  if (rows == 0) return;
  const float* from = value.at<const float>(c) + begin * value.ld;
  const size_t width = static_cast<size_t>(value.cols) * sizeof(float);
  const size_t bytes = width * static_cast<size_t>(rows);
  void* target = to;
  if (bytes <= kMostPinnedOutput) {
    if (output_used_ + bytes > kMostPinnedOutput) finish();
    grow_outputs(output_used_ + bytes);
    target = outputs_.get() + output_used_;
    pending_.push_back({output_used_, bytes, to});
    output_used_ = round_up(output_used_ + bytes, kLine);
  }
  check("copying outputs from the GPU",
        cudaMemcpy2DAsync(target, width, from, static_cast<size_t>(value.ld) * sizeof(float), width,
                          static_cast<size_t>(rows), cudaMemcpyDeviceToHost, stream_));
}

void Context::finish() {
  wait();
  for (const Pending& p : pending_) std::memcpy(p.to, outputs_.get() + p.offset, p.bytes);
  pending_.clear();
  output_used_ = 0;
}

}  // namespace trine::cuda
