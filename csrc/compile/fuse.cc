// SPDX-License-Identifier: Apache-2.0
// Fusion works on a copy of the nodes: a fused-away node is redirected to its replacement, and
// prune drops what nobody uses any more. Each rewrite keeps the bits: the GEMM's epilogue does on a
// tile what the separate ops do on the result.
#include <algorithm>
#include <map>
#include <string>

#include "compile/passes.h"

namespace trine {
namespace {

class Fusion {
 public:
  Fusion(Graph graph, const Backend& backend) : graph_(std::move(graph)), backend_(backend) {}

  Graph run() {
    fuse_activation();
    fuse_residual();
    merge_projections();
    std::vector<std::string> names;
    for (const auto& [name, id] : graph_.outputs) names.push_back(name);
    return prune(graph_, names);
  }

 private:
  int uses(NodeId id) const {
    int n = 0;
    for (const Node& node : graph_.nodes)
      n += static_cast<int>(std::count(node.inputs.begin(), node.inputs.end(), id));
    for (const auto& [name, output] : graph_.outputs) n += output == id;
    return n;
  }

  bool is_free_linear(NodeId id) const {
    const Node& node = graph_[id];
    return node.op == Op::linear && node.input(3) == kNoNode && uses(id) == 1;
  }

  void fuse_activation() {
    for (Node& node : graph_.nodes) {
      if (node.op != Op::activation || !is_free_linear(node.inputs[0])) continue;
      Node fused = graph_[node.inputs[0]];
      auto& attrs = std::get<LinearAttrs>(fused.attrs);
      if (attrs.activation != Activation::kNone) continue;
      attrs.activation = node.as<ActivationAttrs>().activation;
      node = std::move(fused);
    }
  }

  // The sum becomes the linear; the other operand comes before the sum, so before its new user too.
  void fuse_residual() {
    for (Node& node : graph_.nodes) {
      if (node.op != Op::add) continue;
      for (size_t side : {size_t{1}, size_t{0}}) {
        const NodeId linear = node.inputs[side];
        const NodeId residual = node.inputs[1 - side];
        if (linear == residual || !is_free_linear(linear)) continue;
        Node fused = graph_[linear];
        fused.inputs.resize(4, kNoNode);
        fused.inputs[3] = residual;
        node = std::move(fused);
        break;
      }
    }
  }

  // Linears that differ in their weights alone and read the same x. Weights in several forms
  // (blocks of a GGUF file) are no one weight, and each is read in its own.
  struct Key {
    NodeId x;
    std::string form;
    DType dtype;
    bool bias;
    bool pooled, keep;
    Activation activation;
    auto operator<=>(const Key&) const = default;
  };

  void merge_projections() {
    std::map<Key, std::vector<NodeId>> groups;
    for (size_t id = 0; id < graph_.nodes.size(); ++id) {
      const Node& node = graph_.nodes[id];
      // Panels of a packed weight are 16 columns wide; parts that end inside one could not be
      // packed apart.
      if (node.op != Op::linear || node.input(3) != kNoNode || node.shape.cols() % 16 != 0)
        continue;
      const auto& attrs = node.as<LinearAttrs>();
      const Form form = backend_.form(graph_, node.inputs[1], node, 1);
      const Key key{node.inputs[0], form.name,  form.dtype,      node.input(2) != kNoNode,
                    attrs.pooled,   attrs.keep, attrs.activation};
      groups[key].push_back(static_cast<NodeId>(id));
    }
    std::erase_if(groups, [](const auto& group) { return group.second.size() < 2; });
    if (groups.empty()) return;
    rebuild_with(groups);
  }

  // Copies the graph, putting each group's merged GEMM where its first member stood.
  void rebuild_with(const std::map<Key, std::vector<NodeId>>& groups) {
    std::map<NodeId, const std::vector<NodeId>*> group_of;
    for (const auto& [key, members] : groups) {
      for (NodeId id : members) group_of[id] = &members;
    }
    const Graph old = std::move(graph_);
    graph_ = Graph(old.weights);
    graph_.constants = old.constants;
    std::vector<NodeId> moved(old.nodes.size(), kNoNode);
    std::map<const std::vector<NodeId>*, std::pair<NodeId, int64_t>>
        merged;  // node, columns handed out
    for (size_t id = 0; id < old.nodes.size(); ++id) {
      if (moved[id] != kNoNode) continue;  // a weight that came along with a merged GEMM
      const auto member = group_of.find(static_cast<NodeId>(id));
      const Node& node = old.nodes[id];
      if (member == group_of.end()) {
        moved[id] = copy(old, node, moved);
        continue;
      }
      auto [it, first] = merged.try_emplace(member->second, kNoNode, 0);
      if (first) it->second.first = merge(old, *member->second, moved);
      int64_t& column = it->second.second;
      const SliceAttrs slice{column, column + node.shape.cols()};
      column = slice.end;
      moved[id] = graph_.add(Op::slice, {it->second.first}, slice, node.name, node.source);
    }
    for (const auto& [name, id] : old.outputs)
      graph_.outputs.emplace_back(name, moved[static_cast<size_t>(id)]);
  }

  NodeId copy(const Graph& old, const Node& node, std::vector<NodeId>& moved) {
    std::vector<NodeId> inputs = node.inputs;
    for (NodeId& input : inputs) {
      if (input != kNoNode) input = move_weight(old, input, moved);
    }
    return graph_.add(node.op, std::move(inputs), node.attrs, node.name, node.source);
  }

  // A later member's weights may stand after the first member: bring them along on demand.
  NodeId move_weight(const Graph& old, NodeId id, std::vector<NodeId>& moved) {
    NodeId& at = moved[static_cast<size_t>(id)];
    if (at == kNoNode) at = copy(old, old[id], moved);
    return at;
  }

  NodeId merge(const Graph& old, const std::vector<NodeId>& members, std::vector<NodeId>& moved) {
    const Node& first = old[members.front()];
    std::vector<NodeId> inputs{moved[static_cast<size_t>(first.inputs[0])]};
    for (size_t slot : {size_t{1}, size_t{2}}) {
      if (first.input(slot) == kNoNode) break;
      std::vector<NodeId> parts;
      for (NodeId id : members) parts.push_back(move_weight(old, old[id].inputs[slot], moved));
      inputs.push_back(
          graph_.add(Op::concat_rows, std::move(parts), NoAttrs{}, first.name, first.source));
    }
    return graph_.add(Op::linear, std::move(inputs), first.attrs, first.name, first.source);
  }

  Graph graph_;
  const Backend& backend_;
};

}  // namespace

Graph fuse(const Graph& graph, const Backend& backend) { return Fusion(graph, backend).run(); }

}  // namespace trine
