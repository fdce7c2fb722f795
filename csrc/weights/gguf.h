// SPDX-License-Identifier: Apache-2.0
// The GGUF format, versions 2 and 3, little-endian: metadata (keys with typed values), descriptions
// of tensors, padding, the tensors' bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace trine {

enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

// A value as it lies in the file: a number's bytes, a string's text (UTF-8 as a rule, but that is
// not checked), an array from its items' type on.
struct GgufValue {
  GgufType type = GgufType::kU8;
  std::span<const std::byte> bytes;
};

// The items of an array that parse_gguf has checked, one after the other.
class GgufItems {
 public:
  explicit GgufItems(const GgufValue& array);
  uint64_t left() const noexcept { return left_; }
  GgufValue next();  // only while there are any left

 private:
  std::span<const std::byte> bytes_;
  GgufType type_;
  uint64_t left_;
  size_t at_;
};

struct GgufKey {
  std::string_view name;
  GgufValue value;
};

struct GgufEntry {
  std::string_view name;
  DType dtype = DType::kF32;
  std::vector<int64_t>
      shape;  // outermost first, as everywhere here; the file has it innermost first
  std::span<const std::byte> data;
};

struct Gguf {
  std::vector<GgufKey> metadata;
  std::vector<GgufEntry> tensors;  // both in the order of the file
};

// Checks everything before it is used, with checked arithmetic. Nothing is allocated for a count
// that the file is too short for, and a value of the metadata costs nothing but its place: strings
// and arrays stay in the file. No key or name comes twice, no two tensors overlap; there may be
// holes between them. ModelError with the file's name and the key or tensor. The result refers to
// the file.
Gguf parse_gguf(std::span<const std::byte> file, const std::string& file_name);

}  // namespace trine
