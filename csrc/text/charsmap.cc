// SPDX-License-Identifier: Apache-2.0
#include "text/charsmap.h"

#include <cstring>
#include <utility>

#include "base/error.h"
#include "text/unicode.h"

namespace trine::text {
namespace {

[[noreturn]] void fail(std::string_view what) {
  throw ModelError(cat("precompiled_charsmap ", what));
}

std::string from_base64(std::string_view text) {
  const auto digit = [](char c) -> int {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
  };
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string out;
  out.reserve(text.size() / 4 * 3 + 3);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int value = digit(c);
    if (value < 0) fail("is not base64");
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(bits >> count & 0xFF);
  }
  return out;
}

// A double array over the bytes of what is replaced (darts-clone's format), then the replacements,
// each ended by a zero byte.
class Precompiled final : public Normalizer {
 public:
  explicit Precompiled(std::string_view base64) {
    const std::string data = from_base64(base64);
    uint32_t size = 0;
    if (data.size() >= 4) std::memcpy(&size, data.data(), 4);
    if (data.size() < 4 || size % 1024 != 0 || size < 1024 || size > data.size() - 4)
      fail(cat("has a table of ", size, " bytes, ", data.size(), " are there"));
    units_.resize(size / 4);
    std::memcpy(units_.data(), data.data() + 4, size);
    texts_ = data.substr(4 + size);
    if (!is_utf8(texts_)) fail("has replacements that are not UTF-8");
    // A unit is entered by the byte that it is labelled with, the first one without any.
    for (size_t i = 0; i < units_.size(); ++i) {
      const uint32_t unit = units_[i], label = unit & 0x800000FF;
      if (i != 0 && (label == 0 || label > 255)) continue;
      const size_t state = i ^ step(unit);
      if (state >= units_.size()) fail("has a step that leads out of it");
      if (!is_end(unit)) continue;
      const size_t value = units_[state] & 0x7FFFFFFF;
      if (value >= texts_.size() || is_tail(texts_[value]))
        fail("has a replacement that lies outside");
    }
  }

  void run(Buffer& buffer, Buffer& spare) const override {
    std::string& out = spare.text;
    out.clear();
    changes_t changes;
    changes_t* const noted = buffer.front > 0 ? &changes : nullptr;
    std::string_view left = buffer.text;
    while (!left.empty()) {
      // One byte between others of ASCII is a grapheme; line ends are not.
      const bool plain = left[0] != '\r' && static_cast<int8_t>(left[0]) >= 0 &&
                         (left.size() == 1 || static_cast<int8_t>(left[1]) >= 0);
      std::string_view grapheme = left.substr(0, plain ? 1 : grapheme_length(left));
      left.remove_prefix(grapheme.size());
      if (grapheme.size() < 6 && replace(grapheme, out, noted)) continue;
      while (!grapheme.empty()) {
        const std::string_view one = grapheme.substr(0, char_length(grapheme[0]));
        grapheme.remove_prefix(one.size());
        if (replace(one, out, noted)) continue;
        out += one;
        if (noted != nullptr) noted->push_back({one.size(), 0});
      }
    }
    spare.front = noted == nullptr ? 0 : aligned_front(buffer, changes);
    std::swap(buffer, spare);
  }

 private:
  // Bytes of a character that came out, and how many it adds to (1) or takes away from (-N) those
  // before: the library's way to align texts.
  using changes_t = std::vector<std::pair<size_t, int64_t>>;

  static size_t step(uint32_t unit) noexcept {
    return static_cast<size_t>(unit >> 10) << ((unit & 512) >> 6);
  }
  static bool is_end(uint32_t unit) noexcept { return (unit >> 8 & 1) != 0; }

  // What the shortest beginning that is in the table becomes, the library takes for the whole.
  bool replace(std::string_view source, std::string& out, changes_t* changes) const {
    size_t at = step(units_[0]);
    for (const char c : source) {
      const auto byte = static_cast<uint8_t>(c);
      if (byte == 0) return false;
      at ^= byte;
      const uint32_t unit = units_[at];
      if ((unit & 0x800000FF) != byte) return false;
      at ^= step(unit);
      if (!is_end(unit)) continue;
      const std::string_view text = texts_.c_str() + (units_[at] & 0x7FFFFFFF);
      out += text;
      if (changes != nullptr) note(source, text, *changes);
      return true;
    }
    return false;
  }

  static void note(std::string_view source, std::string_view text, changes_t& changes) {
    const auto count = [](std::string_view s) {
      int64_t n = 0;
      for (const char c : s) n += is_tail(c) ? 0 : 1;
      return n;
    };
    const int64_t more = count(text) - count(source);
    for (size_t i = 0; i < text.size(); i += char_length(text[i]))
      changes.push_back({char_length(text[i]), 0});
    for (int64_t i = 0; i < more; ++i)
      changes[changes.size() - 1 - static_cast<size_t>(i)].second = 1;
    if (more < 0 && !changes.empty()) changes.back().second += more;
  }

  // How many bytes of what came out the library takes for the text's first character.
  static size_t aligned_front(const Buffer& from, const changes_t& changes) {
    size_t at = 0, front = 0;
    const auto skip = [&](int64_t characters) {
      for (; characters > 0 && at < from.text.size(); --characters)
        at += char_length(from.text[at]);
    };
    for (const auto& [bytes, change] : changes) {
      const bool first = change > 0 ? at < 1 || at - 1 < from.front : at < from.front;
      if (!first) break;
      front += bytes;
      if (change <= 0) skip(1 - change);
    }
    return front;
  }

  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace

std::unique_ptr<const Normalizer> make_precompiled(std::string_view charsmap) {
  return std::make_unique<Precompiled>(charsmap);
}

}  // namespace trine::text
