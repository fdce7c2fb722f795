// SPDX-License-Identifier: Apache-2.0
// linear by tiles of simdgroup matrices. Operands lie in threadgroup memory as float, which holds
// products of half and bfloat16 exactly and is multiplied as fast as half on Apple's GPUs (by
// Apple's and others' measurements; none of ours). Rows are four floats longer than they need be,
// so that the eight rows of a matrix lie in different banks.
//
// A chunk of k is summed up from zero by one simdgroup, in ascending steps of 8; chunks are added
// to the bias in ascending order, in registers, by the thread that stores the element. So all tiles
// give the same bits, as long as an element of a matrix product depends on its row and column
// alone.
//
// Bounds: the large tile by matrix products (64 x 64 takes 16 of them for each 8 loads of an
// operand); the small one, of a decode step, by the memory of the weights.
#include "kernels/activate.h"
#include "kernels/linear.h"
#include "kernels/quantised.h"
#include "kernels/quads.h"

using namespace trine::metal;

// What rows of x are rounded to.
TRINE_CONST int kToFloat = 0, kToBF16 = 1, kToIntegers = 2, kToGroups = 3;

// load: four weights of a row of w, from k on, a multiple of four; `v` is zeros. For types of
// numbers rows are dense.
template <class T>
struct WeightsOf {
  typedef float Sum;
  TRINE_CONST int kRounds = TypeOf<T>::kDType == kBF16 ? kToBF16 : kToFloat;
  static void load(device const char* w, constant LinearArgs& args, int row, int k,
                   thread float (&v)[4]) {
    if (k >= args.ldw) return;
    load4_aligned(w, TypeOf<T>::kDType, args.w_first + int64_t(row) * args.ldw + k, v);
  }
};

// Where the scales of quantised weights begin.
inline int64_t scales_of(constant LinearArgs& args) {
  return args.w_first + int64_t(args.n) * args.ldw;
}

// Integers on both sides: 256 products of them (kChunkK) are exact in float, and so is what the
// simdgroups add up, in whatever order, two outliers of x with 16 bits among them; chunks are added
// as int, in which k up to 2^17 fits.
struct I8 {};
template <>
struct WeightsOf<I8> {
  typedef int Sum;
  TRINE_CONST int kRounds = kToIntegers;
  static void load(device const char* w, constant LinearArgs& args, int row, int k,
                   thread float (&v)[4]) {
    if (k < args.k) load4_int8(w, args.w_first + int64_t(row) * args.ldw + k, v);
  }
};
static_assert(kChunkK * 127 * 127 + 2 * (32767 - 127) * 127 <= 1 << 24, "exact in float");

// A group is a stage of k.
template <int kBytes>
struct Groups {};
template <int kBytes>
struct WeightsOf<Groups<kBytes>> {
  typedef float Sum;
  TRINE_CONST int kRounds = kToGroups;
  static void load(device const char* w, constant LinearArgs& args, int row, int k,
                   thread float (&v)[4]) {
    if (k < args.k)
      load4_groups<kBytes>(w, args.w_first, scales_of(args), args.ldw / kBytes, row, k, v);
  }
};
static_assert(kStageK == 32, "eight lanes have the quads of a group");
typedef Groups<16> Q4;
typedef Groups<32> Q8;

// kRows x kCols: what a stage of operands is for, of which a simdgroup multiplies kSimdRows x
// kSimdCols. kSplit: each simdgroup has a stage and a chunk of its own, of the same tile.
template <class T, int kRows, int kCols, int kSimdRows, int kSimdCols, bool kSplit>
kernel void linear(device const char* x [[buffer(0)]], device const char* w [[buffer(1)]],
                   device const float* bias [[buffer(2)]],
                   device const char* residual [[buffer(3)]], device char* y [[buffer(4)]],
                   constant LinearArgs& args [[buffer(5)]], TRINE_THREAD) {
  // In floats. The sums of a chunk take the place of its last stage.
  const int kLd = kStageK + 4, kStage = (kRows + kCols) * kLd, kLdSums = kCols + 4;
  static_assert(kRows * (kCols + 4) <= (kRows + kCols) * (kStageK + 4), "sums fit a stage");
  TRINE_SHARED(float4, memory, (kSplit ? kLinearGroups : 1) * (kRows + kCols) * (kStageK + 4) / 4);
  threadgroup float* const all = (threadgroup float*)memory;

  const int rounds = kSplit ? (args.chunks + kLinearGroups - 1) / kLinearGroups : args.chunks;
  const int groups = !kSplit || rounds == 0 ? 1 : (args.chunks + rounds - 1) / rounds;
  const int own_group = kSplit ? int(simd) : 0;
  threadgroup float* const x_tile = all + own_group * kStage;
  threadgroup float* const w_tile = x_tile + kRows * kLd;
  threadgroup float* const sums = x_tile;
  const int kRounds = WeightsOf<T>::kRounds;
  const int kLoaders = kSplit ? 32 : 128;
  const int loader = kSplit ? int(lane) : int(thread_id);

  const int row0 = int(group.x) * kRows, col0 = int(group.y) * kCols;
  const int kAcross = kCols / kSimdCols;
  const int own_row = kSplit ? 0 : int(simd) / kAcross * kSimdRows;
  const int own_col = kSplit ? 0 : int(simd) % kAcross * kSimdCols;

  // The scale of each row of x, and what makes integers of it.
  TRINE_SHARED(float, x_scales, WeightsOf<T>::kRounds == kToIntegers ? 2 * kRows : 1);
  if (kRounds == kToIntegers) {
    for (int row = int(simd); row < kRows; row += kSplit ? groups : 4) {
      Largest largest = {{0, 0, 0}};
      for (int k = int(lane) * 4; row0 + row < args.m && k < args.k; k += 128) {
        float v[4];
        load4(x, args.x, row0 + row, k, args.k, v);
        for (int c = 0; c < 4; ++c) add_magnitude(largest, as_type<uint>(fabs(v[c])));
      }
      for (ushort step = 16; step > 0; step /= 2) {
        uint others[3];
        for (int i = 0; i < 3; ++i) others[i] = simd_shuffle_xor(largest.most[i], step);
        for (int i = 0; i < 3; ++i) add_magnitude(largest, others[i]);
      }
      const Rounding rounding = rounding_of(largest);
      if (lane == 0) {
        x_scales[2 * row] = rounding.scale;
        x_scales[2 * row + 1] = rounding.inverse;
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }

  // The quads of the tile that this thread stores: thread_id, and every 128th (32nd) from there.
  const int kOwn = kRows * kCols / 4 / kLoaders;
  static_assert(kRows * kCols / 4 % (kSplit ? 32 : 128) == 0, "whole quads for each thread");
  typename WeightsOf<T>::Sum total[kRows * kCols / 4 / (kSplit ? 32 : 128)][4];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int col = col0 + (loader + i * kLoaders) % (kCols / 4) * 4;
    for (int c = 0; c < 4; ++c) {
      const bool biased = kRounds != kToIntegers && args.has_bias != 0 && col + c < args.n;
      total[i][c] = biased ? bias[args.bias_first + col + c] : 0.0f;
    }
  }

  simdgroup_float8x8 product[kSimdRows / 8][kSimdCols / 8];
  for (int round = 0; round < rounds; ++round) {
    const int chunk = round * groups + own_group;
    const int begin = chunk * args.chunk, end = min(begin + args.chunk, args.k);
#pragma unroll
    for (int i = 0; i < kSimdRows / 8; ++i) {
#pragma unroll
      for (int j = 0; j < kSimdCols / 8; ++j)
        product[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
    for (int k0 = begin; k0 < end; k0 += kStageK) {
      for (int q = loader; q < kRows * (kStageK / 4); q += kLoaders) {
        const int row = q / (kStageK / 4), k = q % (kStageK / 4) * 4;
        float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (row0 + row < args.m) load4(x, args.x, row0 + row, k0 + k, args.k, v);
        // As on the CPU.
        if (kRounds == kToBF16) {
          for (int c = 0; c < 4; ++c) v[c] = bf16_to_float(float_to_bf16(v[c]));
        } else if (kRounds == kToIntegers) {
          for (int c = 0; c < 4; ++c) v[c] = rounded(v[c], x_scales[2 * row + 1]);
        } else if (kRounds == kToGroups) {
          const Rounding rounding = rounding_of(largest_of_lanes(v, 8));
          for (int c = 0; c < 4; ++c) v[c] = rounded(v[c], rounding.inverse) * rounding.scale;
        }
        *(threadgroup float4*)(x_tile + row * kLd + k) = float4(v[0], v[1], v[2], v[3]);
      }
      for (int q = loader; q < kCols * (kStageK / 4); q += kLoaders) {
        const int col = q / (kStageK / 4), k = q % (kStageK / 4) * 4;
        float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (col0 + col < args.n) WeightsOf<T>::load(w, args, col0 + col, k0 + k, v);
        *(threadgroup float4*)(w_tile + col * kLd + k) = float4(v[0], v[1], v[2], v[3]);
      }
      if (kSplit) {
        simdgroup_barrier(mem_flags::mem_threadgroup);
      } else {
        threadgroup_barrier(mem_flags::mem_threadgroup);
      }
#pragma unroll
      for (int k = 0; k < kStageK; k += 8) {
        simdgroup_float8x8 a[kSimdRows / 8], b[kSimdCols / 8];
#pragma unroll
        for (int i = 0; i < kSimdRows / 8; ++i)
          simdgroup_load(a[i], x_tile + (own_row + 8 * i) * kLd + k, kLd);
#pragma unroll
        for (int j = 0; j < kSimdCols / 8; ++j)
          simdgroup_load(b[j], w_tile + (own_col + 8 * j) * kLd + k, kLd, ulong2(0), true);
#pragma unroll
        for (int i = 0; i < kSimdRows / 8; ++i) {
#pragma unroll
          for (int j = 0; j < kSimdCols / 8; ++j)
            simdgroup_multiply_accumulate(product[i][j], a[i], b[j], product[i][j]);
        }
      }
      // The stage has been read.
      if (kSplit) {
        simdgroup_barrier(mem_flags::mem_threadgroup);
      } else {
        threadgroup_barrier(mem_flags::mem_threadgroup);
      }
    }
#pragma unroll
    for (int i = 0; i < kSimdRows / 8; ++i) {
#pragma unroll
      for (int j = 0; j < kSimdCols / 8; ++j)
        simdgroup_store(product[i][j], sums + (own_row + 8 * i) * kLdSums + own_col + 8 * j,
                        kLdSums);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (!kSplit || simd == 0) {
      const int parts = min(groups, args.chunks - round * groups);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const int quad = loader + i * kLoaders;
        const int at = quad / (kCols / 4) * kLdSums + quad % (kCols / 4) * 4;
        for (int part = 0; part < parts; ++part) {
          for (int c = 0; c < 4; ++c)
            total[i][c] += typename WeightsOf<T>::Sum(all[part * kStage + at + c]);
        }
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the sums have been read
  }

  if (kSplit && simd != 0) return;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int quad = loader + i * kLoaders;
    const int row = row0 + quad / (kCols / 4), col = col0 + quad % (kCols / 4) * 4;
    if (row >= args.m || col >= args.n) continue;
    float v[4];
    for (int c = 0; c < 4; ++c) v[c] = float(total[i][c]);
    if (kRounds == kToIntegers) {
      for (int c = 0; c < 4 && col + c < args.n; ++c) {
        v[c] *= scale_int8(w, scales_of(args), col + c);
        v[c] *= x_scales[2 * (row - row0)];
        if (args.has_bias != 0) v[c] += bias[args.bias_first + col + c];
      }
    }
    activate4(v, args.activation);
    if (args.has_residual != 0) {
      float r[4];
      load4(residual, args.residual, row, col, args.n, r);
      for (int c = 0; c < 4; ++c) v[c] += r[c];
    }
    store4(y, args.y, row, col, args.n, v);
  }
}

#define TRINE_LINEAR(name, T)                                            \
  TRINE_KERNEL(linear_##name##_8x16, linear<T, 8, 16, 8, 16, true>);     \
  TRINE_KERNEL(linear_##name##_32x32, linear<T, 32, 32, 16, 16, false>); \
  TRINE_KERNEL(linear_##name##_64x64, linear<T, 64, 64, 32, 32, false>)
TRINE_LINEAR(f32, float);
TRINE_LINEAR(f16, half);
TRINE_LINEAR(bf16, ushort);
TRINE_LINEAR(i8, I8);
TRINE_LINEAR(q4, Q4);
TRINE_LINEAR(q8, Q8);
