// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
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

// The character at `at`, which moves behind it. The text must be UTF-8, and not at its end.
inline char32_t next_char(const char*& at) noexcept {
  const auto byte = [&] { return static_cast<uint8_t>(*at++); };
  const auto tail = [&] { return static_cast<char32_t>(byte() & 0x3F); };
  char32_t c = byte();
  if (c < 0x80) return c;
  if (c < 0xE0) return (c & 0x1F) << 6 | tail();
  if (c < 0xF0) {
    c = (c & 0xF) << 6 | tail();
    return c << 6 | tail();
  }
  c = (c & 7) << 6 | tail();
  c = c << 6 | tail();
  return c << 6 | tail();
}

// Bytes of the character that begins with this byte, in UTF-8.
inline size_t char_length(char first) noexcept {
  const auto c = static_cast<uint8_t>(first);
  return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

// True within a character, behind its first byte.
inline bool is_tail(char c) noexcept { return (c & 0xC0) == 0x80; }

inline void append_utf8(std::string& out, char32_t code) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

// Any bytes as UTF-8: each longest beginning of a character that has no end becomes U+FFFD, as in
// Python's bytes.decode("utf-8", "replace").
inline std::string replace_invalid(std::string_view s) {
  std::string out;
  while (!s.empty()) {
    size_t length = utf8_length(s.substr(0, std::min<size_t>(s.size(), 4)));
    if (length > 0) {
      out += s.substr(0, length);
    } else {
      // Bytes that some character begins with, tried by adding the least and the greatest end.
      constexpr std::string_view kLeast = "\x80\x80\x80", kGreatest = "\xBF\xBF\xBF";
      for (length = std::min<size_t>(s.size(), 3); length > 1; --length) {
        const std::string part(s.substr(0, length));
        if (utf8_length(part + std::string(kLeast)) > length ||
            utf8_length(part + std::string(kGreatest)) > length)
          break;
      }
      append_utf8(out, 0xFFFD);
    }
    s.remove_prefix(length);
  }
  return out;
}

}  // namespace trine
