// SPDX-License-Identifier: Apache-2.0
// Nodes to steps that launch kernels.
#pragma once

#include <span>

#include "exec/step.h"
#include "graph/graph.h"
#include "kernels/attention.h"

namespace trine::cuda {

class KvPool;

// Where a step finds what belongs to the model and not to a run.
struct Fixed {
  const KvPool* const* pool = nullptr;  // of the keys and values; null until there are some
  // Of the position tables of an attention node: [-reach, reach] on the device, and reach.
  std::shared_ptr<const int32_t> position_at;
  int32_t reach = 0;
};

// What an attention's workspace depends on besides the batch.
AttentionArgs attention_sizes(const Node& node);
Step lower(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out,
           const Fixed& fixed);

}  // namespace trine::cuda
