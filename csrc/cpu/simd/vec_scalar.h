// SPDX-License-Identifier: Apache-2.0
// The `Vec` that kernels are written on, with names close to Highway's. This file holds the
// contract; the other three implement it with intrinsics. Here a vector is four floats in a plain
// array: no intrinsics, any processor, and compilers turn the loops into the baseline's vector
// instructions.
//
// Everything is `static` and inlined by force, so that no symbol compiled for one instruction set
// can be picked by the linker for another.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>

#include "base/platform.h"

namespace trine::cpu::scalar {

struct Vec {
  static constexpr int kLanes = 4;
  static constexpr int kMaxRegisters = 16;  // how many live Vecs a register tile may count on
  float v[kLanes];
};

struct Mask {
  bool m[Vec::kLanes];
};

static TRINE_INLINE uint32_t BitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
static TRINE_INLINE float FromBits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

#define TRINE_LANES(expression)                                \
  Vec r;                                                       \
  for (int i = 0; i < Vec::kLanes; ++i) r.v[i] = (expression); \
  return r

// True in lanes 0 .. n - 1; 0 <= n <= kLanes here and wherever a function takes n.
static TRINE_INLINE Mask FirstN(int64_t n) {
  Mask r;
  for (int i = 0; i < Vec::kLanes; ++i) r.m[i] = i < n;
  return r;
}

static TRINE_INLINE Vec Set(float x) { TRINE_LANES(x); }
static TRINE_INLINE Vec Zero() { return Set(0.0f); }
// Any alignment.
static TRINE_INLINE Vec LoadU(const float* p) { TRINE_LANES(p[i]); }
static TRINE_INLINE void StoreU(Vec a, float* p) { memcpy(p, a.v, sizeof a.v); }
// The first n lanes only: memory beyond them is neither read nor written; LoadN sets the other
// lanes to 0.
static TRINE_INLINE Vec LoadN(const float* p, int64_t n) { TRINE_LANES(i < n ? p[i] : 0.0f); }
static TRINE_INLINE void StoreN(Vec a, float* p, int64_t n) {
  for (int i = 0; i < Vec::kLanes; ++i) {
    if (i < n) p[i] = a.v[i];
  }
}

// Lane i is p[at[i] - at[0]]; from lane to lane `at` rises by 1 or stays. All of p[0 .. kLanes - 1]
// may be read.
static TRINE_INLINE Vec LoadAt(const float* p, const int32_t* at) { TRINE_LANES(p[at[i] - at[0]]); }

static TRINE_INLINE Vec Add(Vec a, Vec b) { TRINE_LANES(a.v[i] + b.v[i]); }
static TRINE_INLINE Vec Sub(Vec a, Vec b) { TRINE_LANES(a.v[i] - b.v[i]); }
static TRINE_INLINE Vec Mul(Vec a, Vec b) { TRINE_LANES(a.v[i] * b.v[i]); }
static TRINE_INLINE Vec Div(Vec a, Vec b) { TRINE_LANES(a.v[i] / b.v[i]); }
// `a` must not be NaN; a NaN in `b` is returned. (Put the limit first and the data second.)
static TRINE_INLINE Vec Min(Vec a, Vec b) { TRINE_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
static TRINE_INLINE Vec Max(Vec a, Vec b) { TRINE_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
// a * b + c and c - a * b: rounded once on every instruction set but this one.
static TRINE_INLINE Vec MulAdd(Vec a, Vec b, Vec c) { TRINE_LANES(a.v[i] * b.v[i] + c.v[i]); }
static TRINE_INLINE Vec NegMulAdd(Vec a, Vec b, Vec c) { TRINE_LANES(c.v[i] - a.v[i] * b.v[i]); }
static TRINE_INLINE Vec Sqrt(Vec a) { TRINE_LANES(sqrtf(a.v[i])); }
static TRINE_INLINE Vec Neg(Vec a) { TRINE_LANES(-a.v[i]); }
static TRINE_INLINE Vec Abs(Vec a) { TRINE_LANES(FromBits(BitsOf(a.v[i]) & 0x7fffffffu)); }
// To the nearest integer, ties to even, for |a| <= 2^22.
static TRINE_INLINE Vec Round(Vec a) { TRINE_LANES((a.v[i] + 12582912.0f) - 12582912.0f); }
static TRINE_INLINE Vec CopySign(Vec magnitude, Vec sign) {
  TRINE_LANES(FromBits((BitsOf(magnitude.v[i]) & 0x7fffffffu) | (BitsOf(sign.v[i]) & 0x80000000u)));
}

// Comparisons are false for NaN.
static TRINE_INLINE Mask Lt(Vec a, Vec b) {
  Mask r;
  for (int i = 0; i < Vec::kLanes; ++i) r.m[i] = a.v[i] < b.v[i];
  return r;
}
static TRINE_INLINE Mask Eq(Vec a, Vec b) {
  Mask r;
  for (int i = 0; i < Vec::kLanes; ++i) r.m[i] = a.v[i] == b.v[i];
  return r;
}
static TRINE_INLINE Vec IfThenElse(Mask m, Vec yes, Vec no) {
  TRINE_LANES(m.m[i] ? yes.v[i] : no.v[i]);
}

// 2^n from the low bits of n + 1.5 * 2^23, which hold n; n = -127 gives 0. No float-to-int
// conversion, so NaN is fine.
static TRINE_INLINE float Pow2(int32_t n) { return FromBits(static_cast<uint32_t>(n + 127) << 23); }
static TRINE_INLINE int32_t IntegerOf(float n) {
  return static_cast<int32_t>(BitsOf(n + 12582912.0f) & 0x7fffffu) - 0x400000;
}

// a * 2^n, rounded once, also when the result is denormal; n integral, |n| <= 252. What a NaN in n
// gives is not defined: `a` should be NaN too.
static TRINE_INLINE Vec MulPow2(Vec a, Vec n) {
  Vec r;
  for (int i = 0; i < Vec::kLanes; ++i) {
    const int32_t whole = IntegerOf(n.v[i]);
    const int32_t half = whole >> 1;
    r.v[i] = a.v[i] * Pow2(half) * Pow2(whole - half);
  }
  return r;
}
// The same where 2^n and the result are normal; elsewhere the result is not defined.
static TRINE_INLINE Vec MulPow2Fast(Vec a, Vec n) { TRINE_LANES(a.v[i] * Pow2(IntegerOf(n.v[i]))); }

// Elements of a checkpoint as floats, exactly, at an address with no alignment at all; ..N as in
// LoadN.
static TRINE_INLINE float FloatAt(const void* p, int64_t i) {
  float value;
  memcpy(&value, static_cast<const char*>(p) + 4 * i, sizeof value);
  return value;
}
static TRINE_INLINE Vec LoadF32(const void* p) { TRINE_LANES(FloatAt(p, i)); }
static TRINE_INLINE Vec LoadF32N(const void* p, int64_t n) {
  TRINE_LANES(i < n ? FloatAt(p, i) : 0.0f);
}
static TRINE_INLINE float WidenF16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t shifted = static_cast<uint32_t>(half & 0x7fffu) << 13;
  // Rebias by a multiplication, which also normalises denormals; infinity and NaN keep a full
  // exponent instead.
  const float rebiased = FromBits(shifted) * 0x1p112f;
  const uint32_t magnitude =
      (half & 0x7c00u) == 0x7c00u ? (shifted | 0x7f800000u) : BitsOf(rebiased);
  return FromBits(sign | magnitude);
}
static TRINE_INLINE uint16_t HalfAt(const void* p, int64_t i) {
  uint16_t half;
  memcpy(&half, static_cast<const char*>(p) + 2 * i, sizeof half);
  return half;
}
static TRINE_INLINE Vec LoadF16(const void* p) { TRINE_LANES(WidenF16(HalfAt(p, i))); }
static TRINE_INLINE Vec LoadF16N(const void* p, int64_t n) {
  TRINE_LANES(i < n ? WidenF16(HalfAt(p, i)) : 0.0f);
}
static TRINE_INLINE float WidenBF16(uint16_t half) {
  return FromBits(static_cast<uint32_t>(half) << 16);
}
static TRINE_INLINE Vec LoadBF16(const void* p) { TRINE_LANES(WidenBF16(HalfAt(p, i))); }
static TRINE_INLINE Vec LoadBF16N(const void* p, int64_t n) {
  TRINE_LANES(i < n ? WidenBF16(HalfAt(p, i)) : 0.0f);
}

// Lanes that hold two bf16 each, as packed weights do: the one that comes first in memory, and the
// other.
static TRINE_INLINE Vec WidenLowBF16(Vec pairs) { TRINE_LANES(FromBits(BitsOf(pairs.v[i]) << 16)); }
static TRINE_INLINE Vec WidenHighBF16(Vec pairs) {
  TRINE_LANES(FromBits(BitsOf(pairs.v[i]) & 0xffff0000u));
}
// To the nearest bf16, ties to even; what is too large becomes infinity, NaN stays as it is.
static TRINE_INLINE float RoundBF16(float x) {
  const uint32_t bits = BitsOf(x);
  return x == x ? FromBits((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u) : x;
}
static TRINE_INLINE Vec RoundBF16(Vec a) { TRINE_LANES(RoundBF16(a.v[i])); }
// The other way round: of both the upper halves, which is all of what was rounded.
static TRINE_INLINE Vec JoinBF16(Vec low, Vec high) {
  TRINE_LANES(FromBits(BitsOf(low.v[i]) >> 16 | (BitsOf(high.v[i]) & 0xffff0000u)));
}

// Lanes that hold the bits of integers. Four int8, as packed weights do: the first and third as a
// pair of int16, and the second and fourth.
static TRINE_INLINE uint32_t PairOfInt16(int32_t low, int32_t high) {
  return (static_cast<uint32_t>(low) & 0xffffu) | static_cast<uint32_t>(high) << 16;
}
static TRINE_INLINE int32_t Int8At(uint32_t word, int i) {
  return static_cast<int8_t>(word >> 8 * i & 0xffu);
}
static TRINE_INLINE Vec WidenEvenInt8(Vec bytes) {
  TRINE_LANES(FromBits(PairOfInt16(Int8At(BitsOf(bytes.v[i]), 0), Int8At(BitsOf(bytes.v[i]), 2))));
}
static TRINE_INLINE Vec WidenOddInt8(Vec bytes) {
  TRINE_LANES(FromBits(PairOfInt16(Int8At(BitsOf(bytes.v[i]), 1), Int8At(BitsOf(bytes.v[i]), 3))));
}
// sum + the product of both pairs of int16, as int32.
static TRINE_INLINE float AddProducts(float a, float b, float sum) {
  const uint32_t x = BitsOf(a), y = BitsOf(b);
  const int32_t low = static_cast<int16_t>(x & 0xffffu) * static_cast<int16_t>(y & 0xffffu);
  const int32_t high = static_cast<int16_t>(x >> 16) * static_cast<int16_t>(y >> 16);
  return FromBits(BitsOf(sum) + static_cast<uint32_t>(low) + static_cast<uint32_t>(high));
}
static TRINE_INLINE Vec MulAddInt16(Vec a, Vec b, Vec sum) {
  TRINE_LANES(AddProducts(a.v[i], b.v[i], sum.v[i]));
}
static TRINE_INLINE Vec SetInt32(int32_t a) { TRINE_LANES(FromBits(static_cast<uint32_t>(a))); }
static TRINE_INLINE Vec ShiftLeftInt32(Vec a, int32_t bits) {
  TRINE_LANES(FromBits(BitsOf(a.v[i]) << bits));
}
// The topmost byte of each int32, with its sign.
static TRINE_INLINE Vec TopByteOfInt32(Vec a) {
  TRINE_LANES(FromBits(static_cast<uint32_t>(static_cast<int32_t>(BitsOf(a.v[i])) >> 24)));
}
static TRINE_INLINE Vec SubInt32(Vec a, Vec b) {
  TRINE_LANES(FromBits(BitsOf(a.v[i]) - BitsOf(b.v[i])));
}
static TRINE_INLINE Vec FloatOfInt32(Vec a) {
  TRINE_LANES(static_cast<float>(static_cast<int32_t>(BitsOf(a.v[i]))));
}
// The larger magnitude; NaN is larger than infinity.
static TRINE_INLINE float MaxMagnitude(float a, float b) {
  const uint32_t x = BitsOf(a) & 0x7fffffffu, y = BitsOf(b) & 0x7fffffffu;
  return FromBits(x > y ? x : y);
}
static TRINE_INLINE Vec MaxMagnitude(Vec a, Vec b) { TRINE_LANES(MaxMagnitude(a.v[i], b.v[i])); }
// The low byte of each lane.
static TRINE_INLINE void StoreLowBytes(Vec a, uint8_t* to) {
  for (int i = 0; i < Vec::kLanes; ++i) to[i] = static_cast<uint8_t>(BitsOf(a.v[i]) & 0xffu);
}
// Whether any lane of one is not the other's, or NaN.
static TRINE_INLINE bool Differ(Vec a, Vec b) {
  for (int i = 0; i < Vec::kLanes; ++i) {
    if (a.v[i] != b.v[i]) return true;
  }
  return false;
}

#undef TRINE_LANES

// Lane i with lane i + n / 2 for n = kLanes, kLanes / 2, .. 2: a fixed tree, the same on every
// call.
static TRINE_INLINE float ReduceSum(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
static TRINE_INLINE float ReduceMax(Vec a) {
  const float x = a.v[0] > a.v[2] ? a.v[0] : a.v[2];
  const float y = a.v[1] > a.v[3] ? a.v[1] : a.v[3];
  return x > y ? x : y;
}

// Rows become columns: lane j of r[i] moves to lane i of r[j].
static TRINE_INLINE void Transpose(Vec (&r)[Vec::kLanes]) {
  for (int i = 0; i < Vec::kLanes; ++i) {
    for (int j = i + 1; j < Vec::kLanes; ++j) {
      const float t = r[i].v[j];
      r[i].v[j] = r[j].v[i];
      r[j].v[i] = t;
    }
  }
}

}  // namespace trine::cpu::scalar
