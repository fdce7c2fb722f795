// SPDX-License-Identifier: Apache-2.0
// The contract is in dot_scalar.h. Without the dot products of ARMv8.2, which not every processor
// has.
#pragma once

#include "cpu/simd/vec_neon.h"

namespace trine::cpu::neon {

struct Bytes {
  uint8x16_t v;
};

static TRINE_INLINE Bytes LoadBytes(const uint8_t* p) { return {vld1q_u8(p)}; }
static TRINE_INLINE Bytes LowNibbles(Bytes a) { return {vandq_u8(a.v, vdupq_n_u8(15))}; }
static TRINE_INLINE Bytes HighNibbles(Bytes a) { return {vshrq_n_u8(a.v, 4)}; }

template <int kPlace>
static TRINE_INLINE Bytes WithHighBits(Bytes low, Bytes high) {
  const uint8x16_t two = vandq_u8(high.v, vdupq_n_u8(3 << 2 * kPlace));
  constexpr int8_t kShift = 4 - 2 * kPlace;  // to the right where it is negative
  return {vorrq_u8(low.v, vshlq_u8(two, vdupq_n_s8(kShift)))};
}

static TRINE_INLINE void StoreInt8(const Vec (&v)[8], int8_t* to) {
  for (int i = 0; i < 4; ++i) {
    const int16x4_t low = vmovn_s32(vcvtq_s32_f32(v[2 * i].v));
    const int16x4_t high = vmovn_s32(vcvtq_s32_f32(v[2 * i + 1].v));
    vst1_s8(to + 8 * i, vmovn_s16(vcombine_s16(low, high)));
  }
}

static TRINE_INLINE Vec FusedMulAdd(Vec a, Vec b, Vec c) { return MulAdd(a, b, c); }

struct Dots {
  static constexpr int kTileRows = 4;
  static constexpr int kTogether = 1;
  // Weights below 16: a lane of 16 bits takes eight products, 15240 at most.
  template <int kQuads>
  static TRINE_INLINE int32x4_t dot_nibbles(const uint8x16_t (&w)[kQuads], const int8_t* x) {
    int16x8_t low = vdupq_n_s16(0), high = vdupq_n_s16(0);
    TRINE_UNROLL for (int j = 0; j < kQuads; ++j) {
      int32_t bytes;
      memcpy(&bytes, x + 4 * j, sizeof bytes);
      const int8x8_t quads = vreinterpret_s8_s32(vdup_n_s32(bytes));
      const int8x16_t weights = vreinterpretq_s8_u8(w[j]);
      low = vmlal_s8(low, vget_low_s8(weights), quads);
      high = vmlal_s8(high, vget_high_s8(weights), quads);
    }
    return vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
  }
  template <int kBits, int kQuads, int kRows>
  static TRINE_INLINE void dot(const Bytes (&w)[kQuads], const int8_t* x, Vec (&dots)[kRows]) {
    static_assert(kRows == 1);
    uint8x16_t low[kQuads], high[kQuads];
    TRINE_UNROLL for (int j = 0; j < kQuads; ++j) low[j] = kBits == 4 ? w[j].v : LowNibbles(w[j]).v;
    int32x4_t sum = dot_nibbles(low, x);
    if constexpr (kBits > 4) {
      TRINE_UNROLL for (int j = 0; j < kQuads; ++j) high[j] = HighNibbles(w[j]).v;
      sum = vaddq_s32(sum, vshlq_n_s32(dot_nibbles(high, x), 4));
    }
    dots[0] = {vcvtq_f32_s32(sum)};
  }
};

}  // namespace trine::cpu::neon
