// SPDX-License-Identifier: Apache-2.0
// A decoder as Llama's are, over random weights in memory.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "graph/graph.h"
#include "kernel_testing.h"

namespace trine::test {

struct TinyLlamaShape {
  int64_t vocab = 61, hidden = 40, heads = 4, kv_heads = 2, head_dim = 20, inner = 48, layers = 2;
  bool cached = true;
  int32_t dynamic_from = 0;  // not 0: rotary frequencies change beyond so many tokens
};

class TinyLlama {
 public:
  explicit TinyLlama(TinyLlamaShape shape = {}, uint64_t seed = 3) : s_(shape), random_(seed) {
    tensor("embed", {s_.vocab, s_.hidden}, 1.0f);
    for (int64_t i = 0; i < s_.layers; ++i) {
      const std::string layer = cat("layer.", i, ".");
      for (const char* norm : {"norm1", "norm2"}) tensor(layer + norm, {s_.hidden}, 1.5f);
      tensor(layer + "q", {s_.heads * s_.head_dim, s_.hidden}, 0.4f);
      tensor(layer + "k", {s_.kv_heads * s_.head_dim, s_.hidden}, 0.4f);
      tensor(layer + "v", {s_.kv_heads * s_.head_dim, s_.hidden}, 0.4f);
      tensor(layer + "o", {s_.hidden, s_.heads * s_.head_dim}, 0.4f);
      tensor(layer + "gate", {s_.inner, s_.hidden}, 0.4f);
      tensor(layer + "up", {s_.inner, s_.hidden}, 0.4f);
      tensor(layer + "down", {s_.hidden, s_.inner}, 0.4f);
    }
    tensor("norm", {s_.hidden}, 1.5f);
  }

  const TinyLlamaShape& shape() const { return s_; }

  // Outputs: logits [T], next_logits [B], first [T] (the first layer's result).
  Graph graph(int32_t first_cache = 0) const {
    Graph g(store_);
    const auto add = [&](Op op, std::vector<NodeId> in, Attrs attrs = NoAttrs{}) {
      return g.add(op, std::move(in), std::move(attrs), "", "tiny");
    };
    const auto weight = [&](const std::string& name) {
      return add(Op::weight, {}, WeightAttrs{name});
    };
    const auto dense = [&](NodeId x, const std::string& name) {
      return add(Op::linear, {x, weight(name)}, LinearAttrs{});
    };
    const auto norm = [&](NodeId x, const std::string& name) {
      return add(Op::rms_norm, {x, weight(name)}, RmsNormAttrs{1e-6f});
    };
    std::vector<float> inv_freq;
    const int64_t pairs = s_.head_dim / 2;
    for (int64_t c = 0; c < pairs; ++c)
      inv_freq.push_back(float(std::pow(1e4, -double(c) / double(pairs))));
    const NodeId ids = add(Op::input, {}, InputAttrs{"input_ids"});
    const NodeId table =
        add(Op::rotary,
            {add(Op::positions, {ids}, PositionsAttrs{-1}),
             g.add_constant(inv_freq, {pairs}, "", "tiny")},
            s_.dynamic_from == 0 ? RotaryAttrs{} : RotaryAttrs{1, s_.dynamic_from, 1e4f, 2});
    NodeId x = add(Op::embedding, {ids, weight("embed")}, EmbeddingAttrs{});
    for (int64_t i = 0; i < s_.layers; ++i) {
      const std::string layer = cat("layer.", i, ".");
      const NodeId h = norm(x, layer + "norm1");
      const NodeId q = add(Op::rope, {dense(h, layer + "q"), table}, RopeAttrs{int32_t(s_.heads)});
      const NodeId k =
          add(Op::rope, {dense(h, layer + "k"), table}, RopeAttrs{int32_t(s_.kv_heads)});
      AttentionAttrs attrs;
      attrs.heads = int32_t(s_.heads), attrs.kv_heads = int32_t(s_.kv_heads);
      attrs.scale = 1 / std::sqrt(float(s_.head_dim)), attrs.causal = true;
      attrs.cache = s_.cached ? first_cache + int32_t(i) : -1;
      const NodeId a = add(Op::attention, {q, k, dense(h, layer + "v")}, attrs);
      x = add(Op::add, {x, dense(a, layer + "o")});
      const NodeId m = norm(x, layer + "norm2");
      const NodeId up = add(Op::gated, {dense(m, layer + "gate"), dense(m, layer + "up")},
                            GatedAttrs{Activation::kSilu});
      x = add(Op::add, {x, dense(up, layer + "down")});
      if (i == 0) g.add_output("first", x);
    }
    const NodeId all = norm(x, "norm");
    g.add_output("logits", dense(all, "embed"));
    const NodeId last = add(Op::pool, {all}, PoolAttrs{PoolMode::kLastToken, true});
    g.add_output("next_logits", dense(last, "embed"));
    return g;
  }

  std::vector<int32_t> ids(int64_t length, uint64_t seed) const {
    Random random(seed);
    std::vector<int32_t> out;
    for (int64_t i = 0; i < length; ++i) out.push_back(int32_t(random.below(s_.vocab)));
    return out;
  }

 private:
  void tensor(const std::string& name, std::vector<int64_t> dims, float limit) {
    int64_t count = 1;
    for (int64_t d : dims) count *= d;
    auto data = std::make_shared<std::vector<float>>(size_t(count));
    for (float& v : *data) v = random_.uniform(-limit, limit);
    store_->add(name, DType::kF32, std::move(dims), data, std::as_bytes(std::span(*data)));
  }

  TinyLlamaShape s_;
  Random random_;
  std::shared_ptr<WeightStore> store_ = std::make_shared<WeightStore>();
};

}  // namespace trine::test
