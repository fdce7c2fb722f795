// SPDX-License-Identifier: Apache-2.0
#include "cuda_backend.h"

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "context.h"
#include "exec/distances.h"
#include "exec/host.h"
#include "gpu/values.h"
#include "kernels/linear.h"
#include "kv_pool.h"
#include "lower.h"
#include "memory.h"
#include "runtime.h"
#include "weights.h"

namespace trine::cuda {
namespace {

class CudaBackend : public Backend {
 public:
  CudaBackend(int device, DType dtype) : device_(device), dtype_(dtype), weights_(device) {
    use(device);
    cudaDeviceProp chip{};
    check("reading the GPU's properties", cudaGetDeviceProperties(&chip, device));
    // Starts the driver's context.
    check("starting the GPU", cudaFree(nullptr));
    info_.device = "cuda";
    info_.isa = cat("sm_", 10 * chip.major + chip.minor);
    info_.threads = chip.multiProcessorCount;
    info_.dtype = dtype;
    info_.hardware = chip.name;
    info_.host_memory = false;
    shared_bytes_ = static_cast<int>(chip.sharedMemPerBlockOptin);
  }

  BackendInfo properties() const override { return info_; }
  bool supports(const Graph&, const Node& node) const noexcept override {
    return gpu::supports(node);
  }

  std::shared_ptr<std::byte> alloc(size_t bytes) override {
    use(device_);
    std::shared_ptr<std::byte> memory = device_alloc(bytes, device_);
    check("clearing device memory", cudaMemset(memory.get(), 0, bytes));
    check("clearing device memory", cudaStreamSynchronize(nullptr));
    return memory;
  }

  Form form(const Graph& graph, NodeId weight, const Node& consumer, size_t slot) const override {
    return gpu::form(graph, weight, consumer, slot, dtype_, linear_ldw);
  }

  Packed pack(const Graph& graph, NodeId weight, const Node& consumer, size_t slot) override {
    return gpu::pack(weights_, graph, weight, form(graph, weight, consumer, slot));
  }

  DType value_dtype(const Graph& graph, const Node& node) const noexcept override {
    return gpu::value_dtype(graph, node, dtype_);
  }

  Step lower(const Graph& graph, const Node& node, std::span<const Operand> in,
             const Operand& out) override {
    Fixed fixed;
    fixed.pool = &pool_in_use_;
    if (node.op == Op::linear) remember_linear(in[1].dtype, graph[node.inputs[0]].shape.cols());
    if (node.op == Op::attention) {
      check_fits(graph, node);
      remember_sizes(attention_sizes(node));
      if (in.size() > 4 && (in[4] || in[5])) place_distances(node, fixed);
    }
    return cuda::lower(graph, node, in, out, fixed);
  }

  std::unique_ptr<DeviceContext> context() override {
    return std::make_unique<Context>(device_, workspaces_);
  }

  std::unique_ptr<KvMemory> kv_memory(std::shared_ptr<const KvLayout> layout,
                                      int64_t capacity) override {
    const std::lock_guard lock(pool_mutex_);
    if (!pool_) {
      pool_ = std::make_shared<KvPool>(device_, std::move(layout), gpu::activations(dtype_));
      pool_in_use_ = pool_.get();
    }
    return std::make_unique<gpu::PagedKv>(pool_, capacity);
  }

 private:
  void check_fits(const Graph& graph, const Node& node) const {
    gpu::check_heads(graph, node, kMaxHeadDim);
    const AttentionArgs sizes = attention_sizes(node);
    const auto present = [&](size_t slot) {
      return slot < node.inputs.size() && node.inputs[slot] != kNoNode;
    };
    const DType dtype = value_dtype(graph, graph[node.inputs[0]]);
    if (attention_fits(sizes, dtype, present(4) || present(5), shared_bytes_)) return;
    throw DeviceError(cat(describe(graph, node), ": heads of ", sizes.head_dim, " columns in ",
                          name_of(dtype), " take more shared memory than the ", shared_bytes_,
                          " bytes that ", info_.isa, " has for a block; use device=\"cpu\""));
  }

  void remember_linear(DType w_dtype, int64_t k) {
    const Workspaces::Linear linear{w_dtype, k};
    std::vector<Workspaces::Linear>& all = workspaces_.linears;
    if (linear_workspace(w_dtype, 1, k) > 0 &&
        std::find(all.begin(), all.end(), linear) == all.end())
      all.push_back(linear);
  }

  void remember_sizes(const AttentionArgs& a) {
    std::vector<AttentionArgs>& attentions = workspaces_.attentions;
    const auto same = [&](const AttentionArgs& b) {
      return a.heads == b.heads && a.kv_heads == b.kv_heads && a.head_dim == b.head_dim &&
             a.causal == b.causal && a.queries == b.queries;
    };
    if (std::none_of(attentions.begin(), attentions.end(), same)) attentions.push_back(a);
  }

  void place_distances(const Node& node, Fixed& fixed) {
    const Distances distances = position_rows(node.as<AttentionAttrs>());
    const size_t bytes = distances.values.size() * sizeof(int32_t);
    use(device_);
    const std::shared_ptr<std::byte> memory = device_alloc(bytes, device_);
    check("copying distances",
          cudaMemcpy(memory.get(), distances.values.data(), bytes, cudaMemcpyHostToDevice));
    const auto* const first = reinterpret_cast<const int32_t*>(memory.get());
    fixed.position_at = {memory, first + (distances.center() - distances.values.data())};
    fixed.reach = distances.reach;
  }

  int device_;
  DType dtype_;
  BackendInfo info_;
  int shared_bytes_ = 0;
  Weights weights_;
  Workspaces workspaces_;
  std::mutex pool_mutex_;
  std::shared_ptr<KvPool> pool_;
  const KvPool* pool_in_use_ = nullptr;
};

}  // namespace

std::unique_ptr<Backend> make_backend(int device, DType dtype) {
  constexpr DType kHas[] = {DType::kF32, DType::kBF16, DType::kI8, DType::kI4};
  host::require_dtype("cuda", dtype, kHas);
  return std::make_unique<CudaBackend>(device, dtype);
}

}  // namespace trine::cuda
