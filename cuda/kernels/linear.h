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
#include "kernels/matrix.h"

namespace trine::cuda {

// y[M, N] = act(x[M, K] . w[N, K]^T + bias[N]) + residual[M, N], all of it in device memory.
// With w in bf16, x is rounded to bf16 where it is float; with w in float, products are worth
// float's 24 bits but for the last two or three. Sums, bias and activation are float, y and
// residual float or bf16, rounded once. The bits of a row depend on that row, w, bias and residual,
// not on m nor on where the row stands.
struct LinearArgs {
  Matrix x;
  // [n][ldw]: rows as pack_linear writes them, 16-byte aligned, zeros in columns k .. ldw.
  const void* w = nullptr;
  int64_t ldw = 0;
  DType w_dtype = DType::kF32;  // kF32 or kBF16
  const float* bias = nullptr;  // [n], or null
  Matrix residual;              // data null if none; may be the same memory as y
  Matrix y;
  int64_t m = 0, n = 0, k = 0;
  Activation activation = Activation::kNone;
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
