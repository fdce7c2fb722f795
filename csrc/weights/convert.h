// SPDX-License-Identifier: Apache-2.0
// Float formats of checkpoints to and from float: independent of the CPU's rounding and
// flush-to-zero modes and exact, but for F64; vectorised by the compiler. Used at load, never in a
// run.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/dtype.h"

namespace trine {

inline float bf16_to_f32(uint16_t h) noexcept { return std::bit_cast<float>(uint32_t{h} << 16); }

// Exact for every pattern: subnormals become normal floats, a NaN keeps its sign and payload.
inline float f16_to_f32(uint16_t h) noexcept {
  constexpr uint32_t kSmallestNormal = 113u << 23;  // 2^-14
  const uint32_t magnitude = (h & 0x7FFFu) << 13;
  const uint32_t exponent = magnitude & (0x1Fu << 23);
  // A subnormal is m * 2^-24. With 2^-14 as a hidden bit it is an ordinary float, and taking the
  // bit away again is exact. Both operands are normal, so flush-to-zero modes do not matter.
  const float subnormal =
      std::bit_cast<float>(magnitude + kSmallestNormal) - std::bit_cast<float>(kSmallestNormal);
  const uint32_t normal = magnitude + ((exponent == (0x1Fu << 23) ? 224u : 112u) << 23);
  const uint32_t bits = exponent == 0 ? std::bit_cast<uint32_t>(subnormal) : normal;
  // The mask: when rounding downwards, 2^-14 - 2^-14 is -0.
  return std::bit_cast<float>((bits & 0x7FFFFFFFu) | ((h & 0x8000u) << 16));
}

// Round to nearest, ties to even; too large becomes infinity. A NaN stays a NaN: its low payload
// bits are cut and the quiet bit is set, so that it cannot turn into infinity.
inline uint16_t f32_to_bf16(float x) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  return static_cast<uint16_t>(is_nan ? (bits >> 16) | 0x40u : rounded);
}
uint16_t f32_to_f16(float x) noexcept;

// What to_f32 reads.
constexpr bool is_readable(DType dtype) noexcept {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 ||
         dtype == DType::kF64 || (dtype >= DType::kQ4_0 && dtype <= DType::kQ6K);
}
inline constexpr std::string_view kReadable =
    "F64, F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K are read";

// n elements (whole blocks) of a readable type, ModelError for others; F64 is rounded as the CPU
// does. src needs no alignment.
void to_f32(DType dtype, const std::byte* src, float* dst, size_t n);

// The types that come in blocks, for to_f32. A value is d * q or d * q + m with d and m from f16:
// the product is exact, the sum rounds once, so that every reader of GGUF gets the same bits.
void blocks_to_f32(DType dtype, const std::byte* src, float* dst, size_t n) noexcept;

// Scale and minimum of sub-block j of Q4_K and Q5_K: six bits each, in 12 bytes. The first four of
// each lie in the low bits of bytes 0..3 and 4..7; the last four have their low nibbles in bytes
// 8..11 and their upper two bits on top of the first four.
struct KScale {
  int scale, min;
};
inline KScale k_scale(const uint8_t* p, int j) noexcept {
  if (j < 4) return {p[j] & 0x3F, p[j + 4] & 0x3F};
  return {(p[j + 4] & 0x0F) | ((p[j - 4] >> 6) << 4), (p[j + 4] >> 4) | ((p[j] >> 6) << 4)};
}

}  // namespace trine
