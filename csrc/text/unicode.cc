// SPDX-License-Identifier: Apache-2.0
#include "text/unicode.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <span>
#include <vector>

namespace trine::text {
namespace {

#include "text/unicode_tables.inc"

// Hangul is computed, as chapter 3.12 of the Unicode standard has it.
constexpr char32_t kSyllables = 0xAC00, kLeads = 0x1100, kVowels = 0x1161, kTails = 0x11A7;
constexpr char32_t kVowelCount = 21, kTailCount = 28, kSyllableCount = 11172;

bool is_syllable(char32_t c) noexcept { return c - kSyllables < kSyllableCount; }

// The row of a table of rows of `kWidth` numbers, sorted by the first.
template <size_t kWidth, size_t kSize>
const uint32_t* find_row(const uint32_t (&table)[kSize], char32_t key) noexcept {
  size_t low = 0, high = kSize / kWidth;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (table[middle * kWidth] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const uint32_t* const row = table + low * kWidth;
  return low < kSize / kWidth && *row == key ? row : nullptr;
}

// A character with its combining class.
struct Unit {
  char32_t c;
  uint8_t combining;
};
using Units = std::vector<Unit>;

// What a character that isn't a syllable decomposes to: a length and so many characters, or null.
const uint32_t* parts_of(char32_t c, bool compat) noexcept {
  if (!has(c, compat ? kDecomposesCompat : kDecomposes)) return nullptr;
  const uint32_t* row = compat ? find_row<2>(kCompat, c) : nullptr;
  if (row == nullptr) row = find_row<2>(kCanonical, c);
  return row == nullptr ? nullptr : kPool + row[1];
}

void decompose(char32_t c, bool compat, Units& out) {
  const auto add = [&](char32_t part) { out.push_back({part, kind_of(part).combining_class}); };
  if (is_syllable(c)) {
    const char32_t at = c - kSyllables, tail = at % kTailCount;
    add(kLeads + at / (kVowelCount * kTailCount));
    add(kVowels + at / kTailCount % kVowelCount);
    if (tail != 0) add(kTails + tail);
    return;
  }
  const uint32_t* const parts = parts_of(c, compat);
  if (parts == nullptr) return add(c);
  for (const uint32_t part : std::span(parts + 1, *parts)) add(part);
}

// Whether nothing of the character, decomposed, moves or composes with what is before it.
bool begins_segment(char32_t c, bool compat) noexcept {
  if (const uint32_t* parts = parts_of(c, compat)) c = parts[1];
  const CharKind& kind = kind_of(c);
  return kind.combining_class == 0 && (kind.flags & kSecond) == 0;
}

void reorder(Units& units) {
  for (auto at = units.begin(); at != units.end();) {
    if (at->combining == 0) {
      ++at;
      continue;
    }
    const auto end = std::find_if(at, units.end(), [](const Unit& u) { return u.combining == 0; });
    std::stable_sort(at, end,
                     [](const Unit& a, const Unit& b) { return a.combining < b.combining; });
    at = end;
  }
}

// What two characters compose to, or 0.
char32_t composed(char32_t a, char32_t b) noexcept {
  if (a - kLeads < 19 && b - kVowels < kVowelCount)
    return kSyllables + ((a - kLeads) * kVowelCount + (b - kVowels)) * kTailCount;
  if (is_syllable(a) && (a - kSyllables) % kTailCount == 0 && b - kTails - 1 < kTailCount - 1)
    return a + (b - kTails);
  const uint32_t* row = find_row<3>(kComposed, a);
  if (row == nullptr) return 0;
  for (; row != std::end(kComposed) && row[0] == a; row += 3) {
    if (row[1] == b) return row[2];
  }
  return 0;
}

void compose(Units& units) {
  constexpr size_t kNone = ~size_t{0};
  size_t kept = 0, starter = kNone;
  for (size_t i = 0; i < units.size(); ++i) {
    const Unit unit = units[i];
    // Nothing of the same class, and no starter, may stand between the two.
    const bool next = starter != kNone && kept == starter + 1;
    const bool free = next || (kept > 0 && units[kept - 1].combining < unit.combining);
    if (starter != kNone && free) {
      if (const char32_t c = composed(units[starter].c, unit.c)) {
        units[starter].c = c;
        continue;
      }
    }
    if (unit.combining == 0) starter = kept;
    units[kept++] = unit;
  }
  units.resize(kept);
}

}  // namespace

const CharKind& kind_of(char32_t c) noexcept {
  const size_t block = std::min<size_t>(c / kBlock, std::size(kBlockOf) - 1);
  return kKinds[kKindOf[kBlockOf[block] * kBlock + c % kBlock]];
}

char32_t lower(char32_t c) noexcept {
  if (c < 0x80) return c - U'A' < 26 ? c + 32 : c;
  const uint32_t* const row = find_row<2>(kLower, c);
  return row == nullptr ? c : row[1];
}

void append_lower(std::string& out, char32_t c) {
  append_utf8(out, c == 0x130 ? U'i' : lower(c));
  if (c == 0x130) append_utf8(out, 0x307);
}

void normalize(std::string_view text, NormalForm form, std::string& out) {
  const bool compat = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const bool composes = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const unsigned changes =
      composes ? (compat ? kNotNfkc : kNotNfc) : (compat ? kDecomposesCompat : kDecomposes);
  Units units;
  // A segment is a character that starts one, and what may move or compose behind it.
  const auto flush = [&](std::string_view segment, bool plain) {
    if (plain) {
      out += segment;
      return;
    }
    units.clear();
    for (const char* at = segment.data(); at != segment.data() + segment.size();)
      decompose(next_char(at), compat, units);
    reorder(units);
    if (composes) compose(units);
    for (const Unit& unit : units) append_utf8(out, unit.c);
  };
  const char* const end = text.data() + text.size();
  const char* start = text.data();
  bool plain = true;
  for (const char* at = start; at != end;) {
    const char* const here = at;
    if (static_cast<uint8_t>(*at) < 0x80) {
      ++at;
      // Of a run of ASCII only the last character may have marks behind it.
      if (at != end && static_cast<uint8_t>(*at) < 0x80 && plain) continue;
      flush({start, static_cast<size_t>(here - start)}, plain);
      start = here, plain = true;
      continue;
    }
    const char32_t c = next_char(at);
    if (begins_segment(c, compat)) {
      flush({start, static_cast<size_t>(here - start)}, plain);
      start = here, plain = true;
    } else {
      plain = false;
    }
    if (has(c, changes)) plain = false;
  }
  flush({start, static_cast<size_t>(end - start)}, plain);
}

size_t grapheme_length(std::string_view text) noexcept {
  const char* at = text.data();
  const char* const end = at + text.size();
  char32_t c = next_char(at);
  if (c == '\r') return at != end && *at == '\n' ? 2 : 1;
  const CharKind* last = &kind_of(c);
  // Whether an emoji and Extend* ZWJ, or a consonant and its linker, were just passed.
  bool emoji = last->grapheme_break == static_cast<uint8_t>(Break::kPictograph), joiner = false;
  bool consonant = last->conjunct == static_cast<uint8_t>(Conjunct::kConsonant), linker = false;
  const auto hangul = [](char32_t character, const CharKind& kind) {
    if (is_syllable(character))
      return (character - kSyllables) % kTailCount == 0 ? 'v' : 't';  // LV and LVT: as V and T
    const auto b = static_cast<Break>(kind.grapheme_break);
    return b == Break::kL ? 'L' : b == Break::kV ? 'V' : b == Break::kT ? 'T' : ' ';
  };
  while (at != end) {
    const char* const here = at;
    const char32_t next = next_char(at);
    const CharKind& kind = kind_of(next);
    const auto a = static_cast<Break>(last->grapheme_break);
    const auto b = static_cast<Break>(kind.grapheme_break);
    const char left = hangul(c, *last), right = hangul(next, kind);
    bool joins = false;
    if (a != Break::kControl && b != Break::kControl) {
      joins = (left == 'L' && (right == 'L' || right == 'V' || right == 'v' || right == 't')) ||
              ((left == 'v' || left == 'V') && (right == 'V' || right == 'T')) ||
              ((left == 't' || left == 'T') && right == 'T') || b == Break::kExtend ||
              b == Break::kZwj || b == Break::kSpacingMark || a == Break::kPrepend ||
              (linker && kind.conjunct == static_cast<uint8_t>(Conjunct::kConsonant)) ||
              (joiner && b == Break::kPictograph);
    }
    if (!joins) return static_cast<size_t>(here - text.data());
    joiner = emoji && b == Break::kZwj;
    emoji = b == Break::kPictograph || (emoji && b == Break::kExtend);
    const auto conjunct = static_cast<Conjunct>(kind.conjunct);
    linker = (consonant && conjunct == Conjunct::kLinker) ||
             (linker && (conjunct == Conjunct::kLinker || conjunct == Conjunct::kExtend));
    consonant = conjunct == Conjunct::kConsonant ||
                (consonant && (conjunct == Conjunct::kLinker || conjunct == Conjunct::kExtend));
    c = next, last = &kind;
  }
  return text.size();
}

}  // namespace trine::text
