// SPDX-License-Identifier: Apache-2.0
// Rows of any type, four columns at a time: 16 bytes of float, 8 of half or bfloat16. Where rows
// are not aligned, the same four are moved one by one, so that bits stay the same.
#pragma once

#include "kernels/args.h"
#include "kernels/dialect.h"

namespace trine {
namespace metal {

inline float bf16_to_float(ushort bits) { return as_type<float>(uint(bits) << 16); }

// To nearest, ties to even; a NaN stays one.
inline ushort float_to_bf16(float x) {
  const uint bits = as_type<uint>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return ushort((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// bfloat16 is a ushort where a type is a template's.
template <class T>
struct TypeOf;
template <>
struct TypeOf<float> {
  TRINE_CONST int32_t kDType = kF32;
};
template <>
struct TypeOf<half> {
  TRINE_CONST int32_t kDType = kF16;
};
template <>
struct TypeOf<ushort> {
  TRINE_CONST int32_t kDType = kBF16;
};

inline float load1(device const char* data, int32_t dtype, int64_t at) {
  if (dtype == kF32) return ((device const float*)data)[at];
  if (dtype == kF16) return float(((device const half*)data)[at]);
  return bf16_to_float(((device const ushort*)data)[at]);
}

inline void store1(device char* data, int32_t dtype, int64_t at, float x) {
  if (dtype == kF32) {
    ((device float*)data)[at] = x;
  } else if (dtype == kF16) {
    ((device half*)data)[at] = half(x);
  } else {
    ((device ushort*)data)[at] = float_to_bf16(x);
  }
}

// Elements at .. at + 3, which begin at a multiple of four elements from an aligned address.
inline void load4_aligned(device const char* data, int32_t dtype, int64_t at,
                          thread float (&v)[4]) {
  if (dtype == kF32) {
    const float4 x = *(device const float4*)((device const float*)data + at);
    v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
  } else if (dtype == kF16) {
    const half4 x = *(device const half4*)((device const half*)data + at);
    v[0] = float(x.x), v[1] = float(x.y), v[2] = float(x.z), v[3] = float(x.w);
  } else {
    const ushort4 x = *(device const ushort4*)((device const ushort*)data + at);
    v[0] = bf16_to_float(x.x), v[1] = bf16_to_float(x.y);
    v[2] = bf16_to_float(x.z), v[3] = bf16_to_float(x.w);
  }
}

// Elements at .. at + 3, of which `count` exist; zeros for the others.
inline void load4_at(device const char* data, int32_t dtype, bool vectors, int64_t at, int count,
                     thread float (&v)[4]) {
  if (vectors && count >= 4) {
    load4_aligned(data, dtype, at, v);
    return;
  }
  for (int i = 0; i < 4; ++i) v[i] = i < count ? load1(data, dtype, at + i) : 0.0f;
}

// Columns col .. col + 3 of a row, col a multiple of four; zeros from `cols` on.
inline void load4(device const char* data, constant Matrix& m, int64_t row, int col, int cols,
                  thread float (&v)[4]) {
  load4_at(data, m.dtype, m.vectors != 0, m.first + row * m.ld + col, cols - col, v);
}

// To elements at .. at + 3, of which `count` exist.
inline void store4_at(device char* data, int32_t dtype, bool vectors, int64_t at, int count,
                      const thread float (&v)[4]) {
  if (!vectors || count < 4) {
    for (int i = 0; i < 4 && i < count; ++i) store1(data, dtype, at + i, v[i]);
  } else if (dtype == kF32) {
    *(device float4*)((device float*)data + at) = float4(v[0], v[1], v[2], v[3]);
  } else if (dtype == kF16) {
    *(device half4*)((device half*)data + at) =
        half4(half(v[0]), half(v[1]), half(v[2]), half(v[3]));
  } else {
    *(device ushort4*)((device ushort*)data + at) =
        ushort4(float_to_bf16(v[0]), float_to_bf16(v[1]), float_to_bf16(v[2]), float_to_bf16(v[3]));
  }
}

inline void store4(device char* data, constant Matrix& m, int64_t row, int col, int cols,
                   const thread float (&v)[4]) {
  store4_at(data, m.dtype, m.vectors != 0, m.first + row * m.ld + col, cols - col, v);
}

// A NaN stays.
inline float larger(float a, float b) { return b > a || b != b ? b : a; }

// The same sum in every lane, in a fixed order. (simd_sum does not say which one it takes.)
inline float sum_of_lanes(float x) {
  for (ushort step = 16; step > 0; step /= 2) x += simd_shuffle_xor(x, step);
  return x;
}

// The sequence that owns a token: the last one that starts at or before it.
inline int sequence_of(device const int32_t* offsets, int sequences, int token) {
  int low = 0, high = sequences - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (offsets[middle] <= token) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

}  // namespace metal
}  // namespace trine
