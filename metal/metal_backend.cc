// SPDX-License-Identifier: Apache-2.0
#include "metal_backend.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "base/error.h"
#include "context.h"
#include "exec/distances.h"
#include "exec/host.h"
#include "gpu/lower.h"
#include "gpu/values.h"
#include "kv_pool.h"
#include "weights.h"

namespace trine::metal {
namespace {

class MetalBackend : public Backend {
 public:
  MetalBackend(int index, DType dtype)
      : device_(Device::open(index)), dtype_(dtype), weights_(device_) {
    info_.device = "metal";
    info_.isa = cat("apple", device_->family());
    info_.dtype = dtype;
    info_.hardware = device_->name();
    info_.host_memory = false;  // for the plan: weights are Places, and steps run on the GPU
  }

  BackendInfo properties() const override { return info_; }
  bool supports(const Graph&, const Node& node) const noexcept override {
    return gpu::supports(node);
  }

  std::shared_ptr<std::byte> alloc(size_t bytes) override {
    Buffer buffer = device_->allocate(bytes);
    std::memset(buffer.contents, 0, buffer.bytes);
    return arenas_.add(std::move(buffer));
  }

  Form form(const Graph& graph, NodeId weight, const Node& consumer, size_t slot) const override {
    return gpu::form(graph, weight, consumer, slot, dtype_,
                     [](DType, int64_t cols) { return linear_ldw(cols); });
  }

  Packed pack(const Graph& graph, NodeId weight, const Node& consumer, size_t slot) override {
    return gpu::pack(weights_, graph, weight, form(graph, weight, consumer, slot));
  }

  DType value_dtype(const Graph& graph, const Node& node) const noexcept override {
    return gpu::value_dtype(graph, node, dtype_);
  }

  Step lower(const Graph& graph, const Node& node, std::span<const Operand> in,
             const Operand& out) override {
    if (node.op == Op::attention) gpu::check_heads(graph, node, kMaxHeadDim);
    prepare(*device_, node, in);
    Fixed fixed;
    fixed.pool = &pool_in_use_;
    if (node.op == Op::attention) {
      if (node.as<AttentionAttrs>().cache >= 0) remember_sizes(node);
      if (in.size() > 4 && (in[4] || in[5])) place_distances(node, fixed);
    }
    if (node.op == Op::rotary && node.as<RotaryAttrs>().original_length != 0)
      needs_.frequencies += node.shape.cols() / 2;
    return gpu::lower<Gpu>(graph, node, in, out, fixed);
  }

  std::unique_ptr<DeviceContext> context() override {
    return std::make_unique<Context>(device_, needs_, arenas_, &pool_in_use_);
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
  void remember_sizes(const Node& node) {
    const ops::AttentionArgs sizes = gpu::attention_sizes<Gpu>(node);
    AttentionArgs a{};
    a.heads = sizes.heads;
    a.kv_heads = sizes.kv_heads;
    a.head_dim = sizes.head_dim;
    a.queries = static_cast<int32_t>(sizes.queries);
    const auto same = [&](const AttentionArgs& b) {
      return a.heads == b.heads && a.kv_heads == b.kv_heads && a.head_dim == b.head_dim &&
             a.queries == b.queries;
    };
    auto& known = needs_.attentions;
    if (std::none_of(known.begin(), known.end(), same)) known.push_back(a);
  }

  void place_distances(const Node& node, Fixed& fixed) {
    const Distances distances = position_rows(node.as<AttentionAttrs>());
    const auto count = static_cast<size_t>(2 * distances.reach + 1);
    const Packed copy =
        weights_.copy(distances.center() - distances.reach, count * sizeof(int32_t), DType::kI32);
    fixed.position_at = {copy.owner, static_cast<const Place*>(copy.data)};
    fixed.reach = distances.reach;
  }

  std::shared_ptr<Device> device_;
  DType dtype_;
  BackendInfo info_;
  Weights weights_;
  Needs needs_;
  Arenas arenas_;
  std::mutex pool_mutex_;
  std::shared_ptr<KvPool> pool_;
  const KvPool* pool_in_use_ = nullptr;
};

}  // namespace

std::unique_ptr<Backend> make_backend(int device, DType dtype) {
  constexpr DType kHas[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kI8, DType::kI4};
  host::require_dtype("metal", dtype, kHas);
  return std::make_unique<MetalBackend>(device, dtype);
}

}  // namespace trine::metal
