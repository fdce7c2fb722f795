// SPDX-License-Identifier: Apache-2.0
// linear on bf16 weights by the dot product instruction of AVX-512 BF16: a line of w is a register
// of 16 pairs, and a float of x is a pair as well, which no arithmetic touches as a float.
//
// Tile, loads and cycles are those of fp32, each doing twice the work.

struct DotFormat {
  static constexpr bool kConverts = true;
  static constexpr bool kQuantised = false;
  static constexpr int kSteps = 1;
  static constexpr int64_t kElements = 2;
  static TRINE_INLINE int64_t lines(int64_t k) {
    return ceil_div(k, kBF16Depth) * (kBF16Depth / kElements);
  }
  static TRINE_INLINE Vec weights(Vec line, int) { return line; }
  static TRINE_INLINE __m512bh pairs(Vec v) {
    TRINE_OPAQUE(v.v);
    return TRINE_BIT_CAST(__m512bh, v.v);
  }
  static TRINE_INLINE Vec multiply_add(Vec x, Vec w, Vec sum) {
    return {_mm512_dpbf16_ps(sum.v, pairs(x), pairs(w))};
  }
  static TRINE_INLINE void convert_32(Vec low, Vec high, float* to) {
    const __m512bh both = _mm512_cvtne2ps_pbh(high.v, low.v);
    _mm512_storeu_si512(to, TRINE_BIT_CAST(__m512i, both));
  }
  static void convert(const float* x, int64_t k, int64_t lines, float* to) {
    int64_t i = 0;
    for (; i + 32 <= k; i += 32) convert_32(LoadU(x + i), LoadU(x + i + 16), to + i / 2);
    for (; i < lines * kElements; i += 32) {
      const int64_t low = i < k ? at_most(k - i, 16) : 0, high = i + 16 < k ? k - i - 16 : 0;
      convert_32(LoadN(low > 0 ? x + i : x, low), LoadN(high > 0 ? x + i + 16 : x, high),
                 to + i / 2);
    }
  }
  static constexpr int kStored = 2;
  static TRINE_INLINE void store(const Vec (&x)[kStored], float* to) { convert_32(x[0], x[1], to); }
  static TRINE_INLINE Vec join(Vec low, Vec high) {
    const __m512i both = TRINE_BIT_CAST(__m512i, _mm512_cvtne2ps_pbh(high.v, low.v));
    return {_mm512_castsi512_ps(_mm512_permutexvar_epi16(
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0),
        both))};
  }
};
