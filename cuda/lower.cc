// SPDX-License-Identifier: Apache-2.0
#include "lower.h"

#include <vector>

#include "exec/lower.h"
#include "kernels/attention.h"
#include "kernels/linear.h"
#include "kernels/rows.h"
#include "kv_pool.h"
#include "run.h"

namespace trine::cuda {
namespace {

Matrix matrix(const Operand& o, const RunContext& c) noexcept {
  // Columns count in elements of the value's own type.
  if (!o) return {};
  Operand start = o;
  start.column = 0;
  auto* const bytes = start.at<std::byte>(c);
  return {bytes + o.column * static_cast<int64_t>(size_of(o.dtype)), o.ld, o.dtype};
}

const int32_t* ints(const Operand& o, const RunContext& c) noexcept {
  return o.at<const int32_t>(c);
}

const float* floats(const Operand& o, const RunContext& c) noexcept { return o.at<const float>(c); }

// A step of `launch(args, context)`, which returns the launch's error.
template <class Args, class Launch>
Step step(const Graph& graph, const Node& node, Args args, Launch) {
  Step s;
  s.run = [](const void* a, const RunContext& c) noexcept {
    const Args& typed = *static_cast<const Args*>(a);
    run_of(c).note(typed.name, Launch{}(typed, c));
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

Unary unary(std::span<const Operand> in, const Operand& out) { return {{}, in[0], out}; }

Step lower_linear(const Graph& graph, const Node& node, std::span<const Operand> in,
                  const Operand& out) {
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
  Step s = step(graph, node, args, [](const Args& a, const RunContext& c) noexcept {
    LinearArgs l;
    l.x = matrix(a.x, c);
    l.w = a.w.data;
    l.ldw = linear_ldw(a.w.dtype, a.k);
    l.w_dtype = a.w.dtype;
    l.bias = floats(a.bias, c);
    l.residual = matrix(a.residual, c);
    l.y = matrix(a.y, c);
    l.m = a.y.rows_in(c);
    l.n = a.y.cols;
    l.k = a.k;
    l.activation = a.activation;
    return l.m == 0 ? cudaSuccess : linear(l, run_of(c).stream);
  });
  s.dtype = dtype;
  if (dtype == DType::kBF16) s.cost.bytes_fixed -= 2.0 * static_cast<double>(args.y.cols * args.k);
  return s;
}

Step lower_layer_norm(const Graph& graph, const Node& node, std::span<const Operand> in,
                      const Operand& out) {
  struct Args : Unary {
    Operand weight, bias;
    float eps;
  };
  return step(graph, node, Args{unary(in, out), in[1], in[2], node.as<LayerNormAttrs>().eps},
              [](const Args& a, const RunContext& c) noexcept {
                return layer_norm({matrix(a.x, c), floats(a.weight, c), floats(a.bias, c),
                                   matrix(a.y, c), a.y.rows_in(c), a.y.cols, a.eps},
                                  run_of(c).stream);
              });
}

Step lower_rms_norm(const Graph& graph, const Node& node, std::span<const Operand> in,
                    const Operand& out) {
  struct Args : Unary {
    Operand weight;
    float eps;
  };
  return step(graph, node, Args{unary(in, out), in[1], node.as<RmsNormAttrs>().eps},
              [](const Args& a, const RunContext& c) noexcept {
                return rms_norm({matrix(a.x, c), floats(a.weight, c), matrix(a.y, c),
                                 a.y.rows_in(c), a.y.cols, a.eps},
                                run_of(c).stream);
              });
}

Step lower_l2_normalize(const Graph& graph, const Node& node, std::span<const Operand> in,
                        const Operand& out) {
  struct Args : Unary {
    float eps;
  };
  return step(graph, node, Args{unary(in, out), node.as<L2NormalizeAttrs>().eps},
              [](const Args& a, const RunContext& c) noexcept {
                return l2_normalize(
                    {matrix(a.x, c), matrix(a.y, c), a.y.rows_in(c), a.y.cols, a.eps},
                    run_of(c).stream);
              });
}

Step lower_embedding(const Graph& graph, const Node& node, std::span<const Operand> in,
                     const Operand& out) {
  struct Args : Named {
    Operand ids[EmbeddingArgs::kMaxTables], tables[EmbeddingArgs::kMaxTables], y;
    int32_t count;
  };
  Args args{{}, {}, {}, out, static_cast<int32_t>(in.size() / 2)};
  for (size_t i = 0; i + 1 < in.size(); i += 2) {
    args.ids[i / 2] = in[i];
    args.tables[i / 2] = in[i + 1];
  }
  return step(graph, node, args, [](const Args& a, const RunContext& c) noexcept {
    EmbeddingArgs e{};
    for (int32_t i = 0; i < a.count; ++i) {
      e.ids[i] = ints(a.ids[i], c);
      e.tables[i] = a.tables[i].data;
      e.dtypes[i] = a.tables[i].dtype;
    }
    e.count = a.count;
    e.y = matrix(a.y, c);
    e.rows = a.y.rows_in(c);
    e.cols = a.y.cols;
    return embedding(e, run_of(c).stream);
  });
}

Step lower_positions(const Graph& graph, const Node& node, std::span<const Operand> in,
                     const Operand& out) {
  struct Args : Unary {
    int32_t padding_idx;
  };
  return step(graph, node, Args{unary(in, out), node.as<PositionsAttrs>().padding_idx},
              [](const Args& a, const RunContext& c) noexcept {
                return positions(
                    {ints(a.x, c), ragged(c), run_of(c).past, a.padding_idx, a.y.at<int32_t>(c)},
                    run_of(c).stream);
              });
}

Step lower_rotary(const Graph& graph, const Node& node, std::span<const Operand> in,
                  const Operand& out) {
  struct Args : Unary {
    Operand inv_freq, long_inv_freq;
    RotaryAttrs attrs;
  };
  return step(
      graph, node,
      Args{unary(in, out), in[1], in.size() > 2 ? in[2] : Operand{}, node.as<RotaryAttrs>()},
      [](const Args& a, const RunContext& c) noexcept {
        return rotary({ints(a.x, c), floats(a.inv_freq, c), floats(a.long_inv_freq, c),
                       matrix(a.y, c), a.y.cols / 2, ragged(c), c.lengths, a.attrs.scaling,
                       a.attrs.original_length, a.attrs.base, a.attrs.factor},
                      run_of(c).stream);
      });
}

Step lower_rope(const Graph& graph, const Node& node, std::span<const Operand> in,
                const Operand& out) {
  struct Args : Unary {
    Operand table;
    int64_t heads;
  };
  return step(graph, node, Args{unary(in, out), in[1], node.as<RopeAttrs>().heads},
              [](const Args& a, const RunContext& c) noexcept {
                return rope({matrix(a.x, c), matrix(a.table, c), matrix(a.y, c), a.y.rows_in(c),
                             a.heads, a.y.cols / a.heads, a.table.cols},
                            run_of(c).stream);
              });
}

Step lower_activation(const Graph& graph, const Node& node, std::span<const Operand> in,
                      const Operand& out) {
  struct Args : Unary {
    Activation activation;
  };
  return step(graph, node, Args{unary(in, out), node.as<ActivationAttrs>().activation},
              [](const Args& a, const RunContext& c) noexcept {
                return activation(
                    {matrix(a.x, c), matrix(a.y, c), a.y.rows_in(c), a.y.cols, a.activation},
                    run_of(c).stream);
              });
}

Step lower_scale(const Graph& graph, const Node& node, std::span<const Operand> in,
                 const Operand& out) {
  struct Args : Unary {
    float factor;
  };
  return step(graph, node, Args{unary(in, out), node.as<ScaleAttrs>().factor},
              [](const Args& a, const RunContext& c) noexcept {
                return scale({matrix(a.x, c), matrix(a.y, c), a.y.rows_in(c), a.y.cols, a.factor},
                             run_of(c).stream);
              });
}

Step lower_add(const Graph& graph, const Node& node, std::span<const Operand> in,
               const Operand& out) {
  struct Args : Unary {
    Operand b;
  };
  return step(
      graph, node, Args{unary(in, out), in[1]}, [](const Args& a, const RunContext& c) noexcept {
        return add({matrix(a.x, c), matrix(a.b, c), matrix(a.y, c), a.y.rows_in(c), a.y.cols},
                   run_of(c).stream);
      });
}

Step lower_gated(const Graph& graph, const Node& node, std::span<const Operand> in,
                 const Operand& out) {
  struct Args : Unary {
    Operand up;
    Activation activation;
  };
  return step(graph, node, Args{unary(in, out), in[1], node.as<GatedAttrs>().activation},
              [](const Args& a, const RunContext& c) noexcept {
                return gated({matrix(a.x, c), matrix(a.up, c), matrix(a.y, c), a.y.rows_in(c),
                              a.y.cols, a.activation},
                             run_of(c).stream);
              });
}

Step lower_pool(const Graph& graph, const Node& node, std::span<const Operand> in,
                const Operand& out) {
  struct Args : Unary {
    bool include_prompt;
    PoolMode mode;
  };
  const auto& attrs = node.as<PoolAttrs>();
  return step(graph, node, Args{unary(in, out), attrs.include_prompt, attrs.mode},
              [](const Args& a, const RunContext& c) noexcept {
                const int32_t* skip =
                    a.include_prompt ? nullptr : c.inputs[static_cast<int>(Input::kPromptLengths)];
                return pool({matrix(a.x, c), skip, matrix(a.y, c), a.y.cols, ragged(c), a.mode},
                            run_of(c).stream);
              });
}

Step lower_concat(const Graph& graph, const Node& node, std::span<const Operand> in,
                  const Operand& out) {
  struct Args : Named {
    std::vector<Operand> parts;
    Operand y;
  };
  return step(graph, node, Args{{}, {in.begin(), in.end()}, out},
              [](const Args& a, const RunContext& c) noexcept {
                Operand y = a.y;
                for (const Operand& part : a.parts) {
                  const cudaError_t e = copy_columns(
                      {matrix(part, c), matrix(y, c), a.y.rows_in(c), part.cols}, run_of(c).stream);
                  if (e != cudaSuccess) return e;
                  y.column += part.cols;
                }
                return cudaSuccess;
              });
}

Step lower_spread(const Graph& graph, const Node& node, std::span<const Operand> in,
                  const Operand& out) {
  return step(graph, node, unary(in, out), [](const Unary& a, const RunContext& c) noexcept {
    return spread({matrix(a.x, c), matrix(a.y, c), a.y.cols, ragged(c)}, run_of(c).stream);
  });
}

Step lower_windows(const Graph& graph, const Node& node, std::span<const Operand> in,
                   const Operand& out) {
  struct Args : Unary {
    int64_t cols;
    int32_t size;
  };
  const int32_t size = node.as<WindowsAttrs>().size;
  return step(graph, node, Args{unary(in, out), node.shape.cols() / size, size},
              [](const Args& a, const RunContext& c) noexcept {
                return windows({matrix(a.x, c), matrix(a.y, c), a.cols, a.size, ragged(c)},
                               run_of(c).stream);
              });
}

Step lower_attention(const Graph& graph, const Node& node, std::span<const Operand> in,
                     const Operand& out, const Fixed& fixed) {
  struct Args : Named {
    Operand q, k, v, bias, y, position_keys, position_queries;
    AttentionArgs sizes;
    Fixed fixed;
    int32_t cache;
  };
  const auto operand = [&](size_t i) { return i < in.size() ? in[i] : Operand{}; };
  const auto& attrs = node.as<AttentionAttrs>();
  Args args{{},         in[0],      in[1],
            in[2],      operand(3), out,
            operand(4), operand(5), attention_sizes(node),
            fixed,      attrs.cache};
  // Dense rows, as Weights::linear places them.
  for (Operand* table : {&args.position_keys, &args.position_queries})
    table->ld = linear_ldw(table->dtype, table->cols);
  if (args.bias)
    args.sizes.span = static_cast<int32_t>((graph[node.inputs[3]].shape.dims[1] + 1) / 2);
  return step(graph, node, std::move(args), [](const Args& a, const RunContext& c) noexcept {
    const Run& run = run_of(c);
    AttentionArgs t = a.sizes;
    t.q = matrix(a.q, c);
    t.k = matrix(a.k, c);
    t.v = matrix(a.v, c);
    t.y = matrix(a.y, c);
    t.bias = floats(a.bias, c);
    t.batch = ragged(c);
    t.position_keys = matrix(a.position_keys, c);
    t.position_queries = matrix(a.position_queries, c);
    t.position_at = a.fixed.position_at.get();
    t.reach = a.fixed.reach;
    t.workspace = run.workspace;
    t.counters = run.counters;
    if (a.cache >= 0 && run.past != nullptr) {
      const KvPool& pool = **a.fixed.pool;
      const auto size = static_cast<int64_t>(size_of(t.k.dtype));
      t.cache = {pool.base(),
                 static_cast<int64_t>(pool.page_bytes()) / size,
                 static_cast<int64_t>(pool.keys_at(a.cache)) / size,
                 static_cast<int64_t>(pool.values_at(a.cache)) / size,
                 run.pages,
                 run.pages_ld,
                 run.past,
                 static_cast<int32_t>(c.max_total),
                 run.all_cached};
    }
    return c.tokens == 0 ? cudaSuccess : attention(t, run.stream);
  });
}

}  // namespace

AttentionArgs attention_sizes(const Node& node) {
  const auto& attrs = node.as<AttentionAttrs>();
  AttentionArgs a;
  a.heads = attrs.heads;
  a.kv_heads = attrs.kv_heads;
  a.head_dim = static_cast<int32_t>(node.shape.cols() / attrs.heads);
  a.scale = attrs.scale;
  a.causal = attrs.causal;
  a.queries = attrs.queries;
  return a;
}

bool supports(const Node& node) noexcept {
  switch (node.op) {
    case Op::attention:
      return node.shape.cols() / node.as<AttentionAttrs>().heads <= kMaxHeadDim;
    case Op::linear:
    case Op::layer_norm:
    case Op::rms_norm:
    case Op::l2_normalize:
    case Op::embedding:
    case Op::positions:
    case Op::rotary:
    case Op::rope:
    case Op::activation:
    case Op::scale:
    case Op::add:
    case Op::gated:
    case Op::pool:
    case Op::concat:
    case Op::spread:
    case Op::windows:
      return true;
    default:
      return false;
  }
}

Step lower(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out,
           const Fixed& fixed) {
  switch (node.op) {
    case Op::attention:
      return lower_attention(graph, node, in, out, fixed);
    case Op::linear:
      return lower_linear(graph, node, in, out);
    case Op::layer_norm:
      return lower_layer_norm(graph, node, in, out);
    case Op::rms_norm:
      return lower_rms_norm(graph, node, in, out);
    case Op::l2_normalize:
      return lower_l2_normalize(graph, node, in, out);
    case Op::embedding:
      return lower_embedding(graph, node, in, out);
    case Op::positions:
      return lower_positions(graph, node, in, out);
    case Op::rotary:
      return lower_rotary(graph, node, in, out);
    case Op::rope:
      return lower_rope(graph, node, in, out);
    case Op::activation:
      return lower_activation(graph, node, in, out);
    case Op::scale:
      return lower_scale(graph, node, in, out);
    case Op::add:
      return lower_add(graph, node, in, out);
    case Op::gated:
      return lower_gated(graph, node, in, out);
    case Op::pool:
      return lower_pool(graph, node, in, out);
    case Op::concat:
      return lower_concat(graph, node, in, out);
    case Op::spread:
      return lower_spread(graph, node, in, out);
    case Op::windows:
      return lower_windows(graph, node, in, out);
    default:
      return {};  // supports() said no
  }
}

}  // namespace trine::cuda
