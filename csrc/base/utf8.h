// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace trine {

// Length of the UTF-8 sequence at the front, 0 if there is none: no overlong forms, no surrogates,
// nothing past U+10FFFF.
inline size_t utf8_length(std::string_view s) noexcept {
  const auto byte = [&](size_t i) -> int { return i < s.size() ? static_cast<uint8_t>(s[i]) : 0; };
  const auto follow = [&](size_t from, size_t to) {
    while (from < to && (byte(from) & 0xC0) == 0x80) ++from;
    return from == to;
  };
  const int a = byte(0), b = byte(1);
  if (a < 0x80) return s.empty() ? 0 : 1;
  if (a < 0xC2 || a > 0xF4) return 0;
  if (a < 0xE0) return follow(1, 2) ? 2 : 0;
  if ((a == 0xE0 && b < 0xA0) || (a == 0xED && b >= 0xA0)) return 0;
  if (a < 0xF0) return follow(1, 3) ? 3 : 0;
  if ((a == 0xF0 && b < 0x90) || (a == 0xF4 && b >= 0x90)) return 0;
  return follow(1, 4) ? 4 : 0;
}

inline bool is_utf8(std::string_view s) noexcept {
  while (!s.empty()) {
    const size_t length = utf8_length(s.substr(0, std::min<size_t>(s.size(), 4)));
    if (length == 0) return false;
    s.remove_prefix(length);
  }
  return true;
}

}  // namespace trine
