// SPDX-License-Identifier: Apache-2.0
// Characters as the `tokenizers` library sees them; the head of unicode_tables.inc says how that
// was found.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/utf8.h"

namespace trine::text {

enum CharFlag : uint16_t {
  kSpace = 1 << 0,              // of Rust's standard library and both engines of expressions
  kOther = 1 << 1,              // controls and the like, as BERT cleans them away
  kNonspacing = 1 << 2,         // the marks that BERT strips
  kCombining = 1 << 3,          // the marks that StripAccents strips
  kPunctuation = 1 << 4,        // ASCII's symbols among them
  kNumeric = 1 << 5,            // of Rust's standard library
  kLetter = 1 << 6,             // \p{L}
  kNumber = 1 << 7,             // \p{N}
  kPunct = 1 << 8,              // \p{P}
  kWord = 1 << 9,               // \w around added tokens and in Whitespace
  kOnigWord = 1 << 10,          // \w in expressions
  kDecomposes = 1 << 11,        // NFD
  kDecomposesCompat = 1 << 12,  // NFKD
  kSecond = 1 << 13,            // may compose with the character before it
  kNotNfc = 1 << 14,
  kNotNfkc = 1 << 15,
};

// Classes of UAX #29 that make a difference here.
enum class Break : uint8_t {
  kOther,
  kControl,
  kExtend,
  kZwj,
  kSpacingMark,
  kPrepend,
  kL,
  kV,
  kT,
  kPictograph
};
enum class Conjunct : uint8_t { kNone, kConsonant, kLinker, kExtend };

struct CharKind {
  uint16_t flags;
  uint8_t combining_class;
  uint8_t grapheme_break;  // a Break
  uint8_t conjunct;        // a Conjunct
};

const CharKind& kind_of(char32_t c) noexcept;
inline bool has(char32_t c, unsigned flags) noexcept { return (kind_of(c).flags & flags) != 0; }

// The character's lower case, except U+0130, whose is two characters.
char32_t lower(char32_t c) noexcept;
void append_lower(std::string& out, char32_t c);

enum class NormalForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };
void normalize(std::string_view text, NormalForm form, std::string& out);

// Bytes of the first grapheme of a text that isn't empty.
size_t grapheme_length(std::string_view text) noexcept;

}  // namespace trine::text
