// SPDX-License-Identifier: Apache-2.0
// pool(f(x)) = f(pool(x)) bit for bit where f makes each row from the same row of its inputs. The
// nodes that move are those which nothing but the pooling uses, directly or through each other;
// where one of them reads a value that stays, a pooling of that value is put in between.
#include <algorithm>
#include <map>

#include "compile/passes.h"

namespace trine {
namespace {

// Inputs of which a row of the result needs the same row; none when the op mixes rows.
std::vector<size_t> row_slots(const Node& node) {
  switch (node.op) {
    case Op::linear:
      return {0, 3};
    case Op::layer_norm:
    case Op::rms_norm:
    case Op::scale:
    case Op::activation:
    case Op::l2_normalize:
    case Op::slice:
      return {0};
    case Op::add:
    case Op::gated:
      return {0, 1};
    case Op::attention:  // the queries move, keys and values stay; a cache is filled by all tokens
      if (node.as<AttentionAttrs>().cache >= 0) return {};
      return {0};
    default:
      return {};
  }
}

bool contains(const std::vector<size_t>& slots, size_t slot) {
  return std::find(slots.begin(), slots.end(), slot) != slots.end();
}

class Sink {
 public:
  Sink(const Graph& graph, NodeId pool)
      : old_(graph), pool_(pool), moves_(graph.nodes.size()), out_(graph.weights) {
    find_moves();
  }

  bool moves_any() const { return moves_[static_cast<size_t>(old_[pool_].inputs[0])]; }

  Graph run() {
    out_.constants = old_.constants;
    for (size_t id = 0; id < old_.nodes.size(); ++id) {
      const bool is_pool = static_cast<NodeId>(id) == pool_;
      moved_.push_back(is_pool ? moved(old_[pool_].inputs[0]) : copy(old_.nodes[id], moves_[id]));
    }
    for (const auto& [name, id] : old_.outputs) out_.outputs.emplace_back(name, moved(id));
    return std::move(out_);
  }

 private:
  NodeId moved(NodeId id) const { return moved_[static_cast<size_t>(id)]; }

  // From the end backwards: a node's users come after it.
  void find_moves() {
    std::vector<bool> stays(old_.nodes.size());  // has a user that neither moves nor is the pooling
    std::vector<bool> used(old_.nodes.size());
    for (const auto& [name, id] : old_.outputs) stays[static_cast<size_t>(id)] = true;
    for (size_t id = old_.nodes.size(); id-- > 0;) {
      const Node& node = old_.nodes[id];
      const bool is_pool = static_cast<NodeId>(id) == pool_;
      const std::vector<size_t> rows = is_pool ? std::vector<size_t>{0} : row_slots(node);
      moves_[id] =
          !is_pool && used[id] && !stays[id] && node.shape.rows == Rows::kTokens && !rows.empty();
      for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
        if (node.inputs[slot] == kNoNode) continue;
        const auto input = static_cast<size_t>(node.inputs[slot]);
        used[input] = true;
        if (!(moves_[id] || is_pool) || !contains(rows, slot)) stays[input] = true;
      }
    }
  }

  NodeId copy(Node node, bool moves) {
    const std::vector<size_t> rows = moves ? row_slots(node) : std::vector<size_t>{};
    for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
      NodeId& input = node.inputs[slot];
      if (input == kNoNode) continue;
      const bool is_row = contains(rows, slot) && !moves_[static_cast<size_t>(input)];
      input = is_row ? pooled(input) : moved(input);
    }
    if (moves && node.op == Op::linear) std::get<LinearAttrs>(node.attrs).pooled = true;
    if (moves && node.op == Op::attention) {
      const bool first = old_[pool_].as<PoolAttrs>().mode == PoolMode::kCls;
      std::get<AttentionAttrs>(node.attrs).queries = first ? Queries::kFirst : Queries::kLast;
    }
    return out_.add(node.op, std::move(node.inputs), std::move(node.attrs), std::move(node.name),
                    std::move(node.source));
  }

  NodeId pooled(NodeId id) {
    const auto [at, is_new] = pooled_.try_emplace(id, kNoNode);
    const Node& pool = old_[pool_];
    if (is_new) at->second = out_.add(Op::pool, {moved(id)}, pool.attrs, pool.name, pool.source);
    return at->second;
  }

  const Graph& old_;
  NodeId pool_;
  std::vector<bool> moves_;
  Graph out_;
  std::vector<NodeId> moved_;
  std::map<NodeId, NodeId> pooled_;
};

bool takes_one_token(const Node& node) {
  if (node.op != Op::pool) return false;
  const auto& attrs = node.as<PoolAttrs>();
  // Behind a prompt the first token is another one for each sequence.
  return attrs.mode == PoolMode::kLastToken ||
         (attrs.mode == PoolMode::kCls && attrs.include_prompt);
}

}  // namespace

Graph sink_pools(const Graph& graph) {
  Graph out = graph;
  // A pooling that was put in stands on a value that stays, so there is nothing to move twice.
  for (size_t id = out.nodes.size(); id-- > 0;) {
    if (!takes_one_token(out.nodes[id])) continue;
    Sink sink(out, static_cast<NodeId>(id));
    if (!sink.moves_any()) continue;
    out = sink.run();
    id = out.nodes.size();
  }
  return out;
}

}  // namespace trine
