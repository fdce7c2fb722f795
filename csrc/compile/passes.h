// SPDX-License-Identifier: Apache-2.0
// Rewrites of a graph, each from a valid graph to a valid graph that computes the same bits.
#pragma once

#include <string>
#include <vector>

#include "backend.h"
#include "graph/graph.h"

namespace trine {

// The nodes that the named outputs need, with those outputs only, in the order given. InputError
// names an unknown one.
Graph prune(const Graph&, const std::vector<std::string>& outputs);

// Runs every op whose inputs are weights alone on the backend and keeps the result as a constant.
Graph fold(const Graph&, Backend&);

// Where only one token of each sequence is pooled, the ops before the pooling that work row by row
// are moved behind it, as far as the last attention's queries: the last layer of a classifier is
// computed for one token a sequence instead of all. What is moved would make something of a
// sequence without tokens, whose pooled row is zeros: batches with one are not for such a graph.
Graph sink_pools(const Graph&);

// Projections of one x whose weights the backend holds in one form into one GEMM; bias, activation
// and residual into the GEMM's epilogue.
Graph fuse(const Graph&, const Backend&);

}  // namespace trine
