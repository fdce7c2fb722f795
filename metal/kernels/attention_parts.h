// SPDX-License-Identifier: Apache-2.0
// What both attention kernels are made of. A simdgroup owns 8 rows of scores; of each, four lanes
// have a quarter: lane l the columns l % 4 * (kTile / 4) .. of row l / 4, of a tile of kTile keys
// as of kTile columns of the result. Scores are in units of ln 2, so that exponentials are powers
// of two.
#pragma once

#include "kernels/attention.h"
#include "kernels/quads.h"

namespace trine {
namespace metal {

TRINE_CONST float kLog2E = 1.44269504f;

// A tile of operands or of scores in threadgroup memory: rows are four floats longer than they need
// be, which puts the eight rows of a matrix into different banks.
constexpr int padded(int cols) { return cols + 4; }

// A row's running softmax, as its four lanes have it: all of the scalars, a quarter of the columns.
template <int kD>
struct Row {
  float out[kD / 4];
  float largest, sum;
};

template <int kD>
inline void clear(thread Row<kD>& row) {
#pragma unroll
  for (int i = 0; i < kD / 4; ++i) row.out[i] = 0.0f;
  row.largest = -INFINITY;
  row.sum = 0.0f;
}

// Columns of a head from one row in device memory to one in threadgroup memory, by quads: `quad` of
// them, zeros from `count` elements on. Rows that don't exist: count 0.
inline void copy_quad(threadgroup float* to, device const char* from, int32_t dtype, bool vectors,
                      int64_t at, int count, int quad) {
  float v[4];
  load4_at(from, dtype, vectors, at + quad * 4, count - quad * 4, v);
  *(threadgroup float4*)(to + quad * 4) = float4(v[0], v[1], v[2], v[3]);
}

// scores[8][kTile] = 8 rows of a times the rows of b, transposed.
template <int kD, int kTile>
inline void multiply_transposed(threadgroup float* scores, int ld, const threadgroup float* a,
                                const threadgroup float* b) {
  simdgroup_float8x8 sums[kTile / 8];
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) sums[n] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (int k = 0; k < kD; k += 8) {
    simdgroup_float8x8 left, right;
    simdgroup_load(left, a + k, padded(kD));
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      simdgroup_load(right, b + 8 * n * padded(kD) + k, padded(kD), ulong2(0), true);
      simdgroup_multiply_accumulate(sums[n], left, right, sums[n]);
    }
  }
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) simdgroup_store(sums[n], scores + 8 * n, ulong(ld));
}

// This lane's scores become exponentials, here and in `scores`; what was summed up before is to be
// multiplied by the result, to be brought to the new maximum.
template <int kD, int kTile>
inline float soften(thread Row<kD>& row, thread float (&s)[kTile / 4], threadgroup float* scores,
                    uint lane) {
  float top = -INFINITY;
#pragma unroll
  for (int i = 0; i < kTile / 4; ++i) top = fmax(top, s[i]);
  top = fmax(top, simd_shuffle_xor(top, ushort(1)));
  top = fmax(top, simd_shuffle_xor(top, ushort(2)));
  top = fmax(top, row.largest);
  // Without a key in sight all is 0, and stays so.
  const float base = top == -INFINITY ? 0.0f : top;
  const float shrink = exp2(row.largest - base);
  row.largest = top;
  float sum = 0.0f;
  threadgroup float* const own = scores + lane / 4 * padded(kTile) + lane % 4 * (kTile / 4);
#pragma unroll
  for (int i = 0; i < kTile / 4; ++i) {
    const float e = exp2(s[i] - base);
    own[i] = e;
    sum += e;
  }
  sum += simd_shuffle_xor(sum, ushort(1));
  sum += simd_shuffle_xor(sum, ushort(2));
  row.sum = fma(row.sum, shrink, sum);
  return shrink;
}

// row.out = row.out * shrink + exponentials * V, by kTile columns of V at a time: products pass
// through the place of the exponentials, which are held in registers.
template <int kD, int kTile>
inline void add_values(thread Row<kD>& row, float shrink, threadgroup float* scores,
                       const threadgroup float* values, uint lane) {
  simdgroup_float8x8 weights[kTile / 8];
#pragma unroll
  for (int k = 0; k < kTile / 8; ++k) simdgroup_load(weights[k], scores + 8 * k, padded(kTile));
  const threadgroup float* const own = scores + lane / 4 * padded(kTile) + lane % 4 * (kTile / 4);
#pragma unroll
  for (int block = 0; block < kD / kTile; ++block) {
    simdgroup_float8x8 sums[kTile / 8], value;
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      sums[n] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
#pragma unroll
      for (int k = 0; k < kTile / 8; ++k) {
        simdgroup_load(value, values + 8 * k * padded(kD) + block * kTile + 8 * n, padded(kD));
        simdgroup_multiply_accumulate(sums[n], weights[k], value, sums[n]);
      }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);  // what lies there has been read
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) simdgroup_store(sums[n], scores + 8 * n, padded(kTile));
    simdgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
    for (int i = 0; i < kTile / 4; ++i) {
      thread float& out = row.out[block * (kTile / 4) + i];
      out = fma(out, shrink, own[i]);
    }
  }
}

// Columns of a head's result, times `by`, to elements from `at` on.
template <int kD, int kTile>
inline void store_row(const thread Row<kD>& row, float by, device char* y, int32_t dtype,
                      bool vectors, int64_t at, int head_dim, uint lane) {
#pragma unroll
  for (int block = 0; block < kD / kTile; ++block) {
#pragma unroll
    for (int i = 0; i < kTile / 4; i += 4) {
      const int col = block * kTile + int(lane % 4) * (kTile / 4) + i;
      float v[4];
      for (int c = 0; c < 4 && i + c < kTile / 4; ++c)
        v[c] = row.out[block * (kTile / 4) + i + c] * by;
      store4_at(y, dtype, vectors && kTile >= 16, at + col, min(head_dim - col, kTile / 4), v);
    }
  }
}

// What a query asks for is the sequence's alone.
inline int token_of(int32_t queries, int index, int length) {
  return queries == kAllQueries ? index : queries == kLastQuery ? length - 1 : 0;
}

}  // namespace metal
}  // namespace trine
