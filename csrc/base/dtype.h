// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <span>
#include <string_view>

namespace trine {

// Every element type a safetensors file may hold, named as there. The core computes on a few of
// them only; the others are known so that a checkpoint with a tensor nobody asks for still opens.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kI32,
  kI64,
  kU8,
  kI8,
  kBool,
  kF64,
  kI16,
  kU16,
  kU32,
  kU64,
  kC64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kF6E2M3,
  kF6E3M2,
  kF4,
};

namespace detail {

struct DTypeRow {
  std::string_view name;
  int bits;
};

// In the order of DType.
inline constexpr DTypeRow kDTypes[] = {
    {"F32", 32},    {"F16", 16},    {"BF16", 16},       {"I32", 32},        {"I64", 64},
    {"U8", 8},      {"I8", 8},      {"BOOL", 8},        {"F64", 64},        {"I16", 16},
    {"U16", 16},    {"U32", 32},    {"U64", 64},        {"C64", 64},        {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6},
    {"F6_E3M2", 6}, {"F4", 4},
};
static_assert(std::size(kDTypes) == static_cast<size_t>(DType::kF4) + 1);

}  // namespace detail

constexpr int bits_of(DType dtype) noexcept {
  return detail::kDTypes[static_cast<size_t>(dtype)].bits;
}

// Bytes of one element; 0 for the types that pack several elements into a byte.
constexpr size_t size_of(DType dtype) noexcept { return static_cast<size_t>(bits_of(dtype)) / 8; }

constexpr std::string_view name_of(DType dtype) noexcept {
  return detail::kDTypes[static_cast<size_t>(dtype)].name;
}

constexpr std::optional<DType> parse_dtype(std::string_view name) noexcept {
  for (size_t i = 0; i < std::size(detail::kDTypes); ++i) {
    if (detail::kDTypes[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

// Bytes of a dense tensor. Nothing for a negative dimension, a size past 2^63 (also when a later
// dimension is 0: such a shape is a lie) or packed elements that do not fill their last byte.
constexpr std::optional<uint64_t> checked_bytes(DType dtype,
                                                std::span<const int64_t> shape) noexcept {
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
  uint64_t elements = 1;
  for (const int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    const uint64_t size = static_cast<uint64_t>(dim);
    if (size != 0 && elements > kMax / size) return std::nullopt;
    elements *= size;
  }
  const uint64_t bits = static_cast<uint64_t>(bits_of(dtype));
  if (elements > kMax / bits || elements * bits % 8 != 0) return std::nullopt;
  return elements * bits / 8;
}

}  // namespace trine
