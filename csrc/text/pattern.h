// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace trine::text {

// A regular expression of the kind that tokenizers are split with, or a plain text. It is matched
// by trying, as Oniguruma does it: the first alternative that fits, as many repetitions as fit.
//
// There are literals, classes, \s \w \p{L} \p{N} \p{P} and their opposites, groups (?:...),
// (?i:...), lookaheads, and repetitions of single characters. Whatever else an expression has, and
// one that fits an empty text, is a ModelError: nothing is matched approximately.
class Pattern {
 public:
  // {"Regex": "..."} or {"String": "..."}
  explicit Pattern(const Json& description);

  struct Match {
    size_t begin, end;
  };
  // The first match at `from` or behind it; false if there is none. InputError when an expression
  // with many repetitions takes too long to try.
  bool find(std::string_view text, size_t from, Match& match) const;

 private:
  friend class PatternParser;
  struct CharSet {
    bool holds(char32_t c) const noexcept;
    void add(char32_t c) noexcept;

    std::bitset<128> ascii;  // negation included, once the set is finished
    std::vector<std::pair<char32_t, char32_t>> ranges;
    unsigned flags = 0;                   // characters that have one of them
    std::vector<unsigned> lacking;        // characters that lack one
    bool negated = false, above = false;  // above: whether anything but ASCII can be in it
  };
  enum class Kind : uint8_t { kSet, kGroup, kAhead, kNotAhead };
  struct Item;
  using Sequence = std::vector<Item>;
  struct Item {
    Kind kind = Kind::kSet;
    uint32_t set = 0;
    uint32_t least = 1, most = 1;
    std::vector<Sequence> choices = {};
  };
  struct Rest;  // what has to follow a group
  struct Search {
    const char* limit;
    size_t tries;  // how many are left
  };

  const char* match(const Item* item, const Item* end, const char* at, Search& search,
                    const Rest* rest) const;
  const char* repeat(const Item* item, const Item* end, const char* at, Search& search,
                     const Rest* rest) const;
  void first_bytes(const Sequence&, size_t from, std::bitset<256>& out, bool& empty) const;

  std::string literal_;  // of a plain text
  std::vector<CharSet> sets_;
  std::vector<Sequence> choices_;
  std::vector<std::bitset<256>> starts_;  // bytes that each choice can begin with
  std::bitset<256> start_;
};

}  // namespace trine::text
