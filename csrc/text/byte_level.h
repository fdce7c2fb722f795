// SPDX-License-Identifier: Apache-2.0
// GPT-2's letters for bytes: those that show stand for themselves, the others for what follows
// U+0100, in order.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace trine::text {

inline constexpr auto kByteLetters = [] {
  std::array<char32_t, 256> letters{};
  char32_t hidden = 0x100;
  for (char32_t b = 0; b < 256; ++b) {
    const bool shows = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    letters[b] = shows ? b : hidden++;
  }
  return letters;
}();

// The byte that each character below 324 stands for, -1 for none.
inline constexpr auto kLetterBytes = [] {
  std::array<int16_t, 324> bytes{};
  for (int16_t& b : bytes) b = -1;
  for (size_t b = 0; b < 256; ++b) bytes[kByteLetters[b]] = static_cast<int16_t>(b);
  return bytes;
}();

inline void append_byte_letter(std::string& out, char byte) {
  const char32_t c = kByteLetters[static_cast<uint8_t>(byte)];
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else {  // all are below 0x800
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

}  // namespace trine::text
