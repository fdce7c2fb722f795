// SPDX-License-Identifier: Apache-2.0
// A folded graph as JSON, for the metadata of a compiled file.
#pragma once

#include <string>
#include <string_view>

#include "graph/graph.h"

namespace trine {

// Nodes with op, inputs, attributes, rows, dims, dtype, name and source, then the outputs. Weights
// and constants are there with their shapes, not with their numbers. ModelError when an attribute
// is not finite.
std::string to_json(const Graph&);

// Weights are declared in a store of the graph's own, constants have no data. The text may hold
// anything: ModelError, starting with `source`, unless it is a folded graph whose shapes are those
// that inference finds.
Graph graph_from_json(std::string_view text, const std::string& source);

}  // namespace trine
