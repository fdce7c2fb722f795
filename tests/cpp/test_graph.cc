// SPDX-License-Identifier: Apache-2.0
// Building, checking and rewriting graphs.
#include <algorithm>

#include "check.h"
#include "compile/passes.h"
#include "compile/plan.h"
#include "graph/graph.h"
#include "tiny_model.h"

namespace trine {
namespace {

using test::TinyModel;

int count(const Graph& g, Op op) {
  return int(
      std::count_if(g.nodes.begin(), g.nodes.end(), [&](const Node& n) { return n.op == op; }));
}

// The values of every named output on the reference backend.
std::vector<std::vector<float>> values(const Graph& graph, const std::vector<std::string>& names,
                                       bool fused) {
  const auto backend = make_ref_backend();
  const Graph folded = fold(graph, *backend);
  PackedWeights weights(*backend);
  const auto plan = make_plan(folded, names, *backend, weights, fused);
  const Batch batch = TinyModel().batch({5, 1, 17, 3});
  Workspace workspace(*backend);
  workspace.reserve(*plan, int64_t(batch.ids().size()), 4, 17);
  workspace.append(test::view(batch));
  workspace.run(*plan);
  std::vector<std::vector<float>> out;
  for (const PlanOutput& o : plan->outputs) {
    const int64_t rows = o.rows == Rows::kTokens ? int64_t(batch.ids().size()) : 4;
    out.emplace_back(size_t(rows * o.value.cols));
    workspace.fetch(o.value, 0, rows, out.back().data());
  }
  return out;
}

TEST(fusion_makes_seven_steps_of_a_layer) {
  const Graph g = TinyModel().graph();
  const auto backend = make_ref_backend();
  PackedWeights weights(*backend);
  const auto plan = make_plan(fold(g, *backend), {"hidden"}, *backend, weights);
  CHECK_EQ(plan->steps.size(), size_t(3 + 2 * 7));  // positions, embedding, norm
  CHECK_EQ(count(plan->graph, Op::add), 0);
  CHECK_EQ(count(plan->graph, Op::activation), 0);
  CHECK_EQ(count(plan->graph, Op::slice), 2 * 3);
  CHECK_EQ(count(plan->graph, Op::constant), 1);  // the relative bias
}

TEST(fused_graph_computes_the_same_as_its_unfused_graph) {
  const std::vector<std::string> names{"hidden", "pooled", "sentence", "both"};
  const Graph g = TinyModel().graph();
  const auto fused = values(g, names, true);
  const auto plain = values(g, names, false);
  for (size_t i = 0; i < names.size(); ++i) {
    double worst = 0;
    for (size_t j = 0; j < plain[i].size(); ++j)
      worst = std::max(worst, double(std::abs(fused[i][j] - plain[i][j])));
    // The reference's epilogue adds in double, the separate ops round to float between: a rounding
    // or two per layer, through two layers whose norms keep values near 1.
    CHECK(worst < 64 * test::kUnit);
  }
}

TEST(an_output_inside_a_fusion_keeps_its_value) {
  // The sum before a norm and the value before an activation are asked for, so they must not be
  // fused away.
  Graph g = TinyModel().graph();
  NodeId sum = kNoNode, before = kNoNode;
  for (size_t id = 0; id < g.nodes.size(); ++id) {
    if (g.nodes[id].op == Op::add) sum = NodeId(id);
    if (g.nodes[id].op == Op::activation && g.nodes[id].shape.rows == Rows::kTokens)
      before = g.nodes[id].inputs[0];
  }
  g.add_output("sum", sum);
  g.add_output("before", before);
  const std::vector<std::string> names{"hidden", "sum", "before"};
  const auto fused = values(g, names, true);
  const auto plain = values(g, names, false);
  for (size_t i = 0; i < names.size(); ++i) {
    double worst = 0;
    for (size_t j = 0; j < plain[i].size(); ++j)
      worst = std::max(worst, double(std::abs(fused[i][j] - plain[i][j])));
    CHECK(worst < 64 * test::kUnit);
  }
}

TEST(prune_keeps_what_an_output_needs) {
  const Graph g = TinyModel().graph();
  CHECK_EQ(count(prune(g, {"hidden"}), Op::pool), 0);
  CHECK_EQ(count(prune(g, {"pooled"}), Op::pool), 1);
  CHECK_THROWS_WITH(prune(g, {"nothing"}), InputError,
                    "the model has hidden, pooled, sentence, both");
}

TEST(buffers_of_values_that_live_together_do_not_overlap) {
  const auto backend = make_ref_backend();
  PackedWeights weights(*backend);
  const Graph g = fold(TinyModel().graph(), *backend);
  const auto small = make_plan(g, {"hidden"}, *backend, weights);
  // Two rows of hidden width for the stream and a residual, the widest pair of the GEMMs, and
  // positions.
  CHECK(small->token_row_bytes <= int64_t(sizeof(float)) * (3 * 32 + 32 + 32 + 48 + 16));
}

TEST(shapes_are_checked_with_names) {
  const TinyModel tiny;
  Graph g(tiny.store());
  const NodeId ids = g.add(Op::input, {}, InputAttrs{"input_ids"}, "", "");
  const NodeId words = g.add(Op::weight, {}, WeightAttrs{"words"}, "words", "");
  const NodeId x = g.add(Op::embedding, {ids, words}, EmbeddingAttrs{}, "embeddings", "m.py:3");
  const NodeId down = g.add(Op::weight, {}, WeightAttrs{"layer.0.down.weight"}, "", "");
  CHECK_THROWS_WITH(
      g.add(Op::linear, {x, down}, LinearAttrs{}, "layer.0.down", "m.py:9"), ModelError,
      "linear (node 4, layer.0.down, m.py:9): the weight is [32, 48], but x has 32 columns");
  CHECK_THROWS_WITH(g.add(Op::linear, {x}, LinearAttrs{}, "", ""), ModelError,
                    "takes (x weight [bias] [residual])");
  CHECK_THROWS_WITH(g.add(Op::linear, {x, 99}, LinearAttrs{}, "", ""), ModelError,
                    "no earlier node");
  CHECK_THROWS_WITH(g.add(Op::weight, {}, WeightAttrs{"layer.0.up.wieght"}, "", ""), ModelError,
                    "layer.0.up.weight");
  CHECK_THROWS_WITH(g.add(Op::pool, {x}, LinearAttrs{}, "", ""), ModelError,
                    "another op's attributes");
  CHECK_THROWS_WITH(g.add_output("ids", ids), ModelError, "must be float rows");
  CHECK_THROWS_WITH(g.add(Op::attention, {x, x, x}, AttentionAttrs{5, 5, 1, false}, "", ""),
                    ModelError, "don't split into 5 heads");
  verify(g);
  g.nodes[size_t(x)].shape.dims[0] = 7;
  CHECK_THROWS_WITH(verify(g), ModelError, "is stored as [T, 7], but is [T, 32]");
}

TEST(dump_has_a_line_per_node) {
  const Graph g = TinyModel().graph();
  const std::string text = g.dump();
  CHECK_EQ(size_t(std::count(text.begin(), text.end(), '\n')), g.nodes.size() + g.outputs.size());
  CHECK(text.find("heads=2, kv_heads=2") != text.npos);
  CHECK(text.find("output sentence = %") != text.npos);
}

TEST(activations_and_pool_modes_have_their_published_names) {
  CHECK_EQ(parse_activation("gelu_new"), Activation::kGeluTanh);
  CHECK_EQ(parse_activation("gelu"), Activation::kGelu);
  CHECK_EQ(parse_pool_mode("weightedmean"), PoolMode::kWeightedMean);
  CHECK_THROWS_WITH(parse_activation("gelo"), ModelError, "unknown activation \"gelo\"");
}

}  // namespace
}  // namespace trine
