// SPDX-License-Identifier: Apache-2.0
// Rows of x as integers, to the bit as the CPU rounds them (exec/int8.h; round_group of
// cpu/kernels/linear_int4-inl.h): products and divisions round once each, none is fused.
#pragma once

#include "kernels/linear.h"
#include "kernels/linear_epilogue.cuh"

namespace trine::cuda {

struct RoundParams {
  const void* x;
  int64_t ldx;
  bool x_is_bf16, vectors;
  unsigned char* rows;
  int64_t ld;         // bytes
  int8::Row* beside;  // beside int8
  int m, k;
};

inline constexpr int kRoundThreads = 256;

TRINE_DEV uint32_t magnitude_bits(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// As unsigned numbers magnitudes are in order, infinity and then NaN behind all others.
TRINE_DEV uint32_t largest_of(const float (&v)[4]) {
  const uint32_t a = max(magnitude_bits(v[0]), magnitude_bits(v[1]));
  return max(a, max(magnitude_bits(v[2]), magnitude_bits(v[3])));
}

template <int lanes>
TRINE_DEV uint32_t largest_of_lanes(uint32_t x) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

// The three largest of some magnitudes, as bits, in falling order.
struct ThreeLargest {
  static_assert(int8::kOutliers == 2);
  uint32_t most[3];

  TRINE_DEV void add(uint32_t bits) {
    const uint32_t a = min(bits, most[0]), b = min(a, most[1]);
    most[0] = max(bits, most[0]), most[1] = max(a, most[1]), most[2] = max(b, most[2]);
  }
};

struct RowScale {
  float scale, inverse;
};

// int8::scale_of, and of groups the same: what is not finite makes all NaN, what is tiny zeros.
TRINE_DEV RowScale row_scale(uint32_t largest_bits) {
  const float largest = __uint_as_float(largest_bits);
  if (largest_bits >= 0x7f800000u) return {__uint_as_float(0x7fc00000u), 0.0f};
  if (largest < 0x1p-100f) return {0.0f, 0.0f};
  return {__fdiv_rn(largest, 127.0f), __fdiv_rn(127.0f, largest)};
}

// int8::scale_of of a token's values.
TRINE_DEV RowScale row_scale(const ThreeLargest& largest) {
  if (largest.most[0] >= 0x7f800000u) return row_scale(largest.most[0]);
  const float least = __fmul_rn(__uint_as_float(largest.most[0]), int8::kMost / int8::kMostOutlier);
  return row_scale(max(largest.most[2], magnitude_bits(least)));
}

// To nearest, ties to even; 0 of NaN and infinity, whose inverse is 0. The low bits of the sum.
TRINE_DEV int32_t rounded(float x, float inverse) {
  const float sum = __fadd_rn(__fmul_rn(x, inverse), 0x1.8p23f);
  return sum == sum ? __float_as_int(sum) - 0x4b400000 : 0;
}

TRINE_DEV uint32_t pack4(const int32_t (&q)[4]) {
  uint32_t word = 0;
  for (int i = 0; i < 4; ++i) word |= (static_cast<uint32_t>(q[i]) & 0xffu) << (8 * i);
  return word;
}

TRINE_DEV void load_quad(float (&v)[4], const RoundParams& p, int row, int quad) {
  load4(v, p.x, row * p.ldx + 4 * quad, p.x_is_bf16, p.vectors, p.k - 4 * quad);
}

// A block a row. Which of two outliers comes first depends on who is first, the sum of both
// doesn't.
TRINE_GLOBAL void __launch_bounds__(kRoundThreads) linear_round_rows(const RoundParams p) {
  constexpr int kWarps = kRoundThreads / 32;
  constexpr auto kByte = static_cast<int32_t>(int8::kMost);
  TRINE_SHARED(uint32_t, of_warps, kWarps * 3);
  TRINE_SHARED(int32_t, outliers, 1);
  const int row = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int quads = (p.k + 15) / 16 * 4;
  ThreeLargest largest = {};
  for (int quad = thread; quad < quads; quad += kRoundThreads) {
    float v[4];
    load_quad(v, p, row, quad);
    for (int i = 0; i < 4; ++i) largest.add(magnitude_bits(v[i]));
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    uint32_t others[3];
    for (int i = 0; i < 3; ++i) others[i] = __shfl_xor_sync(0xffffffffu, largest.most[i], step);
    for (int i = 0; i < 3; ++i) largest.add(others[i]);
  }
  if (thread % 32 == 0) {
    for (int i = 0; i < 3; ++i) of_warps[thread / 32 * 3 + i] = largest.most[i];
  }
  if (thread == 0) outliers[0] = 0;
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) {
    if (warp == thread / 32) continue;
    for (int i = 0; i < 3; ++i) largest.add(of_warps[warp * 3 + i]);
  }
  const RowScale scale = row_scale(largest);
  unsigned char* const to = p.rows + row * p.ld;
  int8::Row* const beside = p.beside + row;
  for (int quad = thread; quad < quads; quad += kRoundThreads) {
    float v[4];
    load_quad(v, p, row, quad);
    int32_t q[4];
    for (int i = 0; i < 4; ++i) {
      const int32_t integer = rounded(v[i], scale.inverse);
      q[i] = max(-kByte, min(integer, kByte));
      if (q[i] != integer)
        beside->outlier[atomicAdd(&outliers[0], 1)] = {4 * quad + i, integer - q[i]};
    }
    reinterpret_cast<uint32_t*>(to)[quad] = pack4(q);
  }
  __syncthreads();
  if (thread == 0) {
    beside->scale = scale.scale, beside->outliers = outliers[0];
    for (int i = outliers[0]; i < int8::kOutliers; ++i) beside->outlier[i] = {0, 0};
  }
}

// Four numbers a thread, a group 8 lanes, a stage of k a warp.
TRINE_GLOBAL void __launch_bounds__(kRoundThreads) linear_round_groups(const RoundParams p) {
  constexpr int kStageBytes = kGroupedStage + kGroupsAtOnce * 8;
  const int stages = static_cast<int>(p.ld) / kStageBytes;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * (kRoundThreads / 32) + threadIdx.x / 32;
  const int row = static_cast<int>(warp / stages), stage = static_cast<int>(warp % stages);
  if (row >= p.m) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float v[4];
  load_quad(v, p, row, stage * 32 + lane);
  const RowScale scale = row_scale(largest_of_lanes<8>(largest_of(v)));
  int32_t q[4], sum = 0;
  for (int i = 0; i < 4; ++i) q[i] = rounded(v[i], scale.inverse), sum += q[i];
#pragma unroll
  for (int step = 4; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  unsigned char* const to = p.rows + row * p.ld + stage * kStageBytes;
  reinterpret_cast<uint32_t*>(to)[lane] = pack4(q);
  if (lane % 8 == 0) {
    reinterpret_cast<float2*>(to + kGroupedStage)[lane / 8] =
        make_float2(scale.scale, __fmul_rn(scale.scale, __int2float_rn(sum)));
  }
}

}  // namespace trine::cuda
