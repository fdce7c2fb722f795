// SPDX-License-Identifier: Apache-2.0
// Bytes beside Vec, for weights in integers. This file holds the contract; the others implement it.
// All of it is exact, so every instruction set gives the same bits.
#pragma once

#include "cpu/simd/vec_scalar.h"

namespace trine::cpu::scalar {

// Four for each lane of a Vec.
struct Bytes {
  uint8_t b[4 * Vec::kLanes];
};

static TRINE_INLINE Bytes LoadBytes(const uint8_t* p) {
  Bytes r;
  memcpy(r.b, p, sizeof r.b);
  return r;
}
static TRINE_INLINE Bytes LowNibbles(Bytes a) {
  for (uint8_t& b : a.b) b = static_cast<uint8_t>(b & 15);
  return a;
}
static TRINE_INLINE Bytes HighNibbles(Bytes a) {
  for (uint8_t& b : a.b) b = static_cast<uint8_t>(b >> 4);
  return a;
}

// Numbers below 16 with the two bits from 2 * kPlace on of `high` above them.
template <int kPlace>
static TRINE_INLINE Bytes WithHighBits(Bytes low, Bytes high) {
  for (int i = 0; i < 4 * Vec::kLanes; ++i)
    low.b[i] = static_cast<uint8_t>(low.b[i] | ((high.b[i] >> 2 * kPlace) & 3) << 4);
  return low;
}

// 32 integers of -127 .. 127, given as floats.
static TRINE_INLINE void StoreInt8(const Vec (&v)[32 / Vec::kLanes], int8_t* to) {
  for (int i = 0; i < 32; ++i) to[i] = static_cast<int8_t>(v[i / Vec::kLanes].v[i % Vec::kLanes]);
}

// a * b + c rounded once, here too.
static TRINE_INLINE Vec FusedMulAdd(Vec a, Vec b, Vec c) {
  Vec r;
  for (int i = 0; i < Vec::kLanes; ++i) r.v[i] = fmaf(a.v[i], b.v[i], c.v[i]);
  return r;
}

// A function of its own: compilers unroll it, and kernels would have 400 KB of it.
template <int kQuads>
static TRINE_NOINLINE Vec dot_row(const Bytes (&w)[kQuads], const int8_t* x) {
  Vec dots;
  for (int i = 0; i < Vec::kLanes; ++i) {
    int32_t sum = 0;
    for (int j = 0; j < kQuads; ++j) {
      for (int b = 0; b < 4; ++b) sum += w[j].b[4 * i + b] * x[4 * j + b];
    }
    dots.v[i] = static_cast<float>(sum);
  }
  return dots;
}

struct Dots {
  // Rows of a tile of linear_int4: as many as registers or the size of what is compiled allow.
  static constexpr int kTileRows = 2;
  // So many rows at once, or fewer, if that hides the latency of the instructions.
  static constexpr int kTogether = 1;
  // Lane i of dots[r]: the sum over j < kQuads and b < 4 of byte 4i + b of w[j], a number below
  // 2^kBits, times x[32r + 4j + b], which is in -127 .. 127. kQuads is 4 or 8.
  template <int kBits, int kQuads, int kRows>
  static TRINE_INLINE void dot(const Bytes (&w)[kQuads], const int8_t* x, Vec (&dots)[kRows]) {
    static_assert(kRows == 1);
    dots[0] = dot_row(w, x);
  }
};

}  // namespace trine::cpu::scalar
