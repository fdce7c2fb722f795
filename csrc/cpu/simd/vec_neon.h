// SPDX-License-Identifier: Apache-2.0
// NEON of AArch64 (every such processor has it). The contract of every function is in vec_scalar.h.
#pragma once

#include <arm_neon.h>
#include <math.h>

#include <cstdint>
#include <cstring>

#include "base/platform.h"

namespace trine::cpu::neon {

struct Vec {
  static constexpr int kLanes = 4;
  static constexpr int kMaxRegisters = 32;
  float32x4_t v;
};

struct Mask {
  uint32x4_t m;
};

static TRINE_INLINE Mask FirstN(int64_t n) {
  const uint32_t lanes[4] = {0, 1, 2, 3};
  return {vcltq_u32(vld1q_u32(lanes), vdupq_n_u32(static_cast<uint32_t>(n)))};
}

static TRINE_INLINE Vec Zero() { return {vdupq_n_f32(0.0f)}; }
static TRINE_INLINE Vec Set(float x) { return {vdupq_n_f32(x)}; }
static TRINE_INLINE Vec LoadU(const float* p) { return {vld1q_f32(p)}; }
static TRINE_INLINE void StoreU(Vec a, float* p) { vst1q_f32(p, a.v); }
static TRINE_INLINE Vec LoadN(const float* p, int64_t n) {
  if (n == 4) return LoadU(p);
  float32x4_t r = vdupq_n_f32(0.0f);
  if (n > 0) r = vld1q_lane_f32(p, r, 0);
  if (n > 1) r = vld1q_lane_f32(p + 1, r, 1);
  if (n > 2) r = vld1q_lane_f32(p + 2, r, 2);
  return {r};
}
static TRINE_INLINE void StoreN(Vec a, float* p, int64_t n) {
  if (n == 4) return StoreU(a, p);
  if (n > 0) vst1q_lane_f32(p, a.v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, a.v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, a.v, 2);
}

static TRINE_INLINE Vec LoadAt(const float* p, const int32_t* at) {
  float32x4_t r = vdupq_n_f32(p[0]);
  r = vld1q_lane_f32(p + (at[1] - at[0]), r, 1);
  r = vld1q_lane_f32(p + (at[2] - at[0]), r, 2);
  return {vld1q_lane_f32(p + (at[3] - at[0]), r, 3)};
}

static TRINE_INLINE Vec Add(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
static TRINE_INLINE Vec Sub(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
static TRINE_INLINE Vec Mul(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
static TRINE_INLINE Vec Div(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
static TRINE_INLINE Vec Min(Vec a, Vec b) { return {vminq_f32(a.v, b.v)}; }
static TRINE_INLINE Vec Max(Vec a, Vec b) { return {vmaxq_f32(a.v, b.v)}; }
static TRINE_INLINE Vec MulAdd(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
static TRINE_INLINE Vec NegMulAdd(Vec a, Vec b, Vec c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
static TRINE_INLINE Vec Sqrt(Vec a) { return {vsqrtq_f32(a.v)}; }
static TRINE_INLINE Vec Neg(Vec a) { return {vnegq_f32(a.v)}; }
static TRINE_INLINE Vec Abs(Vec a) { return {vabsq_f32(a.v)}; }
static TRINE_INLINE Vec Round(Vec a) { return {vrndnq_f32(a.v)}; }

static TRINE_INLINE Vec CopySign(Vec magnitude, Vec sign) {
  return {vbslq_f32(vdupq_n_u32(0x80000000u), sign.v, magnitude.v)};
}

static TRINE_INLINE Mask Lt(Vec a, Vec b) { return {vcltq_f32(a.v, b.v)}; }
static TRINE_INLINE Mask Eq(Vec a, Vec b) { return {vceqq_f32(a.v, b.v)}; }
static TRINE_INLINE Vec IfThenElse(Mask m, Vec yes, Vec no) {
  return {vbslq_f32(m.m, yes.v, no.v)};
}

// 2^n as bits of the exponent.
static TRINE_INLINE float32x4_t Pow2(int32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}
static TRINE_INLINE Vec MulPow2(Vec a, Vec n) {
  // In two steps of half the exponent: the first is exact, the second rounds once even if the
  // result is denormal.
  const int32x4_t whole = vcvtq_s32_f32(n.v);
  const int32x4_t half = vshrq_n_s32(whole, 1);
  return {vmulq_f32(vmulq_f32(a.v, Pow2(half)), Pow2(vsubq_s32(whole, half)))};
}
static TRINE_INLINE Vec MulPow2Fast(Vec a, Vec n) {
  return {vmulq_f32(a.v, Pow2(vcvtq_s32_f32(n.v)))};
}

static TRINE_INLINE Vec LoadF32(const void* p) {
  return {vreinterpretq_f32_u8(vld1q_u8(static_cast<const uint8_t*>(p)))};
}
static TRINE_INLINE Vec LoadF32N(const void* p, int64_t n) {
  uint8_t bytes[16] = {};
  const uint8_t* source = static_cast<const uint8_t*>(p);
  for (int64_t i = 0; i < 4 * n; ++i) bytes[i] = source[i];
  return LoadF32(bytes);
}
// n 16-bit values, the rest zero.
static TRINE_INLINE uint16x4_t LoadHalves(const void* p, int64_t n) {
  uint8_t bytes[8] = {};
  const uint8_t* source = static_cast<const uint8_t*>(p);
  for (int64_t i = 0; i < 2 * n; ++i) bytes[i] = source[i];
  return vreinterpret_u16_u8(vld1_u8(bytes));
}
static TRINE_INLINE Vec WidenF16(uint16x4_t h) { return {vcvt_f32_f16(vreinterpret_f16_u16(h))}; }
static TRINE_INLINE Vec WidenBF16(uint16x4_t h) {
  return {vreinterpretq_f32_u32(vshll_n_u16(h, 16))};
}
static TRINE_INLINE uint16x4_t LoadHalves(const void* p) {
  return vreinterpret_u16_u8(vld1_u8(static_cast<const uint8_t*>(p)));
}
static TRINE_INLINE Vec LoadF16(const void* p) { return WidenF16(LoadHalves(p)); }
static TRINE_INLINE Vec LoadF16N(const void* p, int64_t n) { return WidenF16(LoadHalves(p, n)); }
static TRINE_INLINE Vec LoadBF16(const void* p) { return WidenBF16(LoadHalves(p)); }
static TRINE_INLINE Vec LoadBF16N(const void* p, int64_t n) { return WidenBF16(LoadHalves(p, n)); }

static TRINE_INLINE Vec WidenLowBF16(Vec pairs) {
  return {vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pairs.v), 16))};
}
static TRINE_INLINE Vec WidenHighBF16(Vec pairs) {
  const uint32x4_t bits = vreinterpretq_u32_f32(pairs.v);
  return {vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xffff0000u)))};
}
static TRINE_INLINE Vec RoundBF16(Vec a) {
  const uint32x4_t bits = vreinterpretq_u32_f32(a.v);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t up = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  return IfThenElse(Eq(a, a), WidenHighBF16({vreinterpretq_f32_u32(up)}), a);
}

static TRINE_INLINE Vec JoinBF16(Vec low, Vec high) {
  return {vreinterpretq_f32_u32(vorrq_u32(vshrq_n_u32(vreinterpretq_u32_f32(low.v), 16),
                                          vreinterpretq_u32_f32(WidenHighBF16(high).v)))};
}

static TRINE_INLINE int32x4_t Ints(Vec a) { return vreinterpretq_s32_f32(a.v); }
static TRINE_INLINE Vec FromInts(int32x4_t a) { return {vreinterpretq_f32_s32(a)}; }
static TRINE_INLINE Vec WidenEvenInt8(Vec bytes) {
  const int16x8_t up = vshlq_n_s16(vreinterpretq_s16_f32(bytes.v), 8);
  return {vreinterpretq_f32_s16(vshrq_n_s16(up, 8))};
}
static TRINE_INLINE Vec WidenOddInt8(Vec bytes) {
  return {vreinterpretq_f32_s16(vshrq_n_s16(vreinterpretq_s16_f32(bytes.v), 8))};
}
static TRINE_INLINE Vec MulAddInt16(Vec a, Vec b, Vec sum) {
  const int16x8_t x = vreinterpretq_s16_f32(a.v), y = vreinterpretq_s16_f32(b.v);
  const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y));
  return FromInts(vaddq_s32(Ints(sum), vpaddq_s32(low, vmull_high_s16(x, y))));
}
static TRINE_INLINE Vec SetInt32(int32_t a) { return FromInts(vdupq_n_s32(a)); }
static TRINE_INLINE Vec ShiftLeftInt32(Vec a, int32_t bits) {
  return FromInts(vshlq_s32(Ints(a), vdupq_n_s32(bits)));
}
static TRINE_INLINE Vec TopByteOfInt32(Vec a) { return FromInts(vshrq_n_s32(Ints(a), 24)); }
static TRINE_INLINE Vec SubInt32(Vec a, Vec b) { return FromInts(vsubq_s32(Ints(a), Ints(b))); }
static TRINE_INLINE Vec FloatOfInt32(Vec a) { return {vcvtq_f32_s32(Ints(a))}; }
static TRINE_INLINE Vec MaxMagnitude(Vec a, Vec b) {
  const int32x4_t mask = vdupq_n_s32(INT32_MAX);
  return FromInts(vmaxq_s32(vandq_s32(Ints(a), mask), vandq_s32(Ints(b), mask)));
}
static TRINE_INLINE void StoreLowBytes(Vec a, uint8_t* to) {
  const uint16x4_t halves = vmovn_u32(vreinterpretq_u32_f32(a.v));
  const uint8x8_t bytes = vmovn_u16(vcombine_u16(halves, halves));
  vst1_lane_u32(reinterpret_cast<uint32_t*>(to), vreinterpret_u32_u8(bytes), 0);
}
static TRINE_INLINE bool Differ(Vec a, Vec b) { return vminvq_u32(vceqq_f32(a.v, b.v)) == 0; }

static TRINE_INLINE float ReduceSum(Vec a) {
  const float32x2_t s2 = vadd_f32(vget_low_f32(a.v), vget_high_f32(a.v));
  return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}
static TRINE_INLINE float ReduceMax(Vec a) { return vmaxvq_f32(a.v); }

static TRINE_INLINE void Transpose(Vec (&r)[4]) {
  const float32x4x2_t a = vtrnq_f32(r[0].v, r[1].v);
  const float32x4x2_t b = vtrnq_f32(r[2].v, r[3].v);
  r[0].v = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
  r[1].v = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
  r[2].v = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
  r[3].v = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

}  // namespace trine::cpu::neon
