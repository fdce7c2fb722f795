// SPDX-License-Identifier: Apache-2.0
#include "gpu/values.h"

#include <algorithm>

#include "base/error.h"
#include "exec/host.h"

namespace trine::gpu {
namespace {

// A value over sequences that compile/sink.cc made of one over tokens: it is rounded as that was,
// and an attention's q is of the same type as its k.
bool was_over_tokens(const Graph& graph, const Node& node) noexcept {
  if (node.shape.rows != Rows::kSequences) return false;
  switch (node.op) {
    case Op::linear:
      return node.as<LinearAttrs>().pooled;
    case Op::attention:
      return node.as<AttentionAttrs>().queries != Queries::kAll;
    case Op::pool: {  // a row as it is
      const PoolMode mode = node.as<PoolAttrs>().mode;
      return mode == PoolMode::kCls || mode == PoolMode::kLastToken;
    }
    case Op::layer_norm:
    case Op::rms_norm:
    case Op::add:
    case Op::gated:
    case Op::scale:
    case Op::activation:
    case Op::slice:
      return std::any_of(node.inputs.begin(), node.inputs.end(), [&](NodeId id) {
        return id != kNoNode && was_over_tokens(graph, graph[id]);
      });
    default:
      return false;
  }
}

}  // namespace

DType value_dtype(const Graph& graph, const Node& node, DType dtype) noexcept {
  const DType held = activations(dtype);
  if (held == DType::kF32 || node.dtype != DType::kF32) return node.dtype;
  const bool tokens = node.shape.rows == Rows::kTokens;
  return (tokens && node.op != Op::rotary) || was_over_tokens(graph, node) ? held : node.dtype;
}

Form form(const Graph& graph, NodeId weight, const Node& consumer, size_t slot, DType dtype,
          int64_t (*ldw)(DType, int64_t)) {
  const auto& dims = graph[weight].shape.dims;
  if (is_quantised(dtype)) {
    const DType found = host::multiplied_dtype(graph, weight, consumer, slot, dtype);
    if (is_quantised(found)) {
      const DType held = quantised_form(graph, weight, found);
      const auto size = static_cast<int64_t>(size_of(held));
      return {held == DType::kI8    ? "quantised_int8"
              : held == kInt4Groups ? "quantised_int4"
                                    : "quantised_q8",
              held,
              {quantised_bytes(held, dims[0], dims[1]) / size}};
    }
  }
  if (consumer.op == Op::embedding) return {"table", host::table_dtype(graph, weight), dims};
  const bool multiplied = consumer.op == Op::linear && slot == 1;
  if (!multiplied && (consumer.op != Op::attention || slot < 4))
    return {"dense", DType::kF32, dims};
  const DType held = multiplied ? host::weight_dtype(consumer, dtype) : activations(dtype);
  return {cat("rows_", name_of(held)), held, {dims[0], ldw(held, dims[1])}};
}

bool supports(const Node& node) noexcept {
  switch (node.op) {
    case Op::attention:
    case Op::linear:
    case Op::layer_norm:
    case Op::rms_norm:
    case Op::l2_normalize:
    case Op::embedding:
    case Op::positions:
    case Op::rotary:
    case Op::rope:
    case Op::activation:
    case Op::scale:
    case Op::add:
    case Op::gated:
    case Op::pool:
    case Op::concat:
    case Op::spread:
    case Op::windows:
      return true;
    default:
      return false;
  }
}

void check_heads(const Graph& graph, const Node& node, int64_t most) {
  const int64_t columns = node.shape.cols() / node.as<AttentionAttrs>().heads;
  if (columns > most) {
    throw DeviceError(cat(describe(graph, node), ": heads of ", columns,
                          " columns; kernels of GPUs take up to ", most, "; use device=\"cpu\""));
  }
}

}  // namespace trine::gpu
