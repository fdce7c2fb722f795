// SPDX-License-Identifier: Apache-2.0
// In which types a GPU's values and weights lie in memory, and which nodes it computes.
#pragma once

#include "backend.h"
#include "gpu/quantised.h"
#include "graph/graph.h"

namespace trine::gpu {

// What attention multiplies in, and in which values between ops lie: the model's own, or float32
// where linears are quantised, as on the CPU.
constexpr DType activations(DType dtype) noexcept {
  return is_quantised(dtype) ? DType::kF32 : dtype;
}

// Over tokens, between ops, `activations` of the model's dtype (rotary angles need more); else
// float32.
DType value_dtype(const Graph& graph, const Node& node, DType dtype) noexcept;

// Of a weight that `consumer` reads in input `slot`; what is multiplied has rows that lie
// `ldw(dtype, columns)` elements apart, or is quantised (quantised.h).
Form form(const Graph& graph, NodeId weight, const Node& consumer, size_t slot, DType dtype,
          int64_t (*ldw)(DType, int64_t));

// The weight in that form, by a device's class that makes tables, vectors and rows.
template <class Weights>
Packed pack(Weights& weights, const Graph& graph, NodeId weight, const Form& wanted) {
  if (is_quantised_form(wanted.dtype)) return weights.quantised(graph, weight, wanted);
  if (wanted.name == "table") return weights.table(graph, weight);
  return wanted.name == "dense" ? weights.floats(graph, weight)
                                : weights.linear(graph, weight, wanted.dtype);
}

// The form of a weight that is multiplied in kI8 or kI4 (host::multiplied_dtype).
DType quantised_form(const Graph&, NodeId weight, DType multiplied);

// Writes all quantised_bytes of it (quantised.h), on several threads. ModelError where groups
// cannot hold an element.
void pack_quantised(const Graph&, NodeId weight, DType form, std::byte* to);

// What gpu/lower.h has a step for.
bool supports(const Node& node) noexcept;

// Of attention: DeviceError where heads have more columns than kernels take.
void check_heads(const Graph&, const Node&, int64_t most);

}  // namespace trine::gpu
