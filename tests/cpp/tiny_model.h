// SPDX-License-Identifier: Apache-2.0
// A post-norm encoder with every op that compile/ rewrites, over random weights in memory.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "exec/engine.h"
#include "graph/graph.h"
#include "kernel_testing.h"

namespace trine::test {

struct TinyShape {
  int64_t vocab = 50, hidden = 32, heads = 2, inner = 48, layers = 2, span = 40;
};

class TinyModel {
 public:
  explicit TinyModel(TinyShape shape = {}, uint64_t seed = 1) : s_(shape), random_(seed) {
    tensor("words", {s_.vocab, s_.hidden});
    tensor("places", {s_.span + 2, s_.hidden});
    tensor("buckets", {32, s_.heads});
    norm("first");
    for (int64_t i = 0; i < s_.layers; ++i) {
      const std::string layer = cat("layer.", i, ".");
      for (const char* name : {"q", "k", "v", "o"}) linear(layer + name, s_.hidden, s_.hidden);
      linear(layer + "up", s_.inner, s_.hidden);
      linear(layer + "down", s_.hidden, s_.inner);
      norm(layer + "norm1");
      norm(layer + "norm2");
    }
    linear("pooler", s_.hidden, s_.hidden);
  }

  std::shared_ptr<WeightStore> store() const { return store_; }

  // Outputs: hidden [T], pooled [B], sentence [B] (mean, without the prompt), both [B].
  Graph graph() const {
    Graph g(store_);
    const auto add = [&](Op op, std::vector<NodeId> in, Attrs attrs = NoAttrs{}) {
      return g.add(op, std::move(in), std::move(attrs), "", "tiny");
    };
    const auto weight = [&](const std::string& name) {
      return add(Op::weight, {}, WeightAttrs{name});
    };
    const auto dense = [&](NodeId x, const std::string& name) {
      return add(Op::linear, {x, weight(name + ".weight"), weight(name + ".bias")}, LinearAttrs{});
    };
    const auto normed = [&](NodeId x, const std::string& name) {
      return add(Op::layer_norm, {x, weight(name + ".weight"), weight(name + ".bias")},
                 LayerNormAttrs{1e-5f});
    };
    const NodeId ids = add(Op::input, {}, InputAttrs{"input_ids"});
    const NodeId places = add(Op::positions, {ids}, PositionsAttrs{1});
    NodeId x = normed(
        add(Op::embedding, {ids, weight("words"), places, weight("places")}, EmbeddingAttrs{}),
        "first");
    const NodeId bias =
        add(Op::relative_bias, {weight("buckets")}, RelativeBiasAttrs{32, 128, int32_t(s_.span)});
    for (int64_t i = 0; i < s_.layers; ++i) {
      const std::string layer = cat("layer.", i, ".");
      const NodeId q = dense(x, layer + "q");
      const NodeId k = dense(x, layer + "k");
      const NodeId v = dense(x, layer + "v");
      const float scale = 1 / std::sqrt(float(s_.hidden) / float(s_.heads));
      const NodeId a = add(Op::attention, {q, k, v, bias},
                           AttentionAttrs{int32_t(s_.heads), int32_t(s_.heads), scale, false});
      x = normed(add(Op::add, {x, dense(a, layer + "o")}), layer + "norm1");
      const NodeId up =
          add(Op::activation, {dense(x, layer + "up")}, ActivationAttrs{Activation::kGelu});
      x = normed(add(Op::add, {dense(up, layer + "down"), x}), layer + "norm2");
    }
    g.add_output("hidden", x);
    const NodeId first = add(Op::pool, {x}, PoolAttrs{PoolMode::kCls, true});
    const NodeId pooled =
        add(Op::activation, {dense(first, "pooler")}, ActivationAttrs{Activation::kTanh});
    g.add_output("pooled", pooled);
    const NodeId mean = add(Op::pool, {x}, PoolAttrs{PoolMode::kMean, false});
    const NodeId sentence = add(Op::l2_normalize, {mean}, L2NormalizeAttrs{});
    g.add_output("sentence", sentence);
    g.add_output("both", add(Op::concat, {pooled, sentence}));
    return g;
  }

  Batch batch(const std::vector<int64_t>& lengths, uint64_t seed = 7) const {
    Random random(seed);
    Batch batch;
    std::vector<int32_t> ids;
    for (int64_t length : lengths) {
      ids.clear();
      for (int64_t i = 0; i < length; ++i) ids.push_back(int32_t(2 + random.below(s_.vocab - 2)));
      batch.add(ids, {}, int32_t(length > 3 ? length % 3 : 0));
    }
    return batch;
  }

 private:
  void tensor(const std::string& name, std::vector<int64_t> dims, float low = -0.5f,
              float high = 0.5f) {
    int64_t count = 1;
    for (int64_t d : dims) count *= d;
    auto data = std::make_shared<std::vector<float>>(size_t(count));
    for (float& v : *data) v = random_.uniform(low, high);
    store_->add(name, DType::kF32, std::move(dims), data, std::as_bytes(std::span(*data)));
  }
  void norm(const std::string& name) {
    tensor(name + ".weight", {s_.hidden}, 0.5f, 1.5f);
    tensor(name + ".bias", {s_.hidden});
  }
  void linear(const std::string& name, int64_t out, int64_t in) {
    const float limit = 1.5f / std::sqrt(float(in));
    tensor(name + ".weight", {out, in}, -limit, limit);
    tensor(name + ".bias", {out});
  }

  TinyShape s_;
  Random random_;
  std::shared_ptr<WeightStore> store_ = std::make_shared<WeightStore>();
};

inline BatchView view(const Batch& b) {
  return {b.ids(), b.offsets(), b.token_types(), b.prompt_lengths()};
}

// All outputs of one run, in the order of `names`.
inline std::vector<std::vector<float>> run(Engine& engine, const Batch& batch,
                                           const std::vector<std::string>& names) {
  const Plan& plan = engine.plan(names);
  std::vector<std::vector<float>> results;
  for (const PlanOutput& o : plan.outputs) {
    const size_t rows =
        o.rows == Rows::kTokens ? batch.ids().size() : batch.prompt_lengths().size();
    results.emplace_back(rows * size_t(o.value.cols));
  }
  std::vector<float*> places;
  for (auto& r : results) places.push_back(r.data());
  engine.run(plan, view(batch), places);
  return results;
}

}  // namespace trine::test
