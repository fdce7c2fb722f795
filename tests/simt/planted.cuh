// SPDX-License-Identifier: Apache-2.0
// Two small kernels, and copies of them with one bug each.
#pragma once

#include "kernels/dialect.h"

namespace trine::cuda {

enum class Bug {
  kNone,
  kMissingBarrier,        // softmax: reads what other warps write
  kMissingSecondBarrier,  // softmax: overwrites what other warps still read
  kDivergentBarrier,      // softmax: the warps of a block at two barriers
  kBarrierAfterExit,      // softmax: some threads have returned before it
  kPartialShuffle,        // softmax: half a warp shuffles
  kLeftOutLane,           // softmax: a shuffle reads a lane outside of its mask
  kUninitialised,         // softmax: reads a word of shared memory that nobody writes
  kGlobalRead,            // softmax: one element past the end of x
  kSharedWrite,           // softmax: past the end of the array
  kSharedOverrun,         // the same through a pointer, whose array's size no compiler sees
  kBlocksShareOutput,     // softmax: all blocks write one row
  kMissingWait,           // gemm: cp.async isn't waited for
  kMissingBufferBarrier,  // gemm: the next copy overwrites a buffer that is still read
  kUnfinishedCopy,        // gemm: a cp.async is under way at the end
  kMisalignedCopy,        // gemm: a source that isn't a multiple of 16 bytes
  kMisalignedVector,      // softmax: float4 at a float's address
  kWrongFragment,         // gemm: mma gets two registers of ldmatrix the wrong way round
};

TRINE_DEV float max_of_warp(float v) {
  for (int d = 16; d > 0; d /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, d));
  return v;
}
TRINE_DEV float sum_of_warp(float v) {
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  return v;
}

__device__ __noinline__ inline float* out_of_sight(float* p) { return p; }

// y = softmax(x) of one row of n elements to a block; n is a multiple of 4.
template <Bug bug>
TRINE_GLOBAL void softmax(const float* x, float* y, int n) {
  TRINE_SHARED(float, partial, 32);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int warp = thread / 32, lane = thread % 32, warps = threads / 32;
  x += static_cast<int64_t>(blockIdx.x) * n;
  y += bug == Bug::kBlocksShareOutput ? 0 : static_cast<int64_t>(blockIdx.x) * n;

  float largest = -INFINITY;
  const int shift = bug == Bug::kMisalignedVector ? 1 : 0;
  for (int i = 4 * thread; i < n; i += 4 * threads) {
    const float4 four = *reinterpret_cast<const float4*>(x + i - (i > 0 ? shift : 0));
    largest = fmaxf(fmaxf(largest, fmaxf(four.x, four.y)), fmaxf(four.z, four.w));
  }
  largest = max_of_warp(largest);
  if (lane == 0) partial[warp] = largest;
  if constexpr (bug == Bug::kDivergentBarrier) {
    if (warp == 0) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if constexpr (bug == Bug::kBarrierAfterExit) {
    if (4 * thread >= n) return;
    __syncthreads();
  } else if constexpr (bug != Bug::kMissingBarrier) {
    __syncthreads();
  }
  const int known = bug == Bug::kUninitialised ? warps + 1 : warps;
  largest = max_of_warp(lane < known ? partial[lane] : -INFINITY);
  if constexpr (bug == Bug::kUninitialised) {
    // fmaxf drops a NaN; a sum does not.
    largest += lane == warps ? 0.0f * partial[warps] : 0.0f;
    largest = __shfl_sync(0xffffffffu, largest, warps);
  }
  if constexpr (bug != Bug::kMissingSecondBarrier) __syncthreads();

  float sum = 0;
  const int end = bug == Bug::kGlobalRead ? n + 1 : n;
  for (int i = thread; i < end; i += threads) {
    const float e = fast_exp(x[i] - largest);
    if (i < n) y[i] = e;
    sum += i < n ? e : 0.0f;
  }
  sum = sum_of_warp(sum);
  const int to = bug == Bug::kSharedWrite ? warp + 31 : warp;
  if constexpr (bug == Bug::kSharedOverrun) {
    if (lane == 0) out_of_sight(partial)[warp + 31] = sum;
  } else {
    if (lane == 0) partial[to] = sum;
  }
  __syncthreads();
  sum = lane < warps ? partial[lane] : 0.0f;
  if constexpr (bug == Bug::kPartialShuffle) {
    if (lane < 16) sum = sum_of_warp(sum);
  } else if constexpr (bug == Bug::kLeftOutLane) {
    if (lane < 16) sum += __shfl_xor_sync(0xffffu, sum, 16);
  } else {
    sum = sum_of_warp(sum);
  }
  for (int i = thread; i < n; i += threads) y[i] /= sum;
}

// Where chunk `chunk` of 8 columns of row `row` lies in a tile of 32 columns: ldmatrix reads 8 rows
// at a time, which so lie in different banks.
TRINE_DEV int swizzled(int row, int chunk) { return row * 32 + ((chunk ^ (row / 2 % 4)) * 8); }

// c[m][n] = sum of a[m][k] * b[n][k], in tiles of 64 x 64, for sizes that are multiples of 64. Four
// warps with 32 x 32 each; k goes by 32, through two buffers.
template <Bug bug>
TRINE_GLOBAL void __launch_bounds__(128)
    gemm(const bf16* a, const bf16* b, float* c, int n, int k) {
  TRINE_SHARED(bf16, tile_a, 2 * 64 * 32);
  TRINE_SHARED(bf16, tile_b, 2 * 64 * 32);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int row = warp % 2 * 32, col = warp / 2 * 32;
  a += static_cast<int64_t>(blockIdx.y) * 64 * k;
  b += static_cast<int64_t>(blockIdx.x) * 64 * k;

  const auto copy = [&](int step) {
    bf16* to_a = tile_a + step % 2 * 64 * 32;
    bf16* to_b = tile_b + step % 2 * 64 * 32;
    for (int i = thread; i < 256; i += 128) {
      const int r = i / 4, chunk = i % 4;
      const int64_t from = static_cast<int64_t>(r) * k + step * 32 + chunk * 8;
      cp_async16(to_a + swizzled(r, chunk), a + from);
      cp_async16(to_b + swizzled(r, chunk),
                 b + from - (bug == Bug::kMisalignedCopy && from > 0 ? 1 : 0));
    }
    cp_async_commit();
  };

  float sums[2][4][4] = {};
  const int steps = k / 32;
  copy(0);
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps || bug == Bug::kUnfinishedCopy) {
      copy(bug == Bug::kUnfinishedCopy && step + 1 == steps ? step - 1 : step + 1);
    } else {
      cp_async_commit();
    }
    cp_async_wait<bug == Bug::kMissingWait ? 2 : 1>();
    __syncthreads();
    const bf16* from_a = tile_a + step % 2 * 64 * 32;
    const bf16* from_b = tile_b + step % 2 * 64 * 32;
    for (int half = 0; half < 2; ++half) {
      uint32_t left[2][4], right[4][2];
      for (int i = 0; i < 2; ++i) {
        ldmatrix_x4(left[i], from_a + swizzled(row + i * 16 + lane % 16, half * 2 + lane / 16));
      }
      for (int j = 0; j < 2; ++j) {
        uint32_t four[4];
        const int r = col + j * 16 + lane % 8 + lane / 16 * 8;
        ldmatrix_x4(four, from_b + swizzled(r, half * 2 + lane / 8 % 2));
        const bool wrong = bug == Bug::kWrongFragment;
        right[2 * j][0] = four[0];
        right[2 * j][1] = four[wrong ? 2 : 1];
        right[2 * j + 1][0] = four[wrong ? 1 : 2];
        right[2 * j + 1][1] = four[3];
      }
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 4; ++j) mma_m16n8k16_bf16(sums[i][j], left[i], right[j]);
      }
    }
    if constexpr (bug != Bug::kMissingBufferBarrier) __syncthreads();
  }
  if constexpr (bug != Bug::kUnfinishedCopy) cp_async_wait<0>();
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      const int64_t r = static_cast<int64_t>(blockIdx.y) * 64 + row + i * 16 + lane / 4;
      float* out = c + r * n + static_cast<int64_t>(blockIdx.x) * 64 + col + j * 8 + lane % 4 * 2;
      out[0] = sums[i][j][0];
      out[1] = sums[i][j][1];
      out[8 * n] = sums[i][j][2];
      out[8 * n + 1] = sums[i][j][3];
    }
  }
}

}  // namespace trine::cuda
