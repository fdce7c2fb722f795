// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "weights/convert.h"

namespace trine::test {

constexpr uint32_t kPatterns = 65536;

static uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }

// The definition of a small float format, in double arithmetic.
static double decode(uint32_t h, int exponent_bits, int fraction_bits) {
  const uint32_t top = (1u << exponent_bits) - 1;
  const uint32_t exponent = (h >> fraction_bits) & top;
  const double fraction = std::ldexp(h & ((1u << fraction_bits) - 1), -fraction_bits);
  const int bias = static_cast<int>(top >> 1);
  const double sign = (h >> 15) != 0 ? -1.0 : 1.0;
  if (exponent == top) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias);
  return sign * std::ldexp(1 + fraction, static_cast<int>(exponent) - bias);
}

static bool same(float x, double expected) {
  if (std::isnan(expected)) return std::isnan(x);
  return static_cast<double>(x) == expected && std::signbit(x) == std::signbit(expected);
}

TEST(convert_every_f16) {
  int wrong = 0;
  for (uint32_t h = 0; h < kPatterns; ++h) {
    const float x = f16_to_f32(static_cast<uint16_t>(h));
    wrong += !same(x, decode(h, 5, 10));
    // Back again: the same pattern, but that a NaN becomes quiet.
    const bool is_nan = std::isnan(x);
    wrong += f32_to_f16(x) != (is_nan ? h | 0x200u : h);
    // Payload and sign of a NaN are kept on the way up.
    wrong += is_nan && bits(x) != ((h & 0x8000u) << 16 | 0x7F800000u | (h & 0x3FFu) << 13);
  }
  CHECK_EQ(wrong, 0);
}

TEST(convert_every_bf16) {
  int wrong = 0;
  for (uint32_t h = 0; h < kPatterns; ++h) {
    const float x = bf16_to_f32(static_cast<uint16_t>(h));
    wrong += !same(x, decode(h, 8, 7)) || bits(x) != h << 16;
    wrong += f32_to_bf16(x) != (std::isnan(x) ? h | 0x40u : h);
  }
  CHECK_EQ(wrong, 0);
}

// Between every two neighbours of the small format: just below, at and just above the middle.
template <class Down>
static int wrong_roundings(Down down, float (*up)(uint16_t) noexcept, uint32_t largest) {
  int wrong = 0;
  for (uint32_t h = 0; h < largest; ++h) {
    const float low = up(static_cast<uint16_t>(h)), high = up(static_cast<uint16_t>(h + 1));
    const float middle = static_cast<float>((static_cast<double>(low) + high) / 2);
    if (middle == low || middle == high) continue;  // no float in between: f32's own subnormals
    const uint32_t even = h + (h & 1u);
    wrong += down(middle) != even;
    wrong += down(std::nextafter(middle, low)) != h;
    wrong += down(std::nextafter(middle, high)) != h + 1;
    wrong += down(-middle) != (even | 0x8000u);
    wrong += down(std::nextafter(-middle, -low)) != (h | 0x8000u);
    wrong += down(std::nextafter(-middle, -high)) != ((h + 1) | 0x8000u);
  }
  return wrong;
}

TEST(convert_rounds_to_nearest_even) {
  CHECK_EQ(wrong_roundings(f32_to_f16, f16_to_f32, 0x7BFF), 0);
  CHECK_EQ(wrong_roundings(f32_to_bf16, bf16_to_f32, 0x7F7F), 0);
}

TEST(convert_edges) {
  CHECK_EQ(f32_to_f16(65519.996f), 0x7BFFu);  // the last that is still finite
  CHECK_EQ(f32_to_f16(65520.0f), 0x7C00u);
  CHECK_EQ(f32_to_f16(-1e30f), 0xFC00u);
  CHECK_EQ(f32_to_f16(INFINITY), 0x7C00u);
  CHECK_EQ(f32_to_f16(std::ldexp(1.0f, -25)), 0u);  // a tie with 0
  CHECK_EQ(f32_to_f16(std::nextafter(std::ldexp(1.0f, -25), 1.0f)), 1u);
  CHECK_EQ(f32_to_f16(-std::numeric_limits<float>::denorm_min()), 0x8000u);
  CHECK_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7F80u);
  CHECK_EQ(f32_to_bf16(-INFINITY), 0xFF80u);
  CHECK_EQ(f32_to_bf16(std::bit_cast<float>(1u)), 0u);
  // Payloads in the low bits only: cut off, they must not leave an infinity behind.
  CHECK_EQ(f32_to_bf16(std::bit_cast<float>(0x7F800001u)), 0x7FC0u);
  CHECK_EQ(f32_to_f16(std::bit_cast<float>(0xFF800001u)), 0xFE00u);
}

TEST(convert_ignores_rounding_mode) {
  for (const int mode : {FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO}) {
    std::fesetround(mode);
    const float zero = f16_to_f32(0), tiny = f16_to_f32(1);
    std::fesetround(FE_TONEAREST);
    CHECK_EQ(bits(zero), 0u);
    CHECK_EQ(bits(tiny), bits(std::ldexp(1.0f, -24)));
  }
}

TEST(convert_arrays_at_any_address) {
  std::vector<float> floats;
  std::vector<uint16_t> halves;
  for (uint32_t i = 0; i < 1000; ++i) {
    halves.push_back(static_cast<uint16_t>(i * 31));
    floats.push_back(f16_to_f32(halves.back()));
  }
  for (size_t shift = 0; shift < 8; ++shift) {
    std::vector<std::byte> raw(shift + 4000);
    std::vector<float> out(1001, -1.0f);
    std::memcpy(raw.data() + shift, halves.data(), 2000);
    to_f32(DType::kF16, raw.data() + shift, out.data(), 1000);
    CHECK_EQ(std::memcmp(out.data(), floats.data(), 4000), 0);
    to_f32(DType::kBF16, raw.data() + shift, out.data(), 1000);
    CHECK_EQ(bits(out[999]), uint32_t{halves[999]} << 16);
    std::memcpy(raw.data() + shift, floats.data(), 4000);
    to_f32(DType::kF32, raw.data() + shift, out.data(), 1000);
    CHECK_EQ(std::memcmp(out.data(), floats.data(), 4000), 0);
    CHECK_EQ(out[1000], -1.0f);
  }
  const double doubles[] = {1.0 + 0x1p-24, -0x1.fffffep127, 1e300, 0x1p-149};
  std::byte raw[33];
  std::memcpy(raw + 1, doubles, sizeof doubles);
  float rounded[4];
  to_f32(DType::kF64, raw + 1, rounded, 4);
  CHECK(rounded[0] == 1.0f && rounded[1] == -std::numeric_limits<float>::max());
  CHECK(rounded[2] == INFINITY && rounded[3] == std::numeric_limits<float>::denorm_min());
  to_f32(DType::kF32, nullptr, nullptr, 0);
  float x = 0;
  CHECK_THROWS_WITH(to_f32(DType::kI64, nullptr, &x, 1), ModelError, "cannot read I64 as float");
}

TEST(dtype_names_and_sizes) {
  for (int i = 0; i <= static_cast<int>(DType::kF4); ++i) {
    const auto dtype = static_cast<DType>(i);
    CHECK(parse_dtype(name_of(dtype)) == dtype);
  }
  CHECK(!parse_dtype("f32") && !parse_dtype("") && !parse_dtype("F32 "));
  CHECK_EQ(size_of(DType::kBF16), 2u);
  CHECK_EQ(size_of(DType::kF64), 8u);
  CHECK_EQ(size_of(DType::kBool), 1u);
  CHECK_EQ(size_of(DType::kF8E4M3), 1u);
  const std::vector<int64_t> none, odd{3}, even{4}, huge{INT64_MAX, 2}, hidden{INT64_MAX, 2, 0};
  CHECK(checked_bytes(DType::kF32, none) == 4u);
  CHECK(checked_bytes(DType::kF4, even) == 2u && !checked_bytes(DType::kF4, odd));
  CHECK(!checked_bytes(DType::kU8, huge) && !checked_bytes(DType::kU8, hidden));
  CHECK(!checked_bytes(DType::kF32, std::vector<int64_t>{-1}));
  CHECK(checked_bytes(DType::kF32, std::vector<int64_t>{0, INT64_MAX}) == 0u);
}

}  // namespace trine::test
