// SPDX-License-Identifier: Apache-2.0
// AVX2 with FMA and F16C. The contract of every function is in vec_scalar.h.
#pragma once

#include <immintrin.h>
#include <math.h>

#include <cstdint>
#include <cstring>

#include "base/platform.h"

namespace trine::cpu::avx2 {

struct Vec {
  static constexpr int kLanes = 8;
  static constexpr int kMaxRegisters = 16;
  __m256 v;
};

struct Mask {
  __m256 m;
};

static TRINE_INLINE Mask FirstN(int64_t n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lanes))};
}

static TRINE_INLINE Vec Zero() { return {_mm256_setzero_ps()}; }
static TRINE_INLINE Vec Set(float x) { return {_mm256_set1_ps(x)}; }
static TRINE_INLINE Vec LoadU(const float* p) { return {_mm256_loadu_ps(p)}; }
static TRINE_INLINE void StoreU(Vec a, float* p) { _mm256_storeu_ps(p, a.v); }
static TRINE_INLINE Vec LoadN(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, _mm256_castps_si256(FirstN(n).m))};
}
static TRINE_INLINE void StoreN(Vec a, float* p, int64_t n) {
  _mm256_maskstore_ps(p, _mm256_castps_si256(FirstN(n).m), a.v);
}

static TRINE_INLINE Vec LoadAt(const float* p, const int32_t* at) {
  const __m256i lanes = _mm256_sub_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)),
                                         _mm256_set1_epi32(at[0]));
  return {_mm256_permutevar8x32_ps(_mm256_loadu_ps(p), lanes)};
}

static TRINE_INLINE Vec Add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
static TRINE_INLINE Vec Sub(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
static TRINE_INLINE Vec Mul(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
static TRINE_INLINE Vec Div(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
static TRINE_INLINE Vec Min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
static TRINE_INLINE Vec Max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
static TRINE_INLINE Vec MulAdd(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
static TRINE_INLINE Vec NegMulAdd(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
static TRINE_INLINE Vec Sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
static TRINE_INLINE Vec Neg(Vec a) { return {_mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f))}; }
static TRINE_INLINE Vec Abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
static TRINE_INLINE Vec Round(Vec a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

static TRINE_INLINE Vec CopySign(Vec magnitude, Vec sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(bit, magnitude.v), _mm256_and_ps(bit, sign.v))};
}

static TRINE_INLINE Mask Lt(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
static TRINE_INLINE Mask Eq(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
static TRINE_INLINE Vec IfThenElse(Mask m, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.v, yes.v, m.m)};
}

// 2^n as bits of the exponent.
static TRINE_INLINE __m256 Pow2(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
static TRINE_INLINE Vec MulPow2(Vec a, Vec n) {
  // In two steps of half the exponent: the first is exact, the second rounds once even if the
  // result is denormal.
  const __m256i whole = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return {_mm256_mul_ps(_mm256_mul_ps(a.v, Pow2(half)), Pow2(_mm256_sub_epi32(whole, half)))};
}
static TRINE_INLINE Vec MulPow2Fast(Vec a, Vec n) {
  return {_mm256_mul_ps(a.v, Pow2(_mm256_cvtps_epi32(n.v)))};
}

// n 16-bit values, the rest zero; AVX2 has no masked load of 16-bit lanes.
static TRINE_INLINE __m128i LoadHalves(const void* p, int64_t n) {
  alignas(16) uint8_t bytes[16] = {};
  const uint8_t* source = static_cast<const uint8_t*>(p);
  for (int64_t i = 0; i < 2 * n; ++i) bytes[i] = source[i];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(bytes));
}
static TRINE_INLINE Vec WidenBF16(__m128i h) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))};
}
static TRINE_INLINE Vec LoadF32(const void* p) { return LoadU(static_cast<const float*>(p)); }
static TRINE_INLINE Vec LoadF32N(const void* p, int64_t n) {
  return LoadN(static_cast<const float*>(p), n);
}
static TRINE_INLINE Vec LoadF16(const void* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
}
static TRINE_INLINE Vec LoadF16N(const void* p, int64_t n) {
  return {_mm256_cvtph_ps(LoadHalves(p, n))};
}
static TRINE_INLINE Vec LoadBF16(const void* p) {
  return WidenBF16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
static TRINE_INLINE Vec LoadBF16N(const void* p, int64_t n) { return WidenBF16(LoadHalves(p, n)); }

static TRINE_INLINE Vec WidenLowBF16(Vec pairs) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs.v), 16))};
}
static TRINE_INLINE Vec WidenHighBF16(Vec pairs) {
  return {_mm256_and_ps(pairs.v, _mm256_castsi256_ps(_mm256_set1_epi32(INT32_C(-65536))))};
}
static TRINE_INLINE Vec RoundBF16(Vec a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  return IfThenElse(Eq(a, a), WidenHighBF16({_mm256_castsi256_ps(up)}), a);
}

static TRINE_INLINE Vec JoinBF16(Vec low, Vec high) {
  return {_mm256_castsi256_ps(_mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(low.v), 16),
                                              _mm256_castps_si256(WidenHighBF16(high).v)))};
}

static TRINE_INLINE __m256i Ints(Vec a) { return _mm256_castps_si256(a.v); }
static TRINE_INLINE Vec FromInts(__m256i a) { return {_mm256_castsi256_ps(a)}; }
static TRINE_INLINE Vec WidenEvenInt8(Vec bytes) {
  return FromInts(_mm256_srai_epi16(_mm256_slli_epi16(Ints(bytes), 8), 8));
}
static TRINE_INLINE Vec WidenOddInt8(Vec bytes) {
  return FromInts(_mm256_srai_epi16(Ints(bytes), 8));
}
static TRINE_INLINE Vec MulAddInt16(Vec a, Vec b, Vec sum) {
  return FromInts(_mm256_add_epi32(Ints(sum), _mm256_madd_epi16(Ints(a), Ints(b))));
}
static TRINE_INLINE Vec SetInt32(int32_t a) { return FromInts(_mm256_set1_epi32(a)); }
static TRINE_INLINE Vec ShiftLeftInt32(Vec a, int32_t bits) {
  return FromInts(_mm256_sll_epi32(Ints(a), _mm_cvtsi32_si128(bits)));
}
static TRINE_INLINE Vec TopByteOfInt32(Vec a) { return FromInts(_mm256_srai_epi32(Ints(a), 24)); }
static TRINE_INLINE Vec SubInt32(Vec a, Vec b) {
  return FromInts(_mm256_sub_epi32(Ints(a), Ints(b)));
}
static TRINE_INLINE Vec FloatOfInt32(Vec a) { return {_mm256_cvtepi32_ps(Ints(a))}; }
static TRINE_INLINE Vec MaxMagnitude(Vec a, Vec b) {
  const __m256i mask = _mm256_set1_epi32(INT32_MAX);
  return FromInts(
      _mm256_max_epi32(_mm256_and_si256(Ints(a), mask), _mm256_and_si256(Ints(b), mask)));
}
static TRINE_INLINE void StoreLowBytes(Vec a, uint8_t* to) {
  const __m256i low = _mm256_and_si256(Ints(a), _mm256_set1_epi32(0xff));
  const __m128i halves =
      _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(halves, halves));
}
static TRINE_INLINE bool Differ(Vec a, Vec b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)) != 0;
}

static TRINE_INLINE float ReduceSum(Vec a) {
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

static TRINE_INLINE float ReduceMax(Vec a) {
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

// 24 shuffles in three rounds: within pairs and quadruples of lanes first, then 128-bit halves.
static TRINE_INLINE void Transpose(Vec (&r)[8]) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 4) {
    const __m256 a = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
    const __m256 b = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
    const __m256 c = _mm256_unpacklo_ps(r[i + 2].v, r[i + 3].v);
    const __m256 d = _mm256_unpackhi_ps(r[i + 2].v, r[i + 3].v);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    r[i].v = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
    r[i + 4].v = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
  }
}

}  // namespace trine::cpu::avx2
