// SPDX-License-Identifier: Apache-2.0
// Nodes to steps that launch a GPU's kernels; what differs between GPUs is `Gpu`, which has
//   LinearArgs, EmbeddingArgs, AttentionArgs: what its kernels take. Of the other ops' arguments
//   the
//     order of fields counts, which is that of cuda/kernels/rows.h.
//   matrix, weight, floats, ints, ragged, past: operands as those have them
//   a function for each op, which launches it and says how that went: kDone if well
//   note: where a step's launch that went wrong is remembered, since steps can't throw
//   Fixed: what an attention step needs that belongs to the model and not to a run
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "exec/lower.h"
#include "exec/step.h"
#include "gpu/quantised.h"
#include "graph/graph.h"

namespace trine::gpu {

// What an attention's kernel depends on besides the batch.
template <class Gpu>
typename Gpu::AttentionArgs attention_sizes(const Node& node) {
  const auto& attrs = node.as<AttentionAttrs>();
  typename Gpu::AttentionArgs a;
  a.heads = attrs.heads;
  a.kv_heads = attrs.kv_heads;
  a.head_dim = static_cast<int32_t>(node.shape.cols() / attrs.heads);
  a.scale = attrs.scale;
  a.causal = attrs.causal;
  a.queries = attrs.queries;
  return a;
}

namespace lowering {

// A step of `launch(args, context)`.
template <class Gpu, class Args, class Launch>
Step step(const Graph& graph, const Node& node, Args args, Launch) {
  Step s;
  s.run = [](const void* a, const RunContext& c) noexcept {
    const Args& typed = *static_cast<const Args*>(a);
    Gpu::note(typed.name, Launch{}(typed, c), c);
  };
  args.name = info(node.op).name.data();
  s.args = std::make_shared<const Args>(std::move(args));
  s.op = node.op;
  s.name = node.name;
  s.rows = node.shape.rows;
  s.cost = cost_of(graph, node);
  return s;
}

struct Named {
  const char* name = nullptr;
};

struct Unary : Named {
  Operand x, y;
};

inline Unary unary(std::span<const Operand> in, const Operand& out) { return {{}, in[0], out}; }

template <class Gpu>
Step linear(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Unary {
    Operand w, bias, residual;
    int64_t k;
    Activation activation;
  };
  const auto operand = [&](size_t i) { return i < in.size() ? in[i] : Operand{}; };
  Args args{unary(in, out),
            in[1],
            operand(2),
            operand(3),
            graph[node.inputs[0]].shape.cols(),
            node.as<LinearAttrs>().activation};
  const DType dtype = args.w.dtype;
  Step s = step<Gpu>(graph, node, args, [](const Args& a, const RunContext& c) noexcept {
    typename Gpu::LinearArgs l;
    l.x = Gpu::matrix(a.x, c);
    l.w = Gpu::weight(a.w);
    l.ldw = is_quantised_form(a.w.dtype) ? quantised_ldw(a.w.dtype, a.k)
                                         : Gpu::linear_ldw(a.w.dtype, a.k);
    l.w_dtype = a.w.dtype;
    l.bias = Gpu::floats(a.bias, c);
    l.residual = Gpu::matrix(a.residual, c);
    l.y = Gpu::matrix(a.y, c);
    l.m = a.y.rows_in(c);
    l.n = a.y.cols;
    l.k = a.k;
    l.activation = a.activation;
    return l.m == 0 ? Gpu::kDone : Gpu::linear(l, c);
  });
  s.dtype = in_groups(dtype) ? DType::kI4 : dtype;
  const int64_t n = args.y.cols, floats = n * args.k * int64_t{sizeof(float)};
  const int64_t bytes = is_quantised_form(dtype)
                            ? quantised_bytes(dtype, n, args.k)
                            : n * args.k * static_cast<int64_t>(size_of(dtype));
  s.cost.bytes_fixed -= static_cast<double>(floats - bytes);
  return s;
}

template <class Gpu>
Step layer_norm(const Graph& graph, const Node& node, std::span<const Operand> in,
                const Operand& out) {
  struct Args : Unary {
    Operand weight, bias;
    float eps;
  };
  return step<Gpu>(graph, node, Args{unary(in, out), in[1], in[2], node.as<LayerNormAttrs>().eps},
                   [](const Args& a, const RunContext& c) noexcept {
                     return Gpu::layer_norm(
                         {Gpu::matrix(a.x, c), Gpu::floats(a.weight, c), Gpu::floats(a.bias, c),
                          Gpu::matrix(a.y, c), a.y.rows_in(c), a.y.cols, a.eps},
                         c);
                   });
}

template <class Gpu>
Step rms_norm(const Graph& graph, const Node& node, std::span<const Operand> in,
              const Operand& out) {
  struct Args : Unary {
    Operand weight;
    float eps;
  };
  return step<Gpu>(graph, node, Args{unary(in, out), in[1], node.as<RmsNormAttrs>().eps},
                   [](const Args& a, const RunContext& c) noexcept {
                     return Gpu::rms_norm({Gpu::matrix(a.x, c), Gpu::floats(a.weight, c),
                                           Gpu::matrix(a.y, c), a.y.rows_in(c), a.y.cols, a.eps},
                                          c);
                   });
}

template <class Gpu>
Step l2_normalize(const Graph& graph, const Node& node, std::span<const Operand> in,
                  const Operand& out) {
  struct Args : Unary {
    float eps;
  };
  return step<Gpu>(
      graph, node, Args{unary(in, out), node.as<L2NormalizeAttrs>().eps},
      [](const Args& a, const RunContext& c) noexcept {
        return Gpu::l2_normalize(
            {Gpu::matrix(a.x, c), Gpu::matrix(a.y, c), a.y.rows_in(c), a.y.cols, a.eps}, c);
      });
}

template <class Gpu>
Step embedding(const Graph& graph, const Node& node, std::span<const Operand> in,
               const Operand& out) {
  struct Args : Named {
    Operand ids[trine::EmbeddingArgs::kMaxTables], tables[trine::EmbeddingArgs::kMaxTables], y;
    int32_t count;
  };
  Args args{{}, {}, {}, out, static_cast<int32_t>(in.size() / 2)};
  for (size_t i = 0; i + 1 < in.size(); i += 2) {
    args.ids[i / 2] = in[i];
    args.tables[i / 2] = in[i + 1];
  }
  return step<Gpu>(graph, node, args, [](const Args& a, const RunContext& c) noexcept {
    typename Gpu::EmbeddingArgs e{};
    for (int32_t i = 0; i < a.count; ++i) {
      e.ids[i] = Gpu::ints(a.ids[i], c);
      e.tables[i] = Gpu::weight(a.tables[i]);
      e.dtypes[i] = a.tables[i].dtype;
    }
    e.table_rows = a.tables[0].rows;
    e.count = a.count;
    e.y = Gpu::matrix(a.y, c);
    e.rows = a.y.rows_in(c);
    e.cols = a.y.cols;
    return Gpu::embedding(e, c);
  });
}

template <class Gpu>
Step positions(const Graph& graph, const Node& node, std::span<const Operand> in,
               const Operand& out) {
  struct Args : Unary {
    int32_t padding_idx;
  };
  return step<Gpu>(
      graph, node, Args{unary(in, out), node.as<PositionsAttrs>().padding_idx},
      [](const Args& a, const RunContext& c) noexcept {
        return Gpu::positions(
            {Gpu::ints(a.x, c), Gpu::ragged(c), Gpu::past(c), a.padding_idx, Gpu::ints(a.y, c)}, c);
      });
}

template <class Gpu>
Step rotary(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Unary {
    Operand inv_freq, long_inv_freq;
    RotaryAttrs attrs;
  };
  return step<Gpu>(
      graph, node,
      Args{unary(in, out), in[1], in.size() > 2 ? in[2] : Operand{}, node.as<RotaryAttrs>()},
      [](const Args& a, const RunContext& c) noexcept {
        return Gpu::rotary(
            {Gpu::ints(a.x, c), Gpu::floats(a.inv_freq, c), Gpu::floats(a.long_inv_freq, c),
             Gpu::matrix(a.y, c), a.y.cols / 2, Gpu::ragged(c), Gpu::ints(c.lengths, c),
             a.attrs.scaling, a.attrs.original_length, a.attrs.base, a.attrs.factor},
            c);
      });
}

template <class Gpu>
Step rope(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Unary {
    Operand table;
    int64_t heads;
  };
  return step<Gpu>(graph, node, Args{unary(in, out), in[1], node.as<RopeAttrs>().heads},
                   [](const Args& a, const RunContext& c) noexcept {
                     return Gpu::rope(
                         {Gpu::matrix(a.x, c), Gpu::matrix(a.table, c), Gpu::matrix(a.y, c),
                          a.y.rows_in(c), a.heads, a.y.cols / a.heads, a.table.cols},
                         c);
                   });
}

template <class Gpu>
Step activation(const Graph& graph, const Node& node, std::span<const Operand> in,
                const Operand& out) {
  struct Args : Unary {
    Activation activation;
  };
  return step<Gpu>(
      graph, node, Args{unary(in, out), node.as<ActivationAttrs>().activation},
      [](const Args& a, const RunContext& c) noexcept {
        return Gpu::activation(
            {Gpu::matrix(a.x, c), Gpu::matrix(a.y, c), a.y.rows_in(c), a.y.cols, a.activation}, c);
      });
}

template <class Gpu>
Step scale(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Unary {
    float factor;
  };
  return step<Gpu>(
      graph, node, Args{unary(in, out), node.as<ScaleAttrs>().factor},
      [](const Args& a, const RunContext& c) noexcept {
        return Gpu::scale(
            {Gpu::matrix(a.x, c), Gpu::matrix(a.y, c), a.y.rows_in(c), a.y.cols, a.factor}, c);
      });
}

template <class Gpu>
Step add(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Unary {
    Operand b;
  };
  return step<Gpu>(graph, node, Args{unary(in, out), in[1]},
                   [](const Args& a, const RunContext& c) noexcept {
                     return Gpu::add({Gpu::matrix(a.x, c), Gpu::matrix(a.b, c), Gpu::matrix(a.y, c),
                                      a.y.rows_in(c), a.y.cols},
                                     c);
                   });
}

template <class Gpu>
Step gated(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Unary {
    Operand up;
    Activation activation;
  };
  return step<Gpu>(graph, node, Args{unary(in, out), in[1], node.as<GatedAttrs>().activation},
                   [](const Args& a, const RunContext& c) noexcept {
                     return Gpu::gated(
                         {Gpu::matrix(a.x, c), Gpu::matrix(a.up, c), Gpu::matrix(a.y, c),
                          a.y.rows_in(c), a.y.cols, a.activation},
                         c);
                   });
}

template <class Gpu>
Step pool(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Unary {
    bool include_prompt;
    PoolMode mode;
  };
  const auto& attrs = node.as<PoolAttrs>();
  return step<Gpu>(graph, node, Args{unary(in, out), attrs.include_prompt, attrs.mode},
                   [](const Args& a, const RunContext& c) noexcept {
                     const int32_t* skip = a.include_prompt
                                               ? nullptr
                                               : c.inputs[static_cast<int>(Input::kPromptLengths)];
                     return Gpu::pool({Gpu::matrix(a.x, c), Gpu::ints(skip, c), Gpu::matrix(a.y, c),
                                       a.y.cols, Gpu::ragged(c), a.mode},
                                      c);
                   });
}

template <class Gpu>
Step concat(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  struct Args : Named {
    std::vector<Operand> parts;
    Operand y;
  };
  return step<Gpu>(graph, node, Args{{}, {in.begin(), in.end()}, out},
                   [](const Args& a, const RunContext& c) noexcept {
                     Operand y = a.y;
                     for (const Operand& part : a.parts) {
                       const auto e = Gpu::copy_columns(
                           {Gpu::matrix(part, c), Gpu::matrix(y, c), a.y.rows_in(c), part.cols}, c);
                       if (e != Gpu::kDone) return e;
                       y.column += part.cols;
                     }
                     return Gpu::kDone;
                   });
}

template <class Gpu>
Step spread(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out) {
  return step<Gpu>(graph, node, unary(in, out), [](const Unary& a, const RunContext& c) noexcept {
    return Gpu::spread({Gpu::matrix(a.x, c), Gpu::matrix(a.y, c), a.y.cols, Gpu::ragged(c)}, c);
  });
}

template <class Gpu>
Step windows(const Graph& graph, const Node& node, std::span<const Operand> in,
             const Operand& out) {
  struct Args : Unary {
    int64_t cols;
    int32_t size;
  };
  const int32_t size = node.as<WindowsAttrs>().size;
  return step<Gpu>(graph, node, Args{unary(in, out), node.shape.cols() / size, size},
                   [](const Args& a, const RunContext& c) noexcept {
                     return Gpu::windows(
                         {Gpu::matrix(a.x, c), Gpu::matrix(a.y, c), a.cols, a.size, Gpu::ragged(c)},
                         c);
                   });
}

template <class Gpu>
Step attention(const Graph& graph, const Node& node, std::span<const Operand> in,
               const Operand& out, const typename Gpu::Fixed& fixed) {
  struct Args : Named {
    Operand q, k, v, bias, y, position_keys, position_queries;
    typename Gpu::AttentionArgs sizes;
    typename Gpu::Fixed fixed;
    int32_t cache;
  };
  const auto operand = [&](size_t i) { return i < in.size() ? in[i] : Operand{}; };
  const auto& attrs = node.as<AttentionAttrs>();
  Args args{{},         in[0],      in[1],
            in[2],      operand(3), out,
            operand(4), operand(5), attention_sizes<Gpu>(node),
            fixed,      attrs.cache};
  // Dense rows, as the device's weights are placed.
  for (Operand* table : {&args.position_keys, &args.position_queries})
    table->ld = Gpu::linear_ldw(table->dtype, table->cols);
  if (args.bias)
    args.sizes.span = static_cast<int32_t>((graph[node.inputs[3]].shape.dims[1] + 1) / 2);
  return step<Gpu>(graph, node, std::move(args), [](const Args& a, const RunContext& c) noexcept {
    auto t = a.sizes;
    t.q = Gpu::matrix(a.q, c);
    t.k = Gpu::matrix(a.k, c);
    t.v = Gpu::matrix(a.v, c);
    t.y = Gpu::matrix(a.y, c);
    t.bias = Gpu::floats(a.bias, c);
    t.batch = Gpu::ragged(c);
    t.position_keys = Gpu::matrix(a.position_keys, c);
    t.position_queries = Gpu::matrix(a.position_queries, c);
    return c.tokens == 0 ? Gpu::kDone : Gpu::attention(t, a.fixed, a.cache, c);
  });
}

}  // namespace lowering

template <class Gpu>
Step lower(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out,
           const typename Gpu::Fixed& fixed) {
  using namespace lowering;
  switch (node.op) {
    case Op::attention:
      return attention<Gpu>(graph, node, in, out, fixed);
    case Op::linear:
      return linear<Gpu>(graph, node, in, out);
    case Op::layer_norm:
      return layer_norm<Gpu>(graph, node, in, out);
    case Op::rms_norm:
      return rms_norm<Gpu>(graph, node, in, out);
    case Op::l2_normalize:
      return l2_normalize<Gpu>(graph, node, in, out);
    case Op::embedding:
      return embedding<Gpu>(graph, node, in, out);
    case Op::positions:
      return positions<Gpu>(graph, node, in, out);
    case Op::rotary:
      return rotary<Gpu>(graph, node, in, out);
    case Op::rope:
      return rope<Gpu>(graph, node, in, out);
    case Op::activation:
      return activation<Gpu>(graph, node, in, out);
    case Op::scale:
      return scale<Gpu>(graph, node, in, out);
    case Op::add:
      return add<Gpu>(graph, node, in, out);
    case Op::gated:
      return gated<Gpu>(graph, node, in, out);
    case Op::pool:
      return pool<Gpu>(graph, node, in, out);
    case Op::concat:
      return concat<Gpu>(graph, node, in, out);
    case Op::spread:
      return spread<Gpu>(graph, node, in, out);
    case Op::windows:
      return windows<Gpu>(graph, node, in, out);
    default:
      return {};  // supports() said no
  }
}

}  // namespace trine::gpu
