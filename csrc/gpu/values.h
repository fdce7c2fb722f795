// SPDX-License-Identifier: Apache-2.0
// In which types a GPU's values and weights lie in memory, and which nodes it computes.
#pragma once

#include "backend.h"
#include "graph/graph.h"

namespace trine::gpu {

// Over tokens, between ops, the model's own dtype (rotary angles need more); else float32.
DType value_dtype(const Graph& graph, const Node& node, DType dtype) noexcept;

// Of a weight that `consumer` reads in input `slot`; what is multiplied has rows that lie
// `ldw(dtype, columns)` elements apart.
Form form(const Graph& graph, NodeId weight, const Node& consumer, size_t slot, DType dtype,
          int64_t (*ldw)(DType, int64_t));

// The weight in that form, by a device's class that makes tables, vectors and rows.
template <class Weights>
Packed pack(Weights& weights, const Graph& graph, NodeId weight, const Form& wanted) {
  if (wanted.name == "table") return weights.table(graph, weight);
  return wanted.name == "dense" ? weights.floats(graph, weight)
                                : weights.linear(graph, weight, wanted.dtype);
}

// What gpu/lower.h has a step for; attention's heads have at most `max_head_dim` columns.
bool supports(const Node& node, int64_t max_head_dim) noexcept;

}  // namespace trine::gpu
