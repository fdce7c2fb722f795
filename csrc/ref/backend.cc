// SPDX-License-Identifier: Apache-2.0
// The reference as a device: every step is the op's plain loop, so a graph can be run on its own
// specification and compared with any other backend node by node.
#include "backend.h"
#include "exec/host.h"
#include "exec/int8.h"
#include "exec/lower.h"
#include "ref/ref.h"

namespace trine {
namespace {

struct Kernels {
  static void linear(const LinearArgs& a, const RunContext&) noexcept { ref::linear(a); }
  static void linear_bf16(const LinearArgs& a, const RunContext&) noexcept { ref::linear_bf16(a); }
  static void linear_int8(const LinearArgs& a, const RunContext&) noexcept { ref::linear_int8(a); }
  static void linear_groups(const LinearArgs& a, GroupForm, const RunContext&) noexcept {
    ref::linear_groups(a);
  }
  static void attention(const AttentionArgs& a, const RunContext&) noexcept { ref::attention(a); }
  static void attention_bf16(const AttentionArgs& a, const RunContext&) noexcept {
    ref::attention_bf16(a);
  }
  static Positions positions_of(const AttentionAttrs& a, int64_t, DType) {
    return {position_rows(a), 0, 0};
  }
  static void layer_norm(const LayerNormArgs& a, const RunContext&) noexcept { ref::layer_norm(a); }
  static void rms_norm(const RmsNormArgs& a, const RunContext&) noexcept { ref::rms_norm(a); }
  static void rotary(const RotaryArgs& a, const RunContext&) noexcept { ref::rotary(a); }
  static void rope(const RopeArgs& a, const RunContext&) noexcept { ref::rope(a); }
  static void gated(const GatedArgs& a, const RunContext&) noexcept { ref::gated(a); }
  static void scale(const ScaleArgs& a, const RunContext&) noexcept { ref::scale(a); }
  static void embedding(const EmbeddingArgs& a, const RunContext&) noexcept { ref::embedding(a); }
  static void activation(const ActivationArgs& a, const RunContext&) noexcept {
    ref::activation(a);
  }
  static void add(const AddArgs& a, const RunContext&) noexcept { ref::add(a); }
  static void pool(const PoolArgs& a, const RunContext&) noexcept { ref::pool(a); }
  static void l2_normalize(const L2NormalizeArgs& a, const RunContext&) noexcept {
    ref::l2_normalize(a);
  }
  static void relative_bias(const RelativeBiasArgs& a, const RunContext&) noexcept {
    ref::relative_bias(a);
  }
};

class NoContext : public DeviceContext {
 public:
  const void* get() const noexcept override { return nullptr; }
  void reserve(const RunSize&) override {}
  size_t bytes() const noexcept override { return 0; }
};

class RefBackend : public Backend {
 public:
  explicit RefBackend(DType dtype) : dtype_(dtype) {
    host::require_dtype("ref", dtype, kHostDTypes);
  }
  BackendInfo properties() const override { return {"ref", "scalar", 1, dtype_}; }
  bool supports(const Graph&, const Node&) const noexcept override { return true; }
  std::shared_ptr<std::byte> alloc(size_t bytes) override { return host::alloc(bytes); }
  Form form(const Graph& graph, NodeId weight, const Node& consumer, size_t slot) const override {
    const auto& dims = graph[weight].shape.dims;
    const DType dtype = host::multiplied_dtype(graph, weight, consumer, slot, dtype_);
    if (dtype == DType::kI4) return {"groups", dtype_of(host::group_form(graph, weight)), dims};
    if (dtype == DType::kI8) return {"dense_int8", dtype, {dims[0], int8::row_bytes(dims[1])}};
    if (dtype == DType::kBF16) return {"dense_bf16", dtype, dims};
    if (consumer.op == Op::embedding) return {"table", host::table_dtype(graph, weight), dims};
    return {"dense", DType::kF32, dims};
  }
  Packed pack(const Graph& graph, NodeId weight, const Node& consumer, size_t slot) override {
    const DType dtype = host::multiplied_dtype(graph, weight, consumer, slot, dtype_);
    if (dtype == DType::kI4) return host::as_groups(graph, weight);
    if (dtype == DType::kI8) return host::as_int8(graph, weight);
    if (dtype == DType::kBF16) return host::as_bf16(graph, weight);
    return consumer.op == Op::embedding ? host::in_place(graph, weight)
                                        : host::as_f32(graph, weight);
  }
  Step lower(const Graph& graph, const Node& node, std::span<const Operand> in,
             const Operand& out) override {
    return lower_on_host<Kernels>(graph, node, in, out, host::attention_dtype(dtype_));
  }
  std::unique_ptr<DeviceContext> context() override { return std::make_unique<NoContext>(); }

 private:
  DType dtype_;
};

}  // namespace

std::unique_ptr<Backend> make_ref_backend(DType dtype) {
  return std::make_unique<RefBackend>(dtype);
}

}  // namespace trine
