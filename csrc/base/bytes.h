// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

namespace trine {

// The number at an address of any alignment.
template <class T>
T load_le(const void* from) noexcept {
  static_assert(std::endian::native == std::endian::little);
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// The number at byte `at`, which the caller knows to lie inside.
template <class T>
T load_le(std::span<const std::byte> bytes, size_t at) noexcept {
  return load_le<T>(bytes.data() + at);
}

inline std::string_view as_text(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace trine
