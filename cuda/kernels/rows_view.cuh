// SPDX-License-Identifier: Apache-2.0
// Rows of any type as kernels read and write them.
//
// The unit of access is a chunk of 8 columns: 16 bytes of bfloat16, two times 16 of float. Where
// rows are not aligned, the same chunks are read element by element, so that bits stay the same.
#pragma once

#include "kernels/dialect.h"
#include "kernels/matrix.h"
#include "kernels/ragged.h"

namespace trine::cuda::rows {

inline constexpr int kChunk = 8;

// A matrix as kernels see it. vectors: 16 bytes at any chunk may be accessed at once.
struct View {
  void* data;
  int64_t ld;
  DType dtype;
  bool vectors;
};

inline bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

inline View view_of(const Matrix& m) {
  const auto row_bytes = m.ld * static_cast<int64_t>(size_of(m.dtype));
  return {m.data, m.ld, m.dtype, aligned(m.data) && row_bytes % 16 == 0};
}

inline int chunks_of(int64_t cols) { return static_cast<int>((cols + kChunk - 1) / kChunk); }

TRINE_DEV float load_one(const void* data, DType dtype, int64_t at) {
  if (dtype == DType::kF32) return static_cast<const float*>(data)[at];
  const uint16_t bits = static_cast<const uint16_t*>(data)[at];
  return dtype == DType::kF16 ? half_to_float(bits)
                              : __uint_as_float(static_cast<uint32_t>(bits) << 16);
}

// Elements at .. at + 7 of 16-byte aligned memory.
TRINE_DEV void load_eight(const void* data, DType dtype, int64_t at, float (&v)[kChunk]) {
  if (dtype == DType::kF32) {
    const float4* from = reinterpret_cast<const float4*>(static_cast<const float*>(data) + at);
    const float4 a = from[0], b = from[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    return;
  }
  const uint4 packed = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(data) + at);
  const uint32_t pairs[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = dtype == DType::kF16 ? half_to_float(static_cast<uint16_t>(pairs[i] & 0xffff))
                                    : low_bf16(pairs[i]);
    v[2 * i + 1] = dtype == DType::kF16 ? half_to_float(static_cast<uint16_t>(pairs[i] >> 16))
                                        : high_bf16(pairs[i]);
  }
}

// Columns col .. col + 7 of a row; zeros from `cols` on.
TRINE_DEV void load(const View& m, int64_t row, int col, int cols, float (&v)[kChunk]) {
  const int64_t at = row * m.ld + col;
  if (m.vectors && col + kChunk <= cols) return load_eight(m.data, m.dtype, at, v);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) v[i] = col + i < cols ? load_one(m.data, m.dtype, at + i) : 0.0f;
}

TRINE_DEV void store(const View& m, int64_t row, int col, int cols, const float (&v)[kChunk]) {
  const int64_t at = row * m.ld + col;
  if (m.dtype == DType::kF32) {
    float* to = static_cast<float*>(m.data) + at;
    if (m.vectors && col + kChunk <= cols) {
      reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
      reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else {
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        if (col + i < cols) to[i] = v[i];
    }
    return;
  }
  bf16* to = static_cast<bf16*>(m.data) + at;
  if (m.vectors && col + kChunk <= cols) {
    *reinterpret_cast<uint4*>(to) = make_uint4(pack2_bf16(v[0], v[1]), pack2_bf16(v[2], v[3]),
                                               pack2_bf16(v[4], v[5]), pack2_bf16(v[6], v[7]));
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i)
      if (col + i < cols) to[i] = __float2bfloat16(v[i]);
  }
}

// The same sum in every lane; the order of the additions is fixed.
TRINE_DEV float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// The sequence that owns a token: the last one that starts at or before it.
TRINE_DEV int sequence_of(const Ragged& batch, int token) {
  int low = 0, high = batch.sequences - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (batch.offsets[middle] <= token) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

}  // namespace trine::cuda::rows
