// SPDX-License-Identifier: Apache-2.0
#include "weights/convert.h"

#include <cstring>

#include "base/error.h"

namespace trine {

// Every format read here is little-endian and used as it lies in the file.
static_assert(std::endian::native == std::endian::little);

uint16_t f32_to_f16(float x) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) {
    return static_cast<uint16_t>(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
  }
  // 65520 lies half way between the largest finite value and 2^16, and ties go to even: up.
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude >= 113u << 23) {  // a normal f16, or one that rounding carries to the next binade
    const uint32_t round = 0xFFFu + ((magnitude >> 13) & 1u);
    return static_cast<uint16_t>(sign | ((magnitude + round - (112u << 23)) >> 13));
  }
  // A subnormal counts in units of 2^-24: shift the significand down there, ties to even.
  const uint32_t exponent = magnitude >> 23;
  if (exponent < 102) return static_cast<uint16_t>(sign);  // below half of the smallest unit
  const uint32_t significand = (magnitude & 0x7FFFFFu) | 0x800000u;
  const uint32_t shift = 126 - exponent;  // 14 .. 24
  const uint32_t kept = significand >> shift;
  const uint32_t rest = significand & ((1u << shift) - 1);
  const uint32_t half = 1u << (shift - 1);
  const uint32_t up = rest > half || (rest == half && (kept & 1u) != 0) ? 1 : 0;
  return static_cast<uint16_t>(sign | (kept + up));
}

namespace {

template <float (*kConvert)(uint16_t) noexcept>
void convert_halves(const std::byte* src, float* dst, size_t n) noexcept {
  for (size_t i = 0; i < n; ++i) {
    uint16_t h;
    std::memcpy(&h, src + 2 * i, sizeof h);
    dst[i] = kConvert(h);
  }
}

}  // namespace

void to_f32(DType dtype, const std::byte* src, float* dst, size_t n) {
  if (n == 0) return;  // memcpy takes no null pointers
  switch (dtype) {
    case DType::kF32:
      std::memcpy(dst, src, n * sizeof(float));
      return;
    case DType::kF64:
      for (size_t i = 0; i < n; ++i) {
        double d;
        std::memcpy(&d, src + sizeof d * i, sizeof d);
        dst[i] = static_cast<float>(d);
      }
      return;
    case DType::kF16:
      return convert_halves<f16_to_f32>(src, dst, n);
    case DType::kBF16:
      return convert_halves<bf16_to_f32>(src, dst, n);
    default:
      if (!is_readable(dtype)) {
        throw ModelError(cat("cannot read ", name_of(dtype), " as float: ", kReadable));
      }
      if (n % static_cast<size_t>(block_of(dtype)) != 0) {
        throw ModelError(cat(n, " elements of ", name_of(dtype), " are no whole blocks"));
      }
      return blocks_to_f32(dtype, src, dst, n);
  }
}

}  // namespace trine
