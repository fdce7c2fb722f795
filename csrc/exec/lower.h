// SPDX-License-Identifier: Apache-2.0
// Nodes to steps, for backends whose kernels take the structs of exec/args.h and run in host memory
// (cpu, ref). `Kernels` has one static function per op, taking the op's arguments and the run's
// context.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "exec/distances.h"
#include "exec/step.h"

namespace trine {

// Kernels without arithmetic that matters for speed, shared by all host backends. exec/common.cc.
// Behind the tokens of a cache, which count as no padding. `caches` may be null.
void positions(const int32_t* ids, Ragged batch, const KvView* caches, int32_t padding_idx,
               int32_t* y) noexcept;
void copy_columns(const float* x, int64_t ldx, float* y, int64_t ldy, int64_t rows,
                  int64_t cols) noexcept;
void spread(const float* x, int64_t ldx, Ragged batch, float* y, int64_t ldy,
            int64_t cols) noexcept;
void windows(const WindowsArgs&) noexcept;
void conv_weight(const ConvWeightArgs&) noexcept;
// Work of a node, counted from its shapes.
Cost cost_of(const Graph&, const Node&);

namespace lowering {

template <class Args, class Function>
Step step(const Graph& graph, const Node& node, Args args, Function) {
  Step s;
  s.run = [](const void* a, const RunContext& c) noexcept {
    Function{}(*static_cast<const Args*>(a), c);
  };
  s.args = std::make_shared<const Args>(std::move(args));
  s.op = node.op;
  s.name = node.name;
  s.rows = node.shape.rows;
  s.cost = cost_of(graph, node);
  return s;
}

struct Unary {
  Operand x, y;
};

template <class Kernels>
Step linear(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args {
    Operand x, w, bias, residual, y;
    int64_t n, k;
    Activation activation;

    LinearArgs in(const RunContext& c) const noexcept {
      return {x.at<const float>(c),
              x.ld,
              w.data,
              bias.at<const float>(c),
              residual.at<const float>(c),
              residual.ld,
              y.at<float>(c),
              y.ld,
              y.rows_in(c),
              n,
              k,
              activation};
    }
  };
  const auto operand = [&](size_t i) { return i < in.size() ? in[i] : Operand{}; };
  const int64_t k = graph[node.inputs[0]].shape.cols();
  const Args args{in[0],      in[1],
                  operand(2), operand(3),
                  out,        node.shape.cols(),
                  k,          node.as<LinearAttrs>().activation};
  // `bits` of a weight, scales included; cost_of has counted 32.
  const auto in_dtype = [&](DType dtype, double bits, auto function) {
    Step s = step(graph, node, args, function);
    s.dtype = dtype;
    s.cost.bytes_fixed -= (32 - bits) / 8 * static_cast<double>(args.n * args.k);
    return s;
  };
  if (args.w.dtype == DType::kI8)
    return in_dtype(DType::kI8, 8, [](const Args& a, const RunContext& c) noexcept {
      Kernels::linear_int8(a.in(c), c);
    });
  if (args.w.dtype == DType::kBF16)
    return in_dtype(DType::kBF16, 16, [](const Args& a, const RunContext& c) noexcept {
      Kernels::linear_bf16(a.in(c), c);
    });
  if (const auto form = group_form_of(args.w.dtype)) {
    const double bits = 8.0 * static_cast<double>(group_bytes(*form)) / kGroup;
    return in_dtype(DType::kI4, bits, [](const Args& a, const RunContext& c) noexcept {
      Kernels::linear_groups(a.in(c), *group_form_of(a.w.dtype), c);
    });
  }
  return in_dtype(DType::kF32, 32,
                  [](const Args& a, const RunContext& c) noexcept { Kernels::linear(a.in(c), c); });
}

template <class Kernels>
Step attention(const Graph& graph, const Node& node, std::span<const Operand> in,
               const Operand& out, DType dtype) {
  struct Args {
    Operand q, k, v, bias, y, position_keys, position_queries;
    int32_t span, heads, kv_heads, head_dim;
    float scale;
    bool causal;
    Positions positions;
    Queries queries;
    int32_t cache;

    AttentionArgs in(const RunContext& c) const noexcept {
      return {q.at<const float>(c),
              k.at<const float>(c),
              v.at<const float>(c),
              q.ld,
              k.ld,
              v.ld,
              bias.at<const float>(c),
              span,
              y.at<float>(c),
              y.ld,
              c.batch,
              heads,
              kv_heads,
              head_dim,
              scale,
              causal,
              position_keys.at<const float>(c),
              position_queries.at<const float>(c),
              positions.at.values.empty() ? nullptr : positions.at.center(),
              positions.at.reach,
              positions.head,
              positions.columns,
              queries,
              cache < 0 ? nullptr : c.caches,
              cache};
    }
  };
  const auto& attrs = node.as<AttentionAttrs>();
  const auto operand = [&](size_t i) { return i < in.size() ? in[i] : Operand{}; };
  Args args{in[0],
            in[1],
            in[2],
            operand(3),
            out,
            operand(4),
            operand(5),
            0,
            attrs.heads,
            attrs.kv_heads,
            static_cast<int32_t>(node.shape.cols() / attrs.heads),
            attrs.scale,
            attrs.causal,
            {},
            attrs.queries,
            attrs.cache};
  if (args.bias) args.span = static_cast<int32_t>((graph[node.inputs[3]].shape.dims[1] + 1) / 2);
  if (args.position_keys || args.position_queries)
    args.positions = Kernels::positions_of(attrs, args.head_dim, dtype);
  if (dtype == DType::kBF16) {
    Step s = step(graph, node, std::move(args), [](const Args& a, const RunContext& c) noexcept {
      Kernels::attention_bf16(a.in(c), c);
    });
    s.dtype = dtype;
    return s;
  }
  return step(graph, node, std::move(args),
              [](const Args& a, const RunContext& c) noexcept { Kernels::attention(a.in(c), c); });
}

template <class Kernels>
Step layer_norm(const Graph& graph, const Node& node, std::span<const Operand> in,
                const Operand& out) {
  struct Args {
    Operand x, weight, bias, y;
    float eps;
  };
  return step(graph, node, Args{in[0], in[1], in[2], out, node.as<LayerNormAttrs>().eps},
              [](const Args& a, const RunContext& c) noexcept {
                Kernels::layer_norm(
                    {a.x.template at<const float>(c), a.x.ld, a.weight.template at<const float>(c),
                     a.bias.template at<const float>(c), a.y.template at<float>(c), a.y.ld,
                     a.y.rows_in(c), a.y.cols, a.eps},
                    c);
              });
}

template <class Kernels>
Step rms_norm(const Graph& graph, const Node& node, std::span<const Operand> in,
              const Operand& out) {
  struct Args : Unary {
    Operand weight;
    float eps;
  };
  return step(graph, node, Args{{in[0], out}, in[1], node.as<RmsNormAttrs>().eps},
              [](const Args& a, const RunContext& c) noexcept {
                Kernels::rms_norm(
                    {a.x.template at<const float>(c), a.x.ld, a.weight.template at<const float>(c),
                     a.y.template at<float>(c), a.y.ld, a.y.rows_in(c), a.y.cols, a.eps},
                    c);
              });
}

template <class Kernels>
Step rotary(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args {
    Operand positions, inv_freq, long_inv_freq, y;
    RotaryAttrs attrs;
  };
  return step(
      graph, node,
      Args{in[0], in[1], in.size() > 2 ? in[2] : Operand{}, out, node.as<RotaryAttrs>()},
      [](const Args& a, const RunContext& c) noexcept {
        Kernels::rotary(
            {a.positions.template at<const int32_t>(c), a.inv_freq.template at<const float>(c),
             a.long_inv_freq.template at<const float>(c), a.y.template at<float>(c), a.y.ld,
             a.y.rows_in(c), a.y.cols / 2, c.batch, c.lengths, a.attrs.scaling,
             a.attrs.original_length, a.attrs.base, a.attrs.factor},
            c);
      });
}

template <class Kernels>
Step rope(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Unary {
    Operand table;
    int64_t heads;
  };
  return step(graph, node, Args{{in[0], out}, in[1], node.as<RopeAttrs>().heads},
              [](const Args& a, const RunContext& c) noexcept {
                Kernels::rope(
                    {a.x.template at<const float>(c), a.x.ld, a.table.template at<const float>(c),
                     a.table.ld, a.y.template at<float>(c), a.y.ld, a.y.rows_in(c), a.heads,
                     a.y.cols / a.heads, a.table.cols},
                    c);
              });
}

template <class Kernels>
Step gated(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args {
    Operand gate, up, y;
    Activation activation;
  };
  return step(
      graph, node, Args{in[0], in[1], out, node.as<GatedAttrs>().activation},
      [](const Args& a, const RunContext& c) noexcept {
        Kernels::gated(
            {a.gate.template at<const float>(c), a.up.template at<const float>(c), a.gate.ld,
             a.up.ld, a.y.template at<float>(c), a.y.ld, a.y.rows_in(c), a.y.cols, a.activation},
            c);
      });
}

template <class Kernels>
Step scale(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Unary {
    float factor;
  };
  return step(graph, node, Args{{in[0], out}, node.as<ScaleAttrs>().factor},
              [](const Args& a, const RunContext& c) noexcept {
                Kernels::scale({a.x.template at<const float>(c), a.x.ld, a.y.template at<float>(c),
                                a.y.ld, a.y.rows_in(c), a.y.cols, a.factor},
                               c);
              });
}

template <class Kernels>
Step embedding(const Graph& graph, const Node& node, std::span<const Operand> in,
               const Operand& out) {
  struct Args {
    Operand ids[EmbeddingArgs::kMaxTables], tables[EmbeddingArgs::kMaxTables], y;
    int32_t count;
  };
  Args args{{}, {}, out, static_cast<int32_t>(in.size() / 2)};
  for (size_t i = 0; i + 1 < in.size(); i += 2) {
    args.ids[i / 2] = in[i];
    args.tables[i / 2] = in[i + 1];
  }
  return step(graph, node, args, [](const Args& a, const RunContext& c) noexcept {
    EmbeddingArgs e{{},      {}, {}, a.count, a.y.template at<float>(c), a.y.ld, a.y.rows_in(c),
                    a.y.cols};
    for (int32_t i = 0; i < a.count; ++i) {
      e.ids[i] = a.ids[i].template at<const int32_t>(c);
      e.tables[i] = a.tables[i].data;
      e.dtypes[i] = a.tables[i].dtype;
    }
    Kernels::embedding(e, c);
  });
}

template <class Kernels>
Step activation(const Graph& graph, const Node& node, std::span<const Operand> in,
                const Operand& out) {
  struct Args : Unary {
    Activation activation;
  };
  return step(graph, node, Args{{in[0], out}, node.as<ActivationAttrs>().activation},
              [](const Args& a, const RunContext& c) noexcept {
                Kernels::activation(
                    {a.x.template at<const float>(c), a.x.ld, a.y.template at<float>(c), a.y.ld,
                     a.y.rows_in(c), a.y.cols, a.activation},
                    c);
              });
}

template <class Kernels>
Step add(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args {
    Operand a, b, y;
  };
  return step(
      graph, node, Args{in[0], in[1], out}, [](const Args& a, const RunContext& c) noexcept {
        Kernels::add({a.a.template at<const float>(c), a.b.template at<const float>(c), a.a.ld,
                      a.b.ld, a.y.template at<float>(c), a.y.ld, a.y.rows_in(c), a.y.cols},
                     c);
      });
}

template <class Kernels>
Step pool(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Unary {
    bool include_prompt;
    PoolMode mode;
  };
  const auto& attrs = node.as<PoolAttrs>();
  return step(graph, node, Args{{in[0], out}, attrs.include_prompt, attrs.mode},
              [](const Args& a, const RunContext& c) noexcept {
                const int32_t* skip =
                    a.include_prompt ? nullptr : c.inputs[static_cast<int>(Input::kPromptLengths)];
                Kernels::pool({a.x.template at<const float>(c), a.x.ld, skip,
                               a.y.template at<float>(c), a.y.ld, a.y.cols, c.batch, a.mode},
                              c);
              });
}

template <class Kernels>
Step l2_normalize(const Graph& graph, const Node& node, std::span<const Operand> in,
                  const Operand& out) {
  struct Args : Unary {
    float eps;
  };
  return step(graph, node, Args{{in[0], out}, node.as<L2NormalizeAttrs>().eps},
              [](const Args& a, const RunContext& c) noexcept {
                Kernels::l2_normalize(
                    {a.x.template at<const float>(c), a.x.ld, a.y.template at<float>(c), a.y.ld,
                     a.y.rows_in(c), a.y.cols, a.eps},
                    c);
              });
}

inline Step positions(const Graph& graph, const Node& node, std::span<const Operand> in,
                      const Operand& out) {
  struct Args : Unary {
    int32_t padding_idx;
  };
  return step(graph, node, Args{{in[0], out}, node.as<PositionsAttrs>().padding_idx},
              [](const Args& a, const RunContext& c) noexcept {
                trine::positions(a.x.at<const int32_t>(c), c.batch, c.caches, a.padding_idx,
                                 a.y.at<int32_t>(c));
              });
}

inline Step concat(const Graph& graph, const Node& node, std::span<const Operand> in,
                   const Operand& out) {
  struct Args {
    std::vector<Operand> parts;
    Operand y;
  };
  return step(graph, node, Args{{in.begin(), in.end()}, out},
              [](const Args& a, const RunContext& c) noexcept {
                float* y = a.y.at<float>(c);
                for (const Operand& part : a.parts) {
                  copy_columns(part.at<const float>(c), part.ld, y, a.y.ld, a.y.rows_in(c),
                               part.cols);
                  y += part.cols;
                }
              });
}

inline Step spread(const Graph& graph, const Node& node, std::span<const Operand> in,
                   const Operand& out) {
  return step(graph, node, Unary{in[0], out}, [](const Unary& a, const RunContext& c) noexcept {
    trine::spread(a.x.at<const float>(c), a.x.ld, c.batch, a.y.at<float>(c), a.y.ld, a.y.cols);
  });
}

inline Step windows(const Graph& graph, const Node& node, std::span<const Operand> in,
                    const Operand& out) {
  struct Args : Unary {
    int64_t cols;
    int32_t size;
  };
  const int32_t size = node.as<WindowsAttrs>().size;
  return step(graph, node, Args{{in[0], out}, node.shape.cols() / size, size},
              [](const Args& a, const RunContext& c) noexcept {
                trine::windows({a.x.at<const float>(c), a.x.ld, a.y.at<float>(c), a.y.ld, a.cols,
                                a.size, c.batch});
              });
}

inline Step conv_weight(const Graph& graph, const Node& node, std::span<const Operand> in,
                        const Operand& out) {
  struct Args : Unary {
    ConvWeightArgs sizes;
  };
  const auto& w = graph[node.inputs[0]].shape.dims;
  const int64_t groups = node.as<ConvWeightAttrs>().groups;
  const ConvWeightArgs sizes{nullptr, w[0], w[1] * groups, w[2], groups, nullptr, out.ld};
  return step(graph, node, Args{{in[0], out}, sizes},
              [](const Args& a, const RunContext& c) noexcept {
                ConvWeightArgs args = a.sizes;
                args.w = a.x.at<const float>(c);
                args.y = a.y.at<float>(c);
                trine::conv_weight(args);
              });
}

template <class Kernels>
Step relative_bias(const Graph& graph, const Node& node, std::span<const Operand> in,
                   const Operand& out) {
  struct Args : Unary {
    int64_t buckets, heads;
    int32_t max_distance, span;
  };
  const auto& attrs = node.as<RelativeBiasAttrs>();
  return step(graph, node,
              Args{{in[0], out}, attrs.num_buckets, in[0].cols, attrs.max_distance, attrs.span},
              [](const Args& a, const RunContext& c) noexcept {
                Kernels::relative_bias({a.x.template at<const float>(c), a.buckets, a.heads,
                                        a.max_distance, a.span, a.y.template at<float>(c), a.y.ld},
                                       c);
              });
}

}  // namespace lowering

// `attention_dtype`: what attention multiplies.
template <class Kernels>
Step lower_on_host(const Graph& graph, const Node& node, std::span<const Operand> in,
                   const Operand& out, DType attention_dtype) {
  using namespace lowering;
  switch (node.op) {
    case Op::linear:
      return linear<Kernels>(graph, node, in, out);
    case Op::attention:
      return attention<Kernels>(graph, node, in, out, attention_dtype);
    case Op::layer_norm:
      return layer_norm<Kernels>(graph, node, in, out);
    case Op::rms_norm:
      return rms_norm<Kernels>(graph, node, in, out);
    case Op::rotary:
      return rotary<Kernels>(graph, node, in, out);
    case Op::rope:
      return rope<Kernels>(graph, node, in, out);
    case Op::gated:
      return gated<Kernels>(graph, node, in, out);
    case Op::scale:
      return scale<Kernels>(graph, node, in, out);
    case Op::embedding:
      return embedding<Kernels>(graph, node, in, out);
    case Op::activation:
      return activation<Kernels>(graph, node, in, out);
    case Op::add:
      return add<Kernels>(graph, node, in, out);
    case Op::pool:
      return pool<Kernels>(graph, node, in, out);
    case Op::l2_normalize:
      return l2_normalize<Kernels>(graph, node, in, out);
    case Op::positions:
      return positions(graph, node, in, out);
    case Op::concat:
      return concat(graph, node, in, out);
    case Op::relative_bias:
      return relative_bias<Kernels>(graph, node, in, out);
    case Op::spread:
      return spread(graph, node, in, out);
    case Op::windows:
      return windows(graph, node, in, out);
    case Op::conv_weight:
      return conv_weight(graph, node, in, out);
    case Op::input:
    case Op::weight:
    case Op::constant:
    case Op::concat_rows:
    case Op::slice:
      break;  // values without a step
  }
  return {};
}

}  // namespace trine
