// SPDX-License-Identifier: Apache-2.0
// Poolings of one token move in front of the row-by-row ops of the last layer, and no bit changes.
#include <algorithm>

#include "compile/passes.h"
#include "compile/plan.h"
#include "environment.h"
#include "exec/engine.h"
#include "tiny_llama.h"
#include "tiny_model.h"

namespace trine::test {
namespace {

int count(const Graph& graph, Op op, Rows rows) {
  return int(std::count_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
    return node.op == op && node.shape.rows == rows;
  }));
}

// The pooled output of the tiny model, under another pooling.
Graph with_pooling(const Graph& graph, PoolAttrs attrs) {
  Graph out = graph;
  for (Node& node : out.nodes) {
    if (node.op == Op::pool && node.as<PoolAttrs>().mode == PoolMode::kCls) node.attrs = attrs;
  }
  return out;
}

std::vector<float> run_plan(Backend& backend, const Plan& plan, const Batch& batch) {
  Workspace workspace(backend);
  workspace.reserve(plan, int64_t(batch.ids().size()), int32_t(batch.prompt_lengths().size()), 70);
  workspace.append(view(batch));
  workspace.run(plan);
  const int64_t rows = int64_t(batch.prompt_lengths().size());
  std::vector<float> y(size_t(rows * plan.outputs[0].value.cols));
  workspace.fetch(plan.outputs[0].value, 0, rows, y.data());
  return y;
}

}  // namespace

TEST(sink_pools_moves_the_last_layer_alone) {
  const Graph graph = TinyModel({.layers = 3}).graph();
  const Graph sunk = sink_pools(prune(graph, {"pooled"}));
  verify(sunk);
  CHECK_EQ(count(sunk, Op::attention, Rows::kTokens), 2);
  CHECK_EQ(count(sunk, Op::attention, Rows::kSequences), 1);
  CHECK_EQ(count(sunk, Op::pool, Rows::kSequences), 1);  // of the second layer's result, once
  for (const Node& node : sunk.nodes) {
    if (node.op == Op::attention && node.shape.rows == Rows::kSequences)
      CHECK(node.as<AttentionAttrs>().queries == Queries::kFirst);
  }
}

TEST(sink_pools_leaves_what_others_need) {
  const Graph graph = TinyModel().graph();
  for (const std::vector<std::string>& outputs :
       {std::vector<std::string>{"pooled", "hidden"}, {"both"}, {"sentence"}}) {
    const Graph sunk = sink_pools(prune(graph, outputs));
    CHECK_EQ(count(sunk, Op::attention, Rows::kSequences), 0);
  }
  const Graph behind_prompt = with_pooling(graph, {PoolMode::kCls, false});
  CHECK_EQ(count(sink_pools(prune(behind_prompt, {"pooled"})), Op::attention, Rows::kSequences), 0);
}

TEST(sink_pools_keeps_the_bits) {
  const TinyModel model;
  const Batch batch = model.batch({1, 7, 40, 2, 16, 33});
  for (const PoolMode mode : {PoolMode::kCls, PoolMode::kLastToken}) {
    for (const int threads : {1, 2}) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        const std::unique_ptr<Backend> backend = make_cpu_backend(threads, dtype);
        const Graph graph = fold(with_pooling(model.graph(), {mode, true}), *backend);
        PackedWeights weights(*backend);
        const auto plain = make_plan(graph, {"pooled"}, *backend, weights, false);
        const auto sunk = make_plan(graph, {"pooled"}, *backend, weights);
        CHECK(run_plan(*backend, *plain, batch) == run_plan(*backend, *sunk, batch));
      }
    }
  }
}

// A decoder that classifies: causal, key heads are shared, and rope stands between q and the pool.
TEST(sink_pools_of_a_decoder) {
  for (const TinyLlamaShape& shape :
       {TinyLlamaShape{.cached = false},
        TinyLlamaShape{.hidden = 64, .heads = 8, .kv_heads = 1, .head_dim = 32, .cached = false}}) {
    const TinyLlama model(shape);
    const Graph sunk = sink_pools(prune(model.graph(), {"next_logits"}));
    verify(sunk);
    CHECK_EQ(count(sunk, Op::attention, Rows::kTokens), 1);
    CHECK_EQ(count(sunk, Op::attention, Rows::kSequences), 1);
    CHECK_EQ(count(sunk, Op::gated, Rows::kSequences), 1);
    Batch batch;
    for (const int64_t length : {1, 7, 40, 2, 16, 70}) batch.add(model.ids(length, 5));
    for (const cpu::KernelTable* table : kernel_tables()) {
      const Environment isa("TRINE_ISA", table->name);
      for (const int threads : {1, 2}) {
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          const std::unique_ptr<Backend> backend = make_cpu_backend(threads, dtype);
          PackedWeights weights(*backend);
          const auto plain = make_plan(model.graph(), {"next_logits"}, *backend, weights, false);
          const auto moved = make_plan(model.graph(), {"next_logits"}, *backend, weights);
          CHECK(run_plan(*backend, *plain, batch) == run_plan(*backend, *moved, batch));
        }
      }
    }
  }
}

// With a cache, all tokens' keys are wanted; what follows the attention still moves.
TEST(sink_pools_leaves_cached_attention) {
  const Graph sunk = sink_pools(prune(TinyLlama().graph(), {"next_logits"}));
  verify(sunk);
  CHECK_EQ(count(sunk, Op::attention, Rows::kTokens), 2);
  CHECK_EQ(count(sunk, Op::gated, Rows::kSequences), 1);
}

// A sequence without tokens gives what the ops make of zeros, not what was left in memory.
TEST(sink_pools_of_an_empty_sequence) {
  const TinyModel model;
  for (const bool on_ref : {false, true}) {
    const auto backend = on_ref ? make_ref_backend() : make_cpu_backend(2);
    const Graph graph = fold(model.graph(), *backend);
    PackedWeights weights(*backend);
    const auto plan = make_plan(graph, {"pooled"}, *backend, weights);
    const std::vector<float> first = run_plan(*backend, *plan, model.batch({5, 0, 3}));
    const std::vector<float> second = run_plan(*backend, *plan, model.batch({0, 9}, 8));
    const auto width = std::ptrdiff_t(first.size() / 3);
    CHECK(std::equal(second.begin(), second.begin() + width, first.begin() + width));
  }
}

// Nor anything else than what it gives where nothing is moved.
TEST(engine_gives_an_empty_sequence_one_pooled_row) {
  const TinyModel model;
  Engine engine(model.graph(), make_cpu_backend(2));
  const Batch batch = model.batch({5, 0, 3});
  std::vector<float> alone, both, hidden(8 * 32);
  for (const bool with_hidden : {false, true}) {
    const Plan& plan = engine.plan(with_hidden ? std::vector<std::string>{"pooled", "hidden"}
                                               : std::vector<std::string>{"pooled"});
    std::vector<float>& pooled = with_hidden ? both : alone;
    pooled.resize(size_t(3 * plan.outputs[0].value.cols));
    float* const results[] = {pooled.data(), hidden.data()};
    engine.run(plan, view(batch), std::span(results).first(with_hidden ? 2 : 1));
  }
  CHECK(alone == both);
}

}  // namespace trine::test
