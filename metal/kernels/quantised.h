// SPDX-License-Identifier: Apache-2.0
// Weights of 8 and 4 bits as csrc/gpu/quantised.h lays them out: rows of integers, ldw bytes apart
// (a multiple of 16), and behind all rows their scales. Positions count bytes.
#pragma once

#include "kernels/args.h"
#include "kernels/dialect.h"
#include "kernels/quads.h"

namespace trine {
namespace metal {

// Four integers from -127 to 127, at a multiple of four.
inline void load4_int8(device const char* w, int64_t at, thread float (&v)[4]) {
  const uint bits = *(device const uint*)(w + at);
  for (int c = 0; c < 4; ++c) v[c] = float(int(bits << (24 - 8 * c)) >> 24);
}

// What the integers of a row are times, `scales` being where those of row 0 are.
inline float scale_int8(device const char* w, int64_t scales, int64_t row) {
  return ((device const float*)(w + scales))[row];
}

// Elements k .. k + 3 of a row, k a multiple of four, of `groups` groups a row; kBytes of each.
template <int kBytes>
inline void load4_groups(device const char* w, int64_t first, int64_t scales, int groups,
                         int64_t row, int k, thread float (&v)[4]) {
  const int64_t group = row * groups + k / 32;
  const uint quad = *(device const uint*)(w + first + group * kBytes + k % kBytes);
  const uint bits = kBytes == 32 || k % 32 < 16 ? quad : quad >> 4;
  device const half* const s = (device const half*)(w + scales) + 2 * group;
  const float scale = float(s[0]), minimum = float(s[1]);
  for (int c = 0; c < 4; ++c)
    v[c] = fma(scale, float((bits >> (8 * c)) & (kBytes == 32 ? 255u : 15u)), minimum);
}

// Of a table whose rows have `cols` elements: table.first and table.ld count bytes.
inline void load4_quantised(device const char* w, constant Matrix& table, int rows, int cols,
                            int64_t row, int k, thread float (&v)[4]) {
  const int64_t scales = table.first + int64_t(rows) * table.ld;
  const int groups = (cols + 31) / 32;
  if (table.dtype == kI8) {
    load4_int8(w, table.first + row * table.ld + k, v);
    const float scale = scale_int8(w, scales, row);
    for (int c = 0; c < 4; ++c) v[c] *= scale;
  } else if (table.dtype == kInt4Groups) {
    load4_groups<16>(w, table.first, scales, groups, row, k, v);
  } else {
    load4_groups<32>(w, table.first, scales, groups, row, k, v);
  }
}

// Of numbers whose largest magnitude is `largest`, as csrc/exec/int8.h says: with NaN or infinity
// among them all that is computed from them is NaN, and what is too small counts as zero.
struct Rounding {
  float scale, inverse;
};
inline Rounding rounding_of(float largest) {
  if (!(largest <= 3.402823466e+38f)) return {as_type<float>(0x7fc00000u), 0.0f};
  if (largest < 7.888609052e-31f) return {0.0f, 0.0f};  // 2^-100
  return {largest / 127.0f, 127.0f / largest};
}
// Of a row of x: two of its numbers may be outliers, whose integers are up to 32767. The three
// largest magnitudes, as bits: in that order NaN is larger than infinity, and both than numbers.
struct Largest {
  uint most[3];
};
inline void add_magnitude(thread Largest& largest, uint bits) {
  const uint a = min(bits, largest.most[0]), b = min(a, largest.most[1]);
  largest.most[0] = max(bits, largest.most[0]);
  largest.most[1] = max(a, largest.most[1]);
  largest.most[2] = max(b, largest.most[2]);
}
inline Rounding rounding_of(const thread Largest& largest) {
  const float most = as_type<float>(largest.most[0]), usual = as_type<float>(largest.most[2]);
  if (largest.most[0] >= 0x7f800000u) return rounding_of(most);
  const float least = most * (127.0f / 32767.0f);
  return rounding_of(usual > least ? usual : least);
}

inline float rounded(float x, float inverse) { return inverse == 0.0f ? 0.0f : rint(x * inverse); }

// The largest magnitude of four numbers and of those of `lanes` neighbours, a power of two.
inline float largest_of_lanes(const thread float (&v)[4], ushort lanes) {
  float most = fabs(v[0]);
  for (int c = 1; c < 4; ++c) most = larger(most, fabs(v[c]));
  for (ushort step = lanes / 2; step > 0; step /= 2)
    most = larger(most, simd_shuffle_xor(most, step));
  return most;
}

}  // namespace metal
}  // namespace trine
