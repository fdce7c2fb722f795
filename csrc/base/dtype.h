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

// Every element type that a safetensors file may hold, named as there, then the types of GGUF that
// pack a block of elements together. The core reads some of them only (weights/convert.h); the
// others are known so that a checkpoint with a tensor nobody asks for still opens. The last one is
// no file's: what linears compute in with `dtype="int4"`.
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
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4K,
  kQ5K,
  kQ6K,
  kQ8_1,
  kQ2K,
  kQ3K,
  kQ8K,
  kIQ2XXS,
  kIQ2XS,
  kIQ3XXS,
  kIQ1S,
  kIQ4NL,
  kIQ3S,
  kIQ2S,
  kIQ4XS,
  kIQ1M,
  kTQ1_0,
  kTQ2_0,
  kMXFP4,
  kNVFP4,
  kQ1_0,
  kI4,
};

namespace detail {

struct DTypeRow {
  std::string_view name;
  int bits;          // of a block
  int elements = 1;  // in a block
};

// In the order of DType.
inline constexpr DTypeRow kDTypes[] = {
    {"F32", 32},
    {"F16", 16},
    {"BF16", 16},
    {"I32", 32},
    {"I64", 64},
    {"U8", 8},
    {"I8", 8},
    {"BOOL", 8},
    {"F64", 64},
    {"I16", 16},
    {"U16", 16},
    {"U32", 32},
    {"U64", 64},
    {"C64", 64},
    {"F8_E4M3", 8},
    {"F8_E5M2", 8},
    {"F8_E8M0", 8},
    {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8},
    {"F6_E2M3", 6},
    {"F6_E3M2", 6},
    {"F4", 4},
    {"Q4_0", 8 * 18, 32},
    {"Q4_1", 8 * 20, 32},
    {"Q5_0", 8 * 22, 32},
    {"Q5_1", 8 * 24, 32},
    {"Q8_0", 8 * 34, 32},
    {"Q4_K", 8 * 144, 256},
    {"Q5_K", 8 * 176, 256},
    {"Q6_K", 8 * 210, 256},
    {"Q8_1", 8 * 40, 32},
    {"Q2_K", 8 * 84, 256},
    {"Q3_K", 8 * 110, 256},
    {"Q8_K", 8 * 292, 256},
    {"IQ2_XXS", 8 * 66, 256},
    {"IQ2_XS", 8 * 74, 256},
    {"IQ3_XXS", 8 * 98, 256},
    {"IQ1_S", 8 * 50, 256},
    {"IQ4_NL", 8 * 18, 32},
    {"IQ3_S", 8 * 110, 256},
    {"IQ2_S", 8 * 82, 256},
    {"IQ4_XS", 8 * 136, 256},
    {"IQ1_M", 8 * 56, 256},
    {"TQ1_0", 8 * 54, 256},
    {"TQ2_0", 8 * 66, 256},
    {"MXFP4", 8 * 17, 32},
    {"NVFP4", 8 * 36, 64},
    {"Q1_0", 8 * 18, 128},
    {"I4", 4},
};
static_assert(std::size(kDTypes) == static_cast<size_t>(DType::kI4) + 1);

constexpr const DTypeRow& row_of(DType dtype) noexcept {
  return kDTypes[static_cast<size_t>(dtype)];
}

}  // namespace detail

// Elements that are packed together: 1, or the block of a type of GGUF, which rows are multiples
// of.
constexpr int64_t block_of(DType dtype) noexcept { return detail::row_of(dtype).elements; }

// Bytes of one element; 0 for the types that pack several elements into a byte or a block.
constexpr size_t size_of(DType dtype) noexcept {
  return block_of(dtype) == 1 ? static_cast<size_t>(detail::row_of(dtype).bits) / 8 : 0;
}

// Bytes of n elements, which fill whole blocks and bytes.
constexpr size_t bytes_of(DType dtype, int64_t n) noexcept {
  return static_cast<size_t>(n / block_of(dtype)) *
         static_cast<size_t>(detail::row_of(dtype).bits) / 8;
}

constexpr std::string_view name_of(DType dtype) noexcept { return detail::row_of(dtype).name; }

// A type of safetensors by its name there.
constexpr std::optional<DType> parse_dtype(std::string_view name) noexcept {
  for (size_t i = 0; i <= static_cast<size_t>(DType::kF4); ++i) {
    if (detail::kDTypes[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

// Elements of a row that have a scale and a minimum of their own where linears compute in int4
// (weights/groups.h).
inline constexpr int64_t kGroup = 32;

// How such a group lies in memory. "Offset" means that its minimum is so many times the scale.
enum class GroupForm : uint8_t {
  kInt4,  // 4 bits, a scale and a minimum
  kQ4_0,  // 4 bits and a scale, offset -8, as GGUF has it
  kQ6_K,  // 6 bits and a scale for each half of the group, offset -32, likewise
  kQ8_0,  // 8 bits and a scale, offset -128, likewise
  kInt8,  // 8 bits, a scale and a minimum
};
inline constexpr GroupForm kGroupForms[] = {GroupForm::kInt4, GroupForm::kQ4_0, GroupForm::kQ6_K,
                                            GroupForm::kQ8_0, GroupForm::kInt8};

// Bytes of a group of one row, scales included, and of its integers alone.
constexpr int64_t group_bytes(GroupForm form) noexcept {
  constexpr int64_t kBytes[] = {20, 18, 28, 34, 36};
  return kBytes[static_cast<size_t>(form)];
}
constexpr int group_bits(GroupForm form) noexcept {
  constexpr int kBits[] = {4, 4, 6, 8, 8};
  return kBits[static_cast<size_t>(form)];
}

// What the linears of a model may compute in. kI8 and kI4 name a form of weights with scales in it
// (Form, in backend.h), not just an array of numbers.
inline constexpr DType kModelDTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kI8,
                                         DType::kI4};

// As Python and the command line have them, which is numpy's names.
constexpr std::string_view model_name(DType dtype) noexcept {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    case DType::kI8:
      return "int8";
    case DType::kI4:
      return "int4";
    default:
      return name_of(dtype);
  }
}

constexpr bool is_quantised(DType dtype) noexcept {
  return dtype == DType::kI8 || dtype == DType::kI4;
}

// Bytes of a dense tensor. Nothing for a negative dimension, a size past 2^63 (also when a later
// dimension is 0: such a shape is a lie), packed elements that do not fill their last byte and rows
// that are no whole number of blocks.
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
  const uint64_t bits = static_cast<uint64_t>(detail::row_of(dtype).bits);
  const int64_t block = block_of(dtype);
  if (block != 1 && (shape.empty() || shape.back() % block != 0)) return std::nullopt;
  const uint64_t blocks = elements / static_cast<uint64_t>(block);
  if (blocks > kMax / bits || blocks * bits % 8 != 0) return std::nullopt;
  return blocks * bits / 8;
}

}  // namespace trine
