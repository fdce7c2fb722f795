// SPDX-License-Identifier: Apache-2.0
#include "ops.h"

#include "exec/rotary.h"
#include "gpu/quantised.h"
#include "kv_pool.h"

namespace trine::metal {
namespace {

// Buffers are bound from their start; the kernels' arguments say where in them to begin, since
// offsets of bindings are multiples of 256.
Place whole(const Place& p) { return {p.buffer, 0, nullptr}; }
Place whole(const ops::Rows& r) { return whole(r.at); }

Matrix matrix_of(const ops::Rows& r) {
  if (!r.at) return metal::matrix(0, 0, DType::kF32);
  return metal::matrix(r.at.offset / static_cast<int64_t>(size_of(r.dtype)), r.ld, r.dtype);
}
int64_t first_float(const Place& p) { return p.offset / static_cast<int64_t>(sizeof(float)); }
// Quantised rows count bytes.
int64_t first_weight(const Place& p, DType dtype) {
  return gpu::is_quantised_form(dtype) ? p.offset : p.offset / static_cast<int64_t>(size_of(dtype));
}
int64_t first_int(const Place& p) { return p.offset / static_cast<int64_t>(sizeof(int32_t)); }
int32_t narrow(int64_t n) { return static_cast<int32_t>(n); }

Gpu::Dispatched norm(Kernel kernel, const ops::LayerNormArgs& a, const RunContext& c) {
  const NormArgs args{matrix_of(a.x),
                      matrix_of(a.y),
                      first_float(a.weight),
                      first_float(a.bias),
                      narrow(a.rows),
                      narrow(a.cols),
                      a.weight ? 1 : 0,
                      a.bias ? 1 : 0,
                      a.eps,
                      0};
  run_of(c).dispatch(norm_launch(kernel, args),
                     {whole(a.x), whole(a.weight), whole(a.bias), whole(a.y)}, args);
  return Gpu::kDone;
}

MapArgs map_args(const ops::Rows& a, const ops::Rows& b, const ops::Rows& y, int64_t rows,
                 int64_t cols, Activation activation = Activation::kNone, float factor = 1) {
  return {matrix_of(a), matrix_of(b), matrix_of(y),
          narrow(rows), narrow(cols), static_cast<int32_t>(activation),
          factor};
}

Gpu::Dispatched map(Kernel kernel, const ops::Rows& a, const ops::Rows& y, const MapArgs& args,
                    const RunContext& c) {
  run_of(c).dispatch(map_launch(kernel, args), {whole(a), whole(y)}, args);
  return Gpu::kDone;
}

Gpu::Dispatched map(Kernel kernel, const ops::Rows& a, const ops::Rows& b, const ops::Rows& y,
                    const MapArgs& args, const RunContext& c) {
  run_of(c).dispatch(map_launch(kernel, args), {whole(a), whole(b), whole(y)}, args);
  return Gpu::kDone;
}

SpreadArgs spread_args(const ops::Rows& x, const ops::Rows& y, const ops::Batch& batch,
                       int64_t cols, int32_t size) {
  return {matrix_of(x), matrix_of(y), batch.sequences, batch.tokens, narrow(cols), size};
}

void disentangled(const ops::AttentionArgs& a, const Fixed& fixed, const RunContext& c) {
  DisentangledArgs args{matrix_of(a.q),
                        matrix_of(a.k),
                        matrix_of(a.v),
                        matrix_of(a.y),
                        matrix_of(a.position_keys),
                        matrix_of(a.position_queries),
                        a.batch.sequences,
                        a.heads,
                        a.kv_heads,
                        a.head_dim,
                        a.scale,
                        static_cast<int32_t>(a.queries),
                        fixed.reach,
                        0,
                        a.position_keys.at ? 1 : 0,
                        a.position_queries.at ? 1 : 0};
  const Launch launch = disentangled_launch(args, a.q.dtype, a.batch.max_length);
  run_of(c).dispatch(launch,
                     {whole(a.q), whole(a.k), whole(a.v), whole(a.y), a.batch.offsets,
                      whole(a.position_keys), whole(a.position_queries), *fixed.position_at},
                     args);
}

Pages pages_of(const ops::AttentionArgs& a, const Fixed& fixed, int32_t cache,
               const gpu::StagedCaches& caches) {
  if (cache < 0 || caches.past == nullptr) return {};
  const gpu::KvPool& pool = **fixed.pool;
  const auto size = static_cast<int64_t>(size_of(a.q.dtype));
  return {0,
          static_cast<int64_t>(pool.page_bytes()) / size,
          static_cast<int64_t>(pool.keys_at(cache)) / size,
          static_cast<int64_t>(pool.values_at(cache)) / size,
          narrow(caches.pages_ld),
          1};
}

}  // namespace

ops::Rows Gpu::matrix(const Operand& o, const RunContext& c) noexcept {
  if (!o) return {};
  // Columns count in elements of the value's own type.
  const int64_t column = o.column * static_cast<int64_t>(size_of(o.dtype));
  if (o.place == Operand::Place::kFixed) {
    const Place at = weight(o);
    return {{at.buffer, at.offset + column, at.host + column}, o.ld, o.dtype};
  }
  Operand start = o;
  start.column = 0;
  return {run_of(c).place(start.at<std::byte>(c) + column), o.ld, o.dtype};
}

ops::Batch Gpu::ragged(const RunContext& c) noexcept {
  return {run_of(c).place(c.batch.offsets), c.batch.sequences, narrow(c.tokens),
          narrow(c.max_length)};
}

Gpu::Dispatched Gpu::linear(const ops::LinearArgs& a, const RunContext& c) noexcept {
  metal::LinearArgs args{matrix_of(a.x),
                         matrix_of(a.residual),
                         matrix_of(a.y),
                         first_weight(a.w, a.w_dtype),
                         first_float(a.bias),
                         narrow(a.ldw),
                         narrow(a.m),
                         narrow(a.n),
                         narrow(a.k),
                         0,
                         0,
                         static_cast<int32_t>(a.activation),
                         a.bias ? 1 : 0,
                         a.residual.at ? 1 : 0,
                         0};
  linear_chunks(args);
  run_of(c).dispatch(linear_launch(args, a.w_dtype),
                     {whole(a.x), whole(a.w), whole(a.bias), whole(a.residual), whole(a.y)}, args);
  return kDone;
}

Gpu::Dispatched Gpu::layer_norm(const ops::LayerNormArgs& a, const RunContext& c) noexcept {
  return norm(Kernel::layer_norm, a, c);
}
Gpu::Dispatched Gpu::rms_norm(const ops::RmsNormArgs& a, const RunContext& c) noexcept {
  return norm(Kernel::rms_norm, {a.x, a.weight, {}, a.y, a.rows, a.cols, a.eps}, c);
}
Gpu::Dispatched Gpu::l2_normalize(const ops::L2NormalizeArgs& a, const RunContext& c) noexcept {
  return norm(Kernel::l2_normalize, {a.x, {}, {}, a.y, a.rows, a.cols, a.eps}, c);
}

Gpu::Dispatched Gpu::embedding(const ops::EmbeddingArgs& a, const RunContext& c) noexcept {
  static_assert(ops::EmbeddingArgs::kMaxTables == 3);
  metal::EmbeddingArgs args{};
  args.y = matrix_of(a.y);
  args.count = a.count;
  args.rows = narrow(a.rows);
  args.cols = narrow(a.cols);
  args.table_rows = narrow(a.table_rows);
  for (int i = 0; i < a.count; ++i) {
    const DType dtype = a.dtypes[i];
    const int64_t ld = gpu::is_quantised_form(dtype) ? gpu::quantised_ldw(dtype, a.cols) : a.cols;
    args.tables[i] = metal::matrix(first_weight(a.tables[i], dtype), ld, dtype);
    args.ids_first[i] = first_int(a.ids[i]);
  }
  run_of(c).dispatch(embedding_launch(args),
                     {whole(a.ids[0]), whole(a.ids[1]), whole(a.ids[2]), whole(a.tables[0]),
                      whole(a.tables[1]), whole(a.tables[2]), whole(a.y)},
                     args);
  return kDone;
}

Gpu::Dispatched Gpu::positions(const ops::PositionsArgs& a, const RunContext& c) noexcept {
  const PositionsArgs args{first_int(a.ids), first_int(a.y), a.batch.sequences,
                           a.padding_idx,    a.past ? 1 : 0, 0};
  run_of(c).dispatch(positions_launch(args), {whole(a.ids), a.batch.offsets, a.past, whole(a.y)},
                     args);
  return kDone;
}

Gpu::Dispatched Gpu::rotary(const ops::RotaryArgs& a, const RunContext& c) noexcept {
  RotaryArgs args{matrix_of(a.y),
                  first_int(a.positions),
                  0,
                  a.batch.sequences,
                  a.batch.tokens,
                  narrow(a.pairs),
                  0,
                  a.scaling,
                  0};
  Place frequencies = a.inv_freq;
  if (a.original_length != 0) {  // of each sequence its own, for which Context::reserve made room
    Run& run = run_of(c);
    const auto* const lengths = reinterpret_cast<const int32_t*>(a.lengths.host);
    trine::RotaryArgs source{};
    source.inv_freq = reinterpret_cast<const float*>(a.inv_freq.host);
    source.long_inv_freq = reinterpret_cast<const float*>(a.long_inv_freq.host);
    source.pairs = a.pairs;
    source.original_length = a.original_length;
    source.base = a.base;
    source.factor = a.factor;
    auto* const rows = reinterpret_cast<float*>(run.inputs.contents + run.used);
    for (int32_t b = 0; b < a.batch.sequences; ++b)
      rotary_frequencies(source, lengths[b], rows + b * a.pairs);
    frequencies = run.place(rows);
    run.used += static_cast<size_t>(a.batch.sequences * a.pairs) * sizeof(float);
    args.frequencies_ld = narrow(a.pairs);
  }
  args.frequencies_first = first_float(frequencies);
  run_of(c).dispatch(rotary_launch(args),
                     {whole(a.positions), whole(frequencies), a.batch.offsets, whole(a.y)}, args);
  return kDone;
}

Gpu::Dispatched Gpu::rope(const ops::RopeArgs& a, const RunContext& c) noexcept {
  const RopeArgs args{matrix_of(a.x),  matrix_of(a.table), matrix_of(a.y),  narrow(a.rows),
                      narrow(a.heads), narrow(a.head_dim), narrow(a.turned)};
  run_of(c).dispatch(rope_launch(args), {whole(a.x), whole(a.table), whole(a.y)}, args);
  return kDone;
}

Gpu::Dispatched Gpu::activation(const ops::ActivationArgs& a, const RunContext& c) noexcept {
  return map(Kernel::activation, a.x, a.y, map_args(a.x, {}, a.y, a.rows, a.cols, a.activation), c);
}
Gpu::Dispatched Gpu::scale(const ops::ScaleArgs& a, const RunContext& c) noexcept {
  return map(Kernel::scale, a.x, a.y,
             map_args(a.x, {}, a.y, a.rows, a.cols, Activation::kNone, a.factor), c);
}
Gpu::Dispatched Gpu::copy_columns(const ops::CopyColumnsArgs& a, const RunContext& c) noexcept {
  return map(Kernel::copy_columns, a.x, a.y, map_args(a.x, {}, a.y, a.rows, a.cols), c);
}
Gpu::Dispatched Gpu::add(const ops::AddArgs& a, const RunContext& c) noexcept {
  return map(Kernel::add, a.a, a.b, a.y, map_args(a.a, a.b, a.y, a.rows, a.cols), c);
}
Gpu::Dispatched Gpu::gated(const ops::GatedArgs& a, const RunContext& c) noexcept {
  return map(Kernel::gated, a.gate, a.up, a.y,
             map_args(a.gate, a.up, a.y, a.rows, a.cols, a.activation), c);
}

Gpu::Dispatched Gpu::pool(const ops::PoolArgs& a, const RunContext& c) noexcept {
  const PoolArgs args{matrix_of(a.x), matrix_of(a.y),           a.batch.sequences,
                      narrow(a.cols), static_cast<int>(a.mode), a.skip ? 1 : 0};
  run_of(c).dispatch(pool_launch(args), {whole(a.x), a.batch.offsets, a.skip, whole(a.y)}, args);
  return kDone;
}

Gpu::Dispatched Gpu::spread(const ops::SpreadArgs& a, const RunContext& c) noexcept {
  const SpreadArgs args = spread_args(a.x, a.y, a.batch, a.cols, 1);
  run_of(c).dispatch(spread_launch(args), {whole(a.x), a.batch.offsets, whole(a.y)}, args);
  return kDone;
}
Gpu::Dispatched Gpu::windows(const ops::WindowsArgs& a, const RunContext& c) noexcept {
  const SpreadArgs args = spread_args(a.x, a.y, a.batch, a.cols, a.size);
  run_of(c).dispatch(windows_launch(args), {whole(a.x), a.batch.offsets, whole(a.y)}, args);
  return kDone;
}

Gpu::Dispatched Gpu::attention(const ops::AttentionArgs& a, const Fixed& fixed, int32_t cache,
                               const RunContext& c) noexcept {
  if (a.position_keys.at || a.position_queries.at) {
    disentangled(a, fixed, c);
    return kDone;
  }
  Run& run = run_of(c);
  const Pages pages = pages_of(a, fixed, cache, run.caches);
  const Place memory{run.pages.get(), 0, nullptr};
  const Place table = run.place(run.caches.pages), past = run.place(run.caches.past);
  if (pages.cached != 0) {
    const AppendKvArgs append{matrix_of(a.k), matrix_of(a.v), pages,     a.batch.sequences,
                              a.batch.tokens, a.kv_heads,     a.head_dim};
    run.dispatch(append_kv_launch(append, a.q.dtype),
                 {whole(a.k), whole(a.v), memory, a.batch.offsets, table, past}, append);
  }
  const metal::AttentionArgs args{matrix_of(a.q),
                                  matrix_of(a.k),
                                  matrix_of(a.v),
                                  matrix_of(a.y),
                                  pages,
                                  first_float(a.bias),
                                  a.batch.sequences,
                                  a.heads,
                                  a.kv_heads,
                                  a.head_dim,
                                  a.scale,
                                  a.causal ? 1 : 0,
                                  static_cast<int32_t>(a.queries),
                                  a.bias ? a.span : 0,
                                  kAnyLength,
                                  0,
                                  1,
                                  0};
  const AttentionLaunches all = attention_launches(
      args, a.q.dtype, {a.batch.max_length, narrow(c.max_total), run.caches.all_cached});
  for (int32_t i = 0; i < all.count; ++i) {
    run.dispatch(all.launches[i].launch,
                 {whole(a.q), whole(a.k), whole(a.v), whole(a.y), a.batch.offsets, whole(a.bias),
                  memory, table, past, run.partial},
                 all.launches[i].args);
  }
  return kDone;
}

namespace {

void prepare_attention(Device& device, const Node& node, DType dtype, bool positions) {
  const auto& attrs = node.as<AttentionAttrs>();
  const auto size = attention_size(narrow(node.shape.cols() / attrs.heads));
  const int32_t type = static_cast<int32_t>(dtype);
  if (positions) {
    device.prepare(Kernel::attention_disentangled_f32_d64 + (type * 3 + size), 128U >> size);
    return;
  }
  const Kernel few = Kernel::attention_f32_d64_few + (type * 3 + size) * 2;
  device.prepare(few, 32);
  device.prepare(few + 1, size == 2 ? 64 : 128);
  if (attrs.cache < 0) return;
  device.prepare(Kernel::append_kv_f32 + type, 256);
  device.prepare(Kernel::attention_join, 128);
}

}  // namespace

void prepare(Device& device, const Node& node, std::span<const Operand> in) {
  const auto wide = [&](Kernel kernel) {
    const bool is_wide = node.shape.cols() > kNormCols;
    device.prepare(is_wide ? kernel + 1 : kernel, is_wide ? 256 : 128);
  };
  switch (node.op) {
    case Op::attention:
      return prepare_attention(device, node, in[0].dtype,
                               in.size() > 4 && (in[4] || (in.size() > 5 && in[5])));
    case Op::linear: {
      const auto weights = static_cast<int32_t>(linear_weights(in[1].dtype));
      const Kernel first = Kernel::linear_f32_8x16 + weights * 3;
      for (int32_t tile = 0; tile < 3; ++tile) device.prepare(first + tile, tile == 0 ? 256 : 128);
      return;
    }
    case Op::layer_norm:
      return wide(Kernel::layer_norm);
    case Op::rms_norm:
      return wide(Kernel::rms_norm);
    case Op::l2_normalize:
      return wide(Kernel::l2_normalize);
    case Op::embedding:
      return device.prepare(Kernel::embedding, 256);
    case Op::positions:
      return device.prepare(Kernel::positions, 32);
    case Op::rotary:
      return device.prepare(Kernel::rotary, 256);
    case Op::rope:
      return device.prepare(Kernel::rope, 256);
    case Op::activation:
      return device.prepare(Kernel::activation, 256);
    case Op::scale:
      return device.prepare(Kernel::scale, 256);
    case Op::add:
      return device.prepare(Kernel::add, 256);
    case Op::gated:
      return device.prepare(Kernel::gated, 256);
    case Op::pool:
      return device.prepare(Kernel::pool, 8 * kPoolWays);
    case Op::concat:
      return device.prepare(Kernel::copy_columns, 256);
    case Op::spread:
      return device.prepare(Kernel::spread, 256);
    case Op::windows:
      return device.prepare(Kernel::windows, 256);
    default:
      return;  // no step
  }
}

}  // namespace trine::metal
