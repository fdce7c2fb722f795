// SPDX-License-Identifier: Apache-2.0
// AVX-512 F, BW, DQ and VL. The contract of every function is in vec_scalar.h.
#pragma once

#include <immintrin.h>
#include <math.h>

#include <cstdint>
#include <cstring>

#include "base/platform.h"

namespace trine::cpu::avx512 {

struct Vec {
  static constexpr int kLanes = 16;
  static constexpr int kMaxRegisters = 32;
  __m512 v;
};

struct Mask {
  __mmask16 m;
};

static TRINE_INLINE Mask FirstN(int64_t n) {
  return {static_cast<__mmask16>((1u << static_cast<unsigned>(n)) - 1u)};
}

static TRINE_INLINE Vec Zero() { return {_mm512_setzero_ps()}; }
static TRINE_INLINE Vec Set(float x) { return {_mm512_set1_ps(x)}; }
static TRINE_INLINE Vec LoadU(const float* p) { return {_mm512_loadu_ps(p)}; }
static TRINE_INLINE void StoreU(Vec a, float* p) { _mm512_storeu_ps(p, a.v); }
static TRINE_INLINE Vec LoadN(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(FirstN(n).m, p)};
}
static TRINE_INLINE void StoreN(Vec a, float* p, int64_t n) {
  _mm512_mask_storeu_ps(p, FirstN(n).m, a.v);
}

static TRINE_INLINE Vec LoadAt(const float* p, const int32_t* at) {
  const __m512i lanes = _mm512_sub_epi32(_mm512_loadu_si512(at), _mm512_set1_epi32(at[0]));
  return {_mm512_permutexvar_ps(lanes, _mm512_loadu_ps(p))};
}

static TRINE_INLINE Vec Add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
static TRINE_INLINE Vec Sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
static TRINE_INLINE Vec Mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
static TRINE_INLINE Vec Div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
static TRINE_INLINE Vec Min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
static TRINE_INLINE Vec Max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
static TRINE_INLINE Vec MulAdd(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static TRINE_INLINE Vec NegMulAdd(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
static TRINE_INLINE Vec Sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
static TRINE_INLINE Vec Neg(Vec a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
static TRINE_INLINE Vec Abs(Vec a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
static TRINE_INLINE Vec Round(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

static TRINE_INLINE Vec CopySign(Vec magnitude, Vec sign) {
  // 0xd8: bit of the mask ? sign : magnitude.
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(magnitude.v),
                                                        _mm512_castps_si512(sign.v),
                                                        _mm512_set1_epi32(INT32_MIN), 0xd8))};
}

static TRINE_INLINE Mask Lt(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
static TRINE_INLINE Mask Eq(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
static TRINE_INLINE Vec IfThenElse(Mask m, Vec yes, Vec no) {
  return {_mm512_mask_blend_ps(m.m, no.v, yes.v)};
}

static TRINE_INLINE Vec MulPow2(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
static TRINE_INLINE Vec MulPow2Fast(Vec a, Vec n) { return MulPow2(a, n); }

static TRINE_INLINE Vec LoadF32(const void* p) { return {_mm512_loadu_ps(p)}; }
static TRINE_INLINE Vec LoadF32N(const void* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(FirstN(n).m, p)};
}
static TRINE_INLINE Vec LoadF16(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
static TRINE_INLINE Vec LoadF16N(const void* p, int64_t n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(FirstN(n).m, p))};
}
static TRINE_INLINE Vec WidenBF16(__m256i h) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}
static TRINE_INLINE Vec LoadBF16(const void* p) {
  return WidenBF16(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
static TRINE_INLINE Vec LoadBF16N(const void* p, int64_t n) {
  return WidenBF16(_mm256_maskz_loadu_epi16(FirstN(n).m, p));
}

static TRINE_INLINE Vec WidenLowBF16(Vec pairs) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs.v), 16))};
}
static TRINE_INLINE Vec WidenHighBF16(Vec pairs) {
  return {_mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(pairs.v), _mm512_set1_epi32(INT32_C(-65536))))};
}
static TRINE_INLINE Vec RoundBF16(Vec a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  return IfThenElse(Eq(a, a), WidenHighBF16({_mm512_castsi512_ps(up)}), a);
}

static TRINE_INLINE Vec JoinBF16(Vec low, Vec high) {
  return {_mm512_castsi512_ps(_mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(low.v), 16),
                                              _mm512_castps_si512(WidenHighBF16(high).v)))};
}

static TRINE_INLINE __m512i Ints(Vec a) { return _mm512_castps_si512(a.v); }
static TRINE_INLINE Vec FromInts(__m512i a) { return {_mm512_castsi512_ps(a)}; }
static TRINE_INLINE Vec WidenEvenInt8(Vec bytes) {
  return FromInts(_mm512_srai_epi16(_mm512_slli_epi16(Ints(bytes), 8), 8));
}
static TRINE_INLINE Vec WidenOddInt8(Vec bytes) {
  return FromInts(_mm512_srai_epi16(Ints(bytes), 8));
}
static TRINE_INLINE Vec MulAddInt16(Vec a, Vec b, Vec sum) {
  return FromInts(_mm512_add_epi32(Ints(sum), _mm512_madd_epi16(Ints(a), Ints(b))));
}
static TRINE_INLINE Vec SetInt32(int32_t a) { return FromInts(_mm512_set1_epi32(a)); }
static TRINE_INLINE Vec ShiftLeftInt32(Vec a, int32_t bits) {
  return FromInts(_mm512_sll_epi32(Ints(a), _mm_cvtsi32_si128(bits)));
}
static TRINE_INLINE Vec TopByteOfInt32(Vec a) { return FromInts(_mm512_srai_epi32(Ints(a), 24)); }
static TRINE_INLINE Vec SubInt32(Vec a, Vec b) {
  return FromInts(_mm512_sub_epi32(Ints(a), Ints(b)));
}
static TRINE_INLINE Vec FloatOfInt32(Vec a) { return {_mm512_cvtepi32_ps(Ints(a))}; }
static TRINE_INLINE Vec MaxMagnitude(Vec a, Vec b) {
  const __m512i mask = _mm512_set1_epi32(INT32_MAX);
  return FromInts(
      _mm512_max_epi32(_mm512_and_si512(Ints(a), mask), _mm512_and_si512(Ints(b), mask)));
}
static TRINE_INLINE void StoreLowBytes(Vec a, uint8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(Ints(a)));
}
static TRINE_INLINE bool Differ(Vec a, Vec b) {
  return _mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ) != 0;
}

static TRINE_INLINE float ReduceSum(Vec a) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

static TRINE_INLINE float ReduceMax(Vec a) {
  const __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

// 64 shuffles in four rounds: within pairs and quadruples of lanes first, then 128-bit blocks.
static TRINE_INLINE void Transpose(Vec (&r)[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 4) {
    const __m512 a = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    const __m512 b = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
    const __m512 c = _mm512_unpacklo_ps(r[i + 2].v, r[i + 3].v);
    const __m512 d = _mm512_unpackhi_ps(r[i + 2].v, r[i + 3].v);
    t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
    t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
    t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
    t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
  }
  for (int i = 0; i < 4; ++i) {
    const __m512 a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88);
    const __m512 b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
    r[i].v = _mm512_shuffle_f32x4(a, c, 0x88);
    r[i + 4].v = _mm512_shuffle_f32x4(b, d, 0x88);
    r[i + 8].v = _mm512_shuffle_f32x4(a, c, 0xdd);
    r[i + 12].v = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

}  // namespace trine::cpu::avx512
