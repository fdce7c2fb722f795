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
// Kernels: linear_{f32,f16,bf16,i8,q4,q8}_{8x16,32x32,64x64}, rows x columns of a threadgroup's
// tile. Of w, [n][ldw], the first three have dense rows with zeros in columns k .. ldw
// (linear_ldw), and w_first counts elements, a multiple of 8. For the others w_first and ldw count
// bytes, multiples of 4 (linear_row_bytes), x is not rounded, and a row is
//   i8: k integers of 8 bits, filled up to a multiple of 4, then a float that they are times;
//   q4: blocks of 32 weights, a scale and a minimum in half and 16 bytes, as GGUF's Q4_1: weight i
//   is
//       scale * q + minimum, q being the low four bits of byte i, or the high ones of byte i - 16;
//   q8: likewise with a byte for each q, 0 to 255.
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
