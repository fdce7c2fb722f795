// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"
#include "compile/passes.h"
#include "trine.h"

namespace trine {

Graph prune(const Graph& graph, const std::vector<std::string>& outputs) {
  std::vector<bool> needed(graph.nodes.size());
  std::vector<std::pair<std::string, NodeId>> wanted;
  for (const std::string& name : outputs) {
    NodeId id = kNoNode;
    std::string known;
    for (const auto& [other, node] : graph.outputs) {
      if (other == name) id = node;
      known += cat(known.empty() ? "" : ", ", other);
    }
    if (id == kNoNode) throw InputError(cat("no output \"", name, "\"; the model has ", known));
    wanted.emplace_back(name, id);
    needed[static_cast<size_t>(id)] = true;
  }
  for (size_t id = graph.nodes.size(); id-- > 0;) {
    if (!needed[id]) continue;
    for (NodeId input : graph.nodes[id].inputs) {
      if (input != kNoNode) needed[static_cast<size_t>(input)] = true;
    }
  }
  Graph out(graph.weights);
  out.constants = graph.constants;
  std::vector<NodeId> moved(graph.nodes.size(), kNoNode);
  for (size_t id = 0; id < graph.nodes.size(); ++id) {
    if (!needed[id]) continue;
    Node node = graph.nodes[id];
    for (NodeId& input : node.inputs) {
      if (input != kNoNode) input = moved[static_cast<size_t>(input)];
    }
    moved[id] = static_cast<NodeId>(out.nodes.size());
    out.nodes.push_back(std::move(node));
  }
  for (auto& [name, id] : wanted) out.outputs.emplace_back(name, moved[static_cast<size_t>(id)]);
  return out;
}

}  // namespace trine
