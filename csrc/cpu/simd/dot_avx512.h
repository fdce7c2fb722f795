// SPDX-License-Identifier: Apache-2.0
// The contract is in dot_scalar.h.
#pragma once

#include "cpu/simd/vec_avx512.h"

namespace trine::cpu::avx512 {

struct Bytes {
  __m512i v;
};

static TRINE_INLINE Bytes LoadBytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
static TRINE_INLINE Bytes LowNibbles(Bytes a) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))};
}
static TRINE_INLINE Bytes HighNibbles(Bytes a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}

template <int kPlace>
static TRINE_INLINE Bytes WithHighBits(Bytes low, Bytes high) {
  const __m512i two =
      _mm512_and_si512(high.v, _mm512_set1_epi8(static_cast<char>(3 << 2 * kPlace)));
  const __m512i moved = kPlace < 2   ? _mm512_slli_epi16(two, 4 - 2 * (kPlace < 2 ? kPlace : 0))
                        : kPlace < 3 ? two
                                     : _mm512_srli_epi16(two, 2);
  return {_mm512_or_si512(low.v, moved)};
}

static TRINE_INLINE void StoreInt8(const Vec (&v)[2], int8_t* to) {
  for (int i = 0; i < 2; ++i) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16 * i),
                     _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v[i].v)));
  }
}

static TRINE_INLINE Vec FusedMulAdd(Vec a, Vec b, Vec c) { return MulAdd(a, b, c); }

static TRINE_INLINE __m512i BroadcastQuad(const int8_t* x) {
  int32_t bytes;
  memcpy(&bytes, x, sizeof bytes);
  return _mm512_set1_epi32(bytes);
}

// Without VNNI.
struct Dots {
  static constexpr int kTileRows = 8;
  static constexpr int kTogether = 1;
  // Weights below 16: a lane of 16 bits takes 16 products, 30480 at most.
  template <int kQuads>
  static TRINE_INLINE __m512i dot_nibbles(const __m512i (&w)[kQuads], const int8_t* x) {
    __m512i sum = _mm512_maddubs_epi16(w[0], BroadcastQuad(x));
    TRINE_UNROLL for (int j = 1; j < kQuads; ++j) sum =
        _mm512_add_epi16(sum, _mm512_maddubs_epi16(w[j], BroadcastQuad(x + 4 * j)));
    return sum;
  }
  template <int kBits, int kQuads, int kRows>
  static TRINE_INLINE void dot(const Bytes (&w)[kQuads], const int8_t* x, Vec (&dots)[kRows]) {
    static_assert(kRows == 1);
    __m512i low[kQuads], high[kQuads];
    TRINE_UNROLL for (int j = 0; j < kQuads; ++j) low[j] = kBits == 4 ? w[j].v : LowNibbles(w[j]).v;
    __m512i sum = _mm512_madd_epi16(dot_nibbles(low, x), _mm512_set1_epi16(1));
    if constexpr (kBits > 4) {
      TRINE_UNROLL for (int j = 0; j < kQuads; ++j) high[j] = HighNibbles(w[j]).v;
      sum = _mm512_add_epi32(sum, _mm512_madd_epi16(dot_nibbles(high, x), _mm512_set1_epi16(16)));
    }
    dots[0] = {_mm512_cvtepi32_ps(sum)};
  }
};

#if defined(__AVX512VNNI__) || defined(_MSC_VER)
struct VnniDots {
  static constexpr int kTileRows = 16;
  // A chain of eight dot products and what follows take 47 cycles: with one row after the other the
  // window of the processor is too small to keep its ports busy (0.93 of the speed).
  static constexpr int kTogether = 4;
  template <int kBits, int kQuads, int kRows>
  static TRINE_INLINE void dot(const Bytes (&w)[kQuads], const int8_t* x, Vec (&dots)[kRows]) {
    __m512i sums[kRows];
    TRINE_UNROLL for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_si512();
    TRINE_UNROLL for (int j = 0; j < kQuads; ++j) {
      TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
        sums[r] = _mm512_dpbusd_epi32(sums[r], w[j].v, BroadcastQuad(x + 32 * r + 4 * j));
      }
    }
    TRINE_UNROLL for (int r = 0; r < kRows; ++r) dots[r] = {_mm512_cvtepi32_ps(sums[r])};
  }
};
#endif

}  // namespace trine::cpu::avx512
