// SPDX-License-Identifier: Apache-2.0
// The launches of cuda/kernels/*.h, done by Metal's kernels on the emulator: what lets tests/gpu
// test both. Addresses become buffers that begin at a multiple of 16 bytes and elements from there.
#include <cmath>
#include <initializer_list>
#include <limits>
#include <vector>

#include "cuda/kernels/attention.h"
#include "cuda/kernels/linear.h"
#include "cuda/kernels/rows.h"
#include "exec/rotary.h"
#include "gpu/quantised.h"
#include "kernels/launch.h"
#include "simt/metal_registry.h"
#include "simt/runtime.h"

namespace trine::cuda {
namespace {

using simt::MetalBinding;

// A buffer's start at or before an address, and the elements between.
template <class T>
MetalBinding buffer_of(const T* p) {
  static char nothing[16];
  if (p == nullptr) return {nothing, 0};
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  return {reinterpret_cast<void*>(address / 16 * 16), 0};
}

int64_t elements_before(const void* p, size_t size) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % 16 / size);
}
template <class T>
int64_t elements_before(const T* p) {
  return elements_before(p, sizeof(T));
}

metal::Matrix matrix_of(const Matrix& m) {
  return metal::matrix(elements_before(m.data, size_of(m.dtype)), m.ld, m.dtype);
}

template <class Args>
cudaError_t launch(const metal::Launch& l, std::vector<MetalBinding> bindings, const Args& args) {
  if (l.empty()) return cudaSuccess;
  Args copy = args;
  bindings.push_back({&copy, sizeof copy});
  const metal::KernelName& name = metal::name_of(l.kernel);
  const simt::MetalKernel* kernel = simt::find_metal_kernel(name.name);
  if (kernel == nullptr) throw simt::Error(std::string("no kernel is called ") + name.name);
  simt::run_metal_kernel(*kernel, bindings,
                         {l.threadgroups[0], l.threadgroups[1], l.threadgroups[2]}, l.threads);
  return cudaSuccess;
}

int32_t narrow(int64_t x) { return static_cast<int32_t>(x); }

cudaError_t norm(metal::Kernel kernel, const Matrix& x, const float* weight, const float* bias,
                 const Matrix& y, int64_t rows, int64_t cols, float eps) {
  const metal::NormArgs args = {matrix_of(x),
                                matrix_of(y),
                                elements_before(weight),
                                elements_before(bias),
                                narrow(rows),
                                narrow(cols),
                                weight != nullptr,
                                bias != nullptr,
                                eps,
                                0};
  return launch(metal::norm_launch(kernel, args),
                {buffer_of(x.data), buffer_of(weight), buffer_of(bias), buffer_of(y.data)}, args);
}

cudaError_t map(metal::Kernel kernel, const Matrix& a, const Matrix* b, const Matrix& y,
                int64_t rows, int64_t cols, Activation activation, float factor) {
  metal::MapArgs args = {matrix_of(a), matrix_of(b != nullptr ? *b : a), matrix_of(y), narrow(rows),
                         narrow(cols), static_cast<int32_t>(activation), factor};
  std::vector<MetalBinding> bindings = {buffer_of(a.data)};
  if (b != nullptr) bindings.push_back(buffer_of(b->data));
  bindings.push_back(buffer_of(y.data));
  return launch(metal::map_launch(kernel, args), bindings, args);
}

}  // namespace

cudaError_t layer_norm(const LayerNormArgs& a, cudaStream_t) {
  return norm(metal::Kernel::layer_norm, a.x, a.weight, a.bias, a.y, a.rows, a.cols, a.eps);
}
cudaError_t rms_norm(const RmsNormArgs& a, cudaStream_t) {
  return norm(metal::Kernel::rms_norm, a.x, a.weight, nullptr, a.y, a.rows, a.cols, a.eps);
}
cudaError_t l2_normalize(const L2NormalizeArgs& a, cudaStream_t) {
  return norm(metal::Kernel::l2_normalize, a.x, nullptr, nullptr, a.y, a.rows, a.cols, a.eps);
}

cudaError_t embedding(const EmbeddingArgs& a, cudaStream_t) {
  metal::EmbeddingArgs args = {};
  std::vector<MetalBinding> ids, tables;
  for (int t = 0; t < 3; ++t) {
    const bool exists = t < a.count;
    ids.push_back(buffer_of(exists ? a.ids[t] : nullptr));
    tables.push_back(buffer_of(exists ? a.tables[t] : nullptr));
    if (!exists) continue;
    args.ids_first[t] = elements_before(a.ids[t]);
    args.tables[t] = gpu::is_quantised_form(a.dtypes[t])
                         ? metal::matrix(elements_before(a.tables[t], 1),
                                         gpu::quantised_ldw(a.dtypes[t], a.cols), a.dtypes[t])
                         : matrix_of({const_cast<void*>(a.tables[t]), a.cols, a.dtypes[t]});
  }
  args.y = matrix_of(a.y);
  args.table_rows = narrow(a.table_rows);
  args.count = a.count, args.rows = narrow(a.rows), args.cols = narrow(a.cols);
  ids.insert(ids.end(), tables.begin(), tables.end());
  ids.push_back(buffer_of(a.y.data));
  return launch(metal::embedding_launch(args), ids, args);
}

cudaError_t positions(const PositionsArgs& a, cudaStream_t) {
  const metal::PositionsArgs args = {elements_before(a.ids), elements_before(a.y),
                                     a.batch.sequences,      a.padding_idx,
                                     a.past != nullptr,      0};
  return launch(metal::positions_launch(args),
                {buffer_of(a.ids), buffer_of(a.batch.offsets), buffer_of(a.past), buffer_of(a.y)},
                args);
}

cudaError_t activation(const ActivationArgs& a, cudaStream_t) {
  return map(metal::Kernel::activation, a.x, nullptr, a.y, a.rows, a.cols, a.activation, 0);
}
cudaError_t add(const AddArgs& a, cudaStream_t) {
  return map(metal::Kernel::add, a.a, &a.b, a.y, a.rows, a.cols, Activation::kNone, 0);
}
cudaError_t gated(const GatedArgs& a, cudaStream_t) {
  return map(metal::Kernel::gated, a.gate, &a.up, a.y, a.rows, a.cols, a.activation, 0);
}
cudaError_t scale(const ScaleArgs& a, cudaStream_t) {
  return map(metal::Kernel::scale, a.x, nullptr, a.y, a.rows, a.cols, Activation::kNone, a.factor);
}
cudaError_t copy_columns(const CopyColumnsArgs& a, cudaStream_t) {
  return map(metal::Kernel::copy_columns, a.x, nullptr, a.y, a.rows, a.cols, Activation::kNone, 0);
}

cudaError_t spread(const SpreadArgs& a, cudaStream_t) {
  const metal::SpreadArgs args = {matrix_of(a.x), matrix_of(a.y), a.batch.sequences,
                                  a.batch.tokens, narrow(a.cols), 1};
  return launch(metal::spread_launch(args),
                {buffer_of(a.x.data), buffer_of(a.batch.offsets), buffer_of(a.y.data)}, args);
}
cudaError_t windows(const WindowsArgs& a, cudaStream_t) {
  const metal::SpreadArgs args = {matrix_of(a.x), matrix_of(a.y), a.batch.sequences,
                                  a.batch.tokens, narrow(a.cols), a.size};
  return launch(metal::windows_launch(args),
                {buffer_of(a.x.data), buffer_of(a.batch.offsets), buffer_of(a.y.data)}, args);
}

cudaError_t rotary(const RotaryArgs& a, cudaStream_t) {
  metal::RotaryArgs args = {matrix_of(a.y),
                            elements_before(a.positions),
                            0,
                            a.batch.sequences,
                            a.batch.tokens,
                            narrow(a.pairs),
                            0,
                            a.scaling,
                            0};
  // What the host does.
  std::vector<float> rows(static_cast<size_t>(a.batch.sequences * a.pairs) + 4);
  const float* frequencies = a.inv_freq;
  if (a.original_length != 0) {
    trine::RotaryArgs of = {};
    of.inv_freq = a.inv_freq, of.long_inv_freq = a.long_inv_freq, of.pairs = a.pairs;
    of.batch = {a.batch.offsets, a.batch.sequences}, of.lengths = a.lengths;
    of.original_length = a.original_length, of.base = a.base, of.factor = a.factor;
    for (int32_t b = 0; b < a.batch.sequences; ++b)
      rotary_frequencies(of, rotary_length(of, b), rows.data() + b * a.pairs);
    frequencies = rows.data();
    args.frequencies_ld = narrow(a.pairs);
  }
  args.frequencies_first = elements_before(frequencies);
  return launch(metal::rotary_launch(args),
                {buffer_of(a.positions), buffer_of(frequencies), buffer_of(a.batch.offsets),
                 buffer_of(a.y.data)},
                args);
}

cudaError_t rope(const RopeArgs& a, cudaStream_t) {
  const metal::RopeArgs args = {matrix_of(a.x),  matrix_of(a.table), matrix_of(a.y),
                                narrow(a.rows),  narrow(a.heads),    narrow(a.head_dim),
                                narrow(a.turned)};
  return launch(metal::rope_launch(args),
                {buffer_of(a.x.data), buffer_of(a.table.data), buffer_of(a.y.data)}, args);
}

cudaError_t pool(const PoolArgs& a, cudaStream_t) {
  const metal::PoolArgs args = {matrix_of(a.x),
                                matrix_of(a.y),
                                a.batch.sequences,
                                narrow(a.cols),
                                static_cast<int32_t>(a.mode),
                                a.skip != nullptr};
  return launch(
      metal::pool_launch(args),
      {buffer_of(a.x.data), buffer_of(a.batch.offsets), buffer_of(a.skip), buffer_of(a.y.data)},
      args);
}

// ---- linear

namespace {

metal::LinearArgs linear_args(const LinearArgs& a) {
  metal::LinearArgs args = {};
  args.x = matrix_of(a.x), args.y = matrix_of(a.y);
  args.residual = matrix_of(a.residual);
  args.w_first = elements_before(a.w, gpu::is_quantised_form(a.w_dtype) ? 1 : size_of(a.w_dtype));
  args.bias_first = elements_before(a.bias);
  args.ldw = narrow(a.ldw), args.m = narrow(a.m), args.n = narrow(a.n), args.k = narrow(a.k);
  args.activation = static_cast<int32_t>(a.activation);
  args.has_bias = a.bias != nullptr, args.has_residual = a.residual.data != nullptr;
  metal::linear_chunks(args);
  return args;
}

cudaError_t run_linear(const metal::Launch& l, const LinearArgs& a, const metal::LinearArgs& args) {
  return launch(l,
                {buffer_of(a.x.data), buffer_of(a.w), buffer_of(a.bias), buffer_of(a.residual.data),
                 buffer_of(a.y.data)},
                args);
}

}  // namespace

LinearTile linear_tile(const LinearArgs& a) {
  switch (metal::linear_tile(linear_args(a))) {
    case metal::LinearTile::k8x16:
      return LinearTile::k16x8;
    case metal::LinearTile::k32x32:
      return LinearTile::k32x32;
    default:
      return LinearTile::k64x64;
  }
}
bool linear_runs(LinearTile tile, const LinearArgs&) {
  return tile == LinearTile::k16x8 || tile == LinearTile::k32x32 || tile == LinearTile::k64x64;
}
cudaError_t linear(const LinearArgs& a, cudaStream_t) {
  const metal::LinearArgs args = linear_args(a);
  return run_linear(metal::linear_launch(args, a.w_dtype), a, args);
}
cudaError_t linear(LinearTile tile, const LinearArgs& a, cudaStream_t) {
  const metal::LinearArgs args = linear_args(a);
  const auto own = tile == LinearTile::k16x8    ? metal::LinearTile::k8x16
                   : tile == LinearTile::k32x32 ? metal::LinearTile::k32x32
                                                : metal::LinearTile::k64x64;
  return run_linear(metal::linear_launch(own, args, metal::linear_weights(a.w_dtype)), a, args);
}

// ---- attention

namespace {

metal::Pages pages_of(const KvPages& cache, size_t size) {
  metal::Pages pages = {};
  if (cache.data == nullptr) return pages;
  pages.first = elements_before(cache.data, size);
  pages.page_stride = cache.page_stride, pages.keys = cache.keys, pages.values = cache.values;
  pages.table_ld = narrow(cache.table_ld);
  pages.cached = 1;
  return pages;
}

metal::AttentionArgs attention_args(const AttentionArgs& a) {
  metal::AttentionArgs args = {};
  args.q = matrix_of(a.q), args.k = matrix_of(a.k), args.v = matrix_of(a.v);
  args.y = matrix_of(a.y);
  args.pages = pages_of(a.cache, size_of(a.q.dtype));
  args.bias_first = elements_before(a.bias);
  args.sequences = a.batch.sequences, args.heads = a.heads, args.kv_heads = a.kv_heads;
  args.head_dim = a.head_dim, args.scale = a.scale, args.causal = a.causal;
  args.queries = static_cast<int32_t>(a.queries);
  args.span = a.bias != nullptr ? a.span : 0;
  return args;
}

metal::AttentionBatch batch_of(const AttentionArgs& a) {
  return {a.batch.max_length, a.cache.max_keys, a.cache.all};
}

cudaError_t disentangled(const AttentionArgs& a) {
  metal::DisentangledArgs args = {};
  args.q = matrix_of(a.q), args.k = matrix_of(a.k), args.v = matrix_of(a.v);
  args.y = matrix_of(a.y);
  args.position_keys = matrix_of(a.position_keys);
  args.position_queries = matrix_of(a.position_queries);
  args.sequences = a.batch.sequences, args.heads = a.heads, args.kv_heads = a.kv_heads;
  args.head_dim = a.head_dim, args.scale = a.scale;
  args.queries = static_cast<int32_t>(a.queries), args.reach = a.reach;
  args.has_position_keys = a.position_keys.data != nullptr;
  args.has_position_queries = a.position_queries.data != nullptr;
  // The table is bound from its first entry on, at an aligned address.
  const std::vector<int32_t> at(a.position_at - a.reach, a.position_at + a.reach + 1);
  const metal::Launch l = metal::disentangled_launch(args, a.q.dtype, a.batch.max_length);
  return launch(l,
                {buffer_of(a.q.data), buffer_of(a.k.data), buffer_of(a.v.data), buffer_of(a.y.data),
                 buffer_of(a.batch.offsets), buffer_of(a.position_keys.data),
                 buffer_of(a.position_queries.data), buffer_of(at.data())},
                args);
}

}  // namespace

int64_t attention_workspace(const AttentionArgs& a) {
  return metal::attention_workspace(attention_args(a), batch_of(a));
}
int64_t attention_counters(const AttentionArgs&) { return 0; }

cudaError_t attention(const AttentionArgs& a, cudaStream_t) {
  if (a.position_at != nullptr) return disentangled(a);
  if (a.cache.data != nullptr) {
    metal::AppendKvArgs append = {
        matrix_of(a.k),    matrix_of(a.v), pages_of(a.cache, size_of(a.q.dtype)),
        a.batch.sequences, a.batch.tokens, a.kv_heads,
        a.head_dim};
    const cudaError_t error =
        launch(metal::append_kv_launch(append, a.q.dtype),
               {buffer_of(a.k.data), buffer_of(a.v.data), buffer_of(a.cache.data),
                buffer_of(a.batch.offsets), buffer_of(a.cache.table), buffer_of(a.cache.past)},
               append);
    if (error != cudaSuccess) return error;
  }
  const metal::AttentionLaunches all =
      metal::attention_launches(attention_args(a), a.q.dtype, batch_of(a));
  for (int32_t i = 0; i < all.count; ++i) {
    const cudaError_t error =
        launch(all.launches[i].launch,
               {buffer_of(a.q.data), buffer_of(a.k.data), buffer_of(a.v.data), buffer_of(a.y.data),
                buffer_of(a.batch.offsets), buffer_of(a.bias), buffer_of(a.cache.data),
                buffer_of(a.cache.table), buffer_of(a.cache.past),
                buffer_of(static_cast<const float*>(a.workspace))},
               all.launches[i].args);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace trine::cuda
