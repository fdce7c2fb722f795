// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/args.h"

namespace trine {
namespace metal {

// y[M, N] = act(x[M, K] . w[N, K]^T + bias[N]) + residual[M, N]
//
// x, residual and y are of any type, w of the one in the kernel's name. Beside weights in bfloat16,
// x is rounded to bfloat16, as on the CPU. Sums, bias and activation are float. The bits of a row
// depend on that row, w, bias and residual: not on m, nor on the kernel.
//
// Beside i8, a row of x is rounded to integers and a scale, and sums are integers. Beside q4 and q8
// that is done in groups of 32 of k, and sums are float.
//
// Kernels: linear_{f32,f16,bf16,i8,q4,q8}_{8x16,32x32,64x64}, rows x columns of a threadgroup's
// tile. Of w, [n][ldw], the first three have dense rows with zeros in columns k .. ldw
// (linear_ldw), and w_first counts elements, a multiple of 8. For the others w_first, a multiple of
// 4, and ldw count bytes: csrc/gpu/quantised.h says how they lie (i8 is its kI8, q4 kInt4Groups, q8
// kQ8Groups).
//
// Buffers: 0 x, 1 w, 2 bias (float, or absent), 3 residual (or absent), 4 y, which may be the
// residual; 5 these.
struct LinearArgs {
  Matrix x, residual, y;
  int64_t w_first;
  int64_t bias_first;
  int32_t ldw;
  int32_t m, n, k;
  int32_t chunk, chunks;  // k of a chunk and how many there are: linear_chunks
  int32_t activation;
  int32_t has_bias, has_residual;
  int32_t unused;
};
static_assert(sizeof(LinearArgs) == 3 * 24 + 2 * 8 + 10 * 4, "the same on both sides");

// k is cut into chunks of at most so many; a chunk is summed up from zero in ascending steps of 8,
// and chunks are added in order to the bias.
TRINE_CONST int32_t kChunkK = 256;
// The smallest tile sums up so many chunks side by side at most, a simdgroup each.
TRINE_CONST int32_t kLinearGroups = 4;
// Chunks are multiples of it, as is what a threadgroup reads at a time.
TRINE_CONST int32_t kStageK = 32;

}  // namespace metal
}  // namespace trine
