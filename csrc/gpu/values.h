// SPDX-License-Identifier: Apache-2.0
// In which types a GPU's values lie in memory, and which nodes it computes.
#pragma once

#include "graph/graph.h"

namespace trine::gpu {

// Over tokens, between ops, the model's own dtype (rotary angles need more); else float32.
DType value_dtype(const Graph& graph, const Node& node, DType dtype) noexcept;

// What gpu/lower.h has a step for; attention's heads have at most `max_head_dim` columns.
bool supports(const Node& node, int64_t max_head_dim) noexcept;

}  // namespace trine::gpu
