// SPDX-License-Identifier: Apache-2.0
// The contract is in dot_scalar.h.
#pragma once

#include "cpu/simd/vec_avx2.h"

namespace trine::cpu::avx2 {

struct Bytes {
  __m256i v;
};

static TRINE_INLINE Bytes LoadBytes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
static TRINE_INLINE Bytes LowNibbles(Bytes a) {
  return {_mm256_and_si256(a.v, _mm256_set1_epi8(15))};
}
static TRINE_INLINE Bytes HighNibbles(Bytes a) {
  return {_mm256_and_si256(_mm256_srli_epi16(a.v, 4), _mm256_set1_epi8(15))};
}

template <int kPlace>
static TRINE_INLINE Bytes WithHighBits(Bytes low, Bytes high) {
  const __m256i two =
      _mm256_and_si256(high.v, _mm256_set1_epi8(static_cast<char>(3 << 2 * kPlace)));
  const __m256i moved = kPlace < 2   ? _mm256_slli_epi16(two, 4 - 2 * (kPlace < 2 ? kPlace : 0))
                        : kPlace < 3 ? two
                                     : _mm256_srli_epi16(two, 2);
  return {_mm256_or_si256(low.v, moved)};
}

static TRINE_INLINE void StoreInt8(const Vec (&v)[4], int8_t* to) {
  const __m256i low = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0].v), _mm256_cvtps_epi32(v[1].v));
  const __m256i high = _mm256_packs_epi32(_mm256_cvtps_epi32(v[2].v), _mm256_cvtps_epi32(v[3].v));
  // Packing works within 128 bits: the quadruples come out as 0 2 4 6 1 3 5 7.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order));
}

static TRINE_INLINE Vec FusedMulAdd(Vec a, Vec b, Vec c) { return MulAdd(a, b, c); }

struct Dots {
  static constexpr int kTileRows = 4;
  static constexpr int kTogether = 1;
  static TRINE_INLINE __m256i quad(const int8_t* x) {
    int32_t bytes;
    memcpy(&bytes, x, sizeof bytes);
    return _mm256_set1_epi32(bytes);
  }
  // Weights below 16: a lane of 16 bits takes 16 products, 30480 at most.
  template <int kQuads>
  static TRINE_INLINE __m256i dot_nibbles(const __m256i (&w)[kQuads], const int8_t* x) {
    __m256i sum = _mm256_maddubs_epi16(w[0], quad(x));
    TRINE_UNROLL for (int j = 1; j < kQuads; ++j) sum =
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[j], quad(x + 4 * j)));
    return sum;
  }
  template <int kBits, int kQuads, int kRows>
  static TRINE_INLINE void dot(const Bytes (&w)[kQuads], const int8_t* x, Vec (&dots)[kRows]) {
    static_assert(kRows == 1);
    __m256i low[kQuads], high[kQuads];
    TRINE_UNROLL for (int j = 0; j < kQuads; ++j) low[j] = kBits == 4 ? w[j].v : LowNibbles(w[j]).v;
    __m256i sum = _mm256_madd_epi16(dot_nibbles(low, x), _mm256_set1_epi16(1));
    if constexpr (kBits > 4) {
      TRINE_UNROLL for (int j = 0; j < kQuads; ++j) high[j] = HighNibbles(w[j]).v;
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(dot_nibbles(high, x), _mm256_set1_epi16(16)));
    }
    dots[0] = {_mm256_cvtepi32_ps(sum)};
  }
};

}  // namespace trine::cpu::avx2
