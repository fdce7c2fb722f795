// SPDX-License-Identifier: Apache-2.0
// Launches of linear: asynchronous on the stream, without allocation, fit for capture in a graph.
#pragma once

#ifdef TRINE_SIMT
#include "simt/runtime.h"
#else
#include <cuda_runtime_api.h>
#endif

#include <cstdint>

#include "exec/args.h"
#include "exec/int8.h"
#include "gpu/quantised.h"
#include "kernels/matrix.h"

namespace trine::cuda {

// y[M, N] = act(x[M, K] . w[N, K]^T + bias[N]) + residual[M, N], all of it in device memory.
// With w in bf16, x is rounded to bf16 where it is float; with w in float, products are worth
// float's 24 bits but for the last two or three. With w in int8 or in groups, rows of x are rounded
// to integers first, as gpu/quantised.h says, and their products summed exactly, those of groups
// within a group. Sums, bias and activation are float, y and
// residual float or bf16, rounded once. The bits of a row depend on that row, w, bias and residual,
// not on m nor on where the row stands.
struct LinearArgs {
  Matrix x;
  // [n][ldw], 16-byte aligned: rows as pack_linear writes them, with zeros in columns k .. ldw, or
  // of integers as gpu/quantised.h has them, their scales behind them.
  const void* w = nullptr;
  int64_t ldw = 0;              // elements, of integers bytes
  DType w_dtype = DType::kF32;  // kF32, kBF16, kI8, kInt4Groups or kQ8Groups
  const float* bias = nullptr;  // [n], or null
  Matrix residual;              // data null if none; may be the same memory as y
  Matrix y;
  int64_t m = 0, n = 0, k = 0;
  Activation activation = Activation::kNone;
  void* workspace = nullptr;  // linear_workspace bytes, 16-byte aligned: x in integers
};

// How the work is cut: all ways give the same bits. Names are rows x columns of a block's tile.
enum class LinearTile : uint8_t {
  k16x8,
  k16x32,
  k32x32,
  k64x64,
  k128x128,
  kHopper128x64,
  kHopper128x128,
  kHopper128x192
};
inline constexpr int kLinearTiles = 8;

// What the current device runs best for these sizes.
LinearTile linear_tile(const LinearArgs& args);
// Whether this tile can run there: those of Hopper need sm_90, bf16 and aligned rows.
bool linear_runs(LinearTile tile, const LinearArgs& args);

cudaError_t linear(const LinearArgs& args, cudaStream_t stream);
cudaError_t linear(LinearTile tile, const LinearArgs& args, cudaStream_t stream);

// Elements from one row of packed weights to the next: whole 16 bytes.
constexpr int64_t linear_ldw(DType dtype, int64_t k) {
  const int64_t unit = 16 / static_cast<int64_t>(size_of(dtype));
  return (k + unit - 1) / unit * unit;
}

inline constexpr int64_t kGroupsAtOnce = 4;
inline constexpr int64_t kGroupedStage = kGroupsAtOnce * kGroup;  // of k

// Bytes from one row of x in integers to the next. Beside int8 the rows are as w's, with [m]
// int8::Row behind them; beside groups each 128 of k are their integers, then 4 pairs of float: the
// scale of a group, and it times the sum of the integers.
constexpr int64_t rounded_ldx(DType w_dtype, int64_t k) {
  return w_dtype == DType::kI8
             ? gpu::quantised_ldw(w_dtype, k)
             : (k + kGroupedStage - 1) / kGroupedStage * (kGroupedStage + kGroupsAtOnce * 8);
}

// Bytes that linear needs beside its operands.
constexpr int64_t linear_workspace(DType w_dtype, int64_t m, int64_t k) {
  if (!gpu::is_quantised_form(w_dtype)) return 0;
  return m * (rounded_ldx(w_dtype, k) +
              (w_dtype == DType::kI8 ? static_cast<int64_t>(sizeof(int8::Row)) : 0));
}

// Dense rows of weights as linear reads them: converted, and filled up with zeros.
struct PackLinearArgs {
  const void* source;  // [n][k], device memory
  DType source_dtype;  // kF32, kF16 or kBF16
  void* w;             // [n][linear_ldw(w_dtype, k)]
  DType w_dtype;       // kF32 or kBF16
  int64_t n, k;
};
cudaError_t pack_linear(const PackLinearArgs& args, cudaStream_t stream);

}  // namespace trine::cuda
