// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace trine::text {

// A text on its way to tokens. `front`: how many of its bytes stand for the first character of the
// original text; Metaspace puts its character before those alone where its scheme is "first".
struct Buffer {
  std::string text = {};
  size_t front = 0;
};

// A part of a buffer that is a word for the model, or a token already.
struct Piece {
  static constexpr int32_t kWord = -1;
  uint32_t begin = 0, end = 0;
  int32_t token = kWord;
  uint32_t front = 0;  // as in Buffer, of this part

  // A part of the part, from its own beginning.
  Piece part(size_t from, size_t to) const noexcept {
    const auto b = static_cast<uint32_t>(from), e = static_cast<uint32_t>(to);
    return {begin + b, begin + e, kWord, front <= b ? 0 : (front < e ? front : e) - b};
  }
};

struct Pieces {
  std::string text = {};
  std::vector<Piece> all = {};

  std::string_view of(const Piece& piece) const noexcept {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
  void clear() noexcept {
    text.clear();
    all.clear();
  }
};

}  // namespace trine::text
