// SPDX-License-Identifier: Apache-2.0
// The debug mode: a graph run on a backend and on the reference, compared value by value.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "exec/executor.h"
#include "graph/graph.h"

namespace trine {

struct NodeComparison {
  NodeId node;
  std::string op, name;
  double max_abs_difference;  // NaN when one of the two has a NaN where the other has none
  double max_abs_reference;
};

// The reference computes in the backend's dtype. Every computed value of `graph` (unfused, so that
// each node exists in both), in order.
std::vector<NodeComparison> compare_with_ref(const Graph& graph, std::unique_ptr<Backend> backend,
                                             const BatchView& batch,
                                             const std::vector<std::string>& outputs);

}  // namespace trine
