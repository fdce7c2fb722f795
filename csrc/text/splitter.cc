// SPDX-License-Identifier: Apache-2.0
#include "text/splitter.h"

#include <utility>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace trine::text {
namespace {

// GPT-2's expression, which ByteLevel brings along.
constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// What becomes of the places where a text is cut.
enum class Behavior : uint8_t { kRemoved, kIsolated, kContiguous, kWithPrevious, kWithNext };

Behavior behavior_of(const std::string& name) {
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Contiguous") return Behavior::kContiguous;
  if (name == "MergedWithPrevious") return Behavior::kWithPrevious;
  if (name == "MergedWithNext") return Behavior::kWithNext;
  throw ModelError(cat("behavior ", quoted(name), " is not known"));
}

// Stretches of a text, one behind the other, that are a delimiter or lie between two.
struct Stretch {
  size_t begin, end;
  bool delimiter;
};

void keep(const Piece& piece, std::vector<Stretch>& all, Behavior behavior,
          std::vector<Piece>& out) {
  const auto put = [&](size_t begin, size_t end) {
    if (begin < end) out.push_back(piece.part(begin, end));
  };
  switch (behavior) {
    case Behavior::kRemoved:
      for (const Stretch& s : all) {
        if (!s.delimiter) put(s.begin, s.end);
      }
      break;
    case Behavior::kIsolated:
      for (const Stretch& s : all) put(s.begin, s.end);
      break;
    case Behavior::kContiguous:
      for (size_t i = 0; i < all.size();) {
        const size_t start = i;
        while (i < all.size() && all[i].delimiter == all[start].delimiter) ++i;
        put(all[start].begin, all[i - 1].end);
      }
      break;
    case Behavior::kWithPrevious:
      for (size_t i = 0; i < all.size(); ++i) {
        const bool takes = !all[i].delimiter && i + 1 < all.size() && all[i + 1].delimiter;
        put(all[i].begin, all[i + takes].end);
        i += takes;
      }
      break;
    case Behavior::kWithNext:
      for (size_t i = 0; i < all.size(); ++i) {
        const bool takes = all[i].delimiter && i + 1 < all.size() && !all[i + 1].delimiter;
        put(all[i].begin, all[i + takes].end);
        i += takes;
      }
      break;
  }
}

// A splitter that leaves the text as it is: Cut::cut(text, stretches) covers the text.
template <class Cut>
class CutSplitter final : public Splitter {
 public:
  CutSplitter(Cut cut, Behavior behavior) : cut_(std::move(cut)), behavior_(behavior) {}
  void run(Pieces& pieces, Pieces& spare) const override {
    spare.all.clear();
    std::vector<Stretch> stretches;
    for (const Piece& piece : pieces.all) {
      if (piece.token != Piece::kWord) {
        spare.all.push_back(piece);
        continue;
      }
      stretches.clear();
      cut_.cut(pieces.of(piece), stretches);
      keep(piece, stretches, behavior_, spare.all);
    }
    std::swap(pieces.all, spare.all);
  }

 private:
  Cut cut_;
  Behavior behavior_;
};

// Each character with one of the flags is a delimiter.
struct AtCharacters {
  unsigned flags;

  void cut(std::string_view text, std::vector<Stretch>& out) const {
    const char* const start = text.data();
    const char* const end = start + text.size();
    size_t done = 0;
    for (const char* at = start; at != end;) {
      const auto here = static_cast<size_t>(at - start);
      if (!has(next_char(at), flags)) continue;
      if (done < here) out.push_back({done, here, false});
      done = static_cast<size_t>(at - start);
      out.push_back({here, done, true});
    }
    if (done < text.size()) out.push_back({done, text.size(), false});
  }
};

struct AtMatches {
  Pattern pattern;
  bool invert;

  void cut(std::string_view text, std::vector<Stretch>& out) const {
    size_t done = 0;
    for (Pattern::Match match{}; done < text.size() && pattern.find(text, done, match);) {
      if (done < match.begin) out.push_back({done, match.begin, invert});
      out.push_back({match.begin, match.end, !invert});
      done = match.end;
    }
    if (done < text.size()) out.push_back({done, text.size(), invert});
  }
};

// \w+|[^\w\s]+, with white space between.
struct Words {
  void cut(std::string_view text, std::vector<Stretch>& out) const {
    const auto type = [](char32_t c) { return has(c, kWord) ? 1 : has(c, kSpace) ? 0 : 2; };
    const char* const start = text.data();
    const char* const end = start + text.size();
    for (const char* at = start; at != end;) {
      const auto begin = static_cast<size_t>(at - start);
      const int first = type(next_char(at));
      for (const char* next = at; at != end; at = next) {
        if (type(next_char(next)) != first) break;
      }
      out.push_back({begin, static_cast<size_t>(at - start), first == 0});
    }
  }
};

// Words between white space, punctuation apart.
struct BertWords {
  void cut(std::string_view text, std::vector<Stretch>& out) const {
    const char* const start = text.data();
    const char* const end = start + text.size();
    size_t done = 0;
    for (const char* at = start; at != end;) {
      const auto here = static_cast<size_t>(at - start);
      const unsigned flags = kind_of(next_char(at)).flags & (kSpace | kPunctuation);
      if (flags == 0) continue;
      if (done < here) out.push_back({done, here, false});
      done = static_cast<size_t>(at - start);
      if ((flags & kSpace) == 0) out.push_back({here, done, false});
    }
    if (done < text.size()) out.push_back({done, text.size(), false});
  }
};

// A splitter that writes the text anew: calls write(piece) for each that is no token yet.
template <class Write>
void rewrite(Pieces& pieces, Pieces& spare, const Write& write) {
  spare.clear();
  for (const Piece& piece : pieces.all) {
    const auto begin = static_cast<uint32_t>(spare.text.size());
    if (piece.token == Piece::kWord) {
      write(piece, pieces.of(piece));
    } else {
      spare.all.push_back({begin, begin, piece.token, 0});
    }
  }
  std::swap(pieces, spare);
}

class Metaspace final : public Splitter {
 public:
  explicit Metaspace(const Json& json) : character_(json.at("replacement").as_string()) {
    const char* at = character_.data();
    if (character_.empty() || (next_char(at), at != character_.data() + character_.size()))
      throw ModelError("the replacement of Metaspace is no character");
    if (const Json* split = json.find("split"); split != nullptr && !split->is_null())
      split_ = split->as_bool();
    const Json* scheme = json.find("prepend_scheme");
    const std::string name = scheme == nullptr ? "always" : scheme->as_string();
    const Json* prefix = json.find("add_prefix_space");
    const bool never = prefix != nullptr && !prefix->is_null() && !prefix->as_bool();
    if (name != "always" && name != "first" && name != "never")
      throw ModelError(cat("prepend_scheme ", quoted(name), " is not known"));
    if (never && name != "never")
      throw ModelError("add_prefix_space does not match the prepend_scheme");
    always_ = name == "always";
    first_ = name == "first";
  }

  void run(Pieces& pieces, Pieces& spare) const override {
    rewrite(pieces, spare, [&](const Piece& piece, std::string_view text) {
      std::string& out = spare.text;
      Piece written{static_cast<uint32_t>(out.size()), 0, Piece::kWord, 0};
      const bool there = text.starts_with(' ') || text.starts_with(character_);
      if (!there && (always_ || (first_ && piece.front > 0))) out += character_;
      size_t front = 0;
      for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == ' ') {
          out += character_;
        } else {
          out += text[i];
        }
        if (i < piece.front) front = out.size() - written.begin;
      }
      written.front = static_cast<uint32_t>(front);
      written.end = static_cast<uint32_t>(out.size());
      if (!split_) {
        spare.all.push_back(written);
        return;
      }
      const std::string_view all = std::string_view(out).substr(written.begin);
      for (size_t begin = 0; begin < all.size();) {
        const size_t end = std::min(all.find(character_, begin + 1), all.size());
        spare.all.push_back(written.part(begin, end));
        begin = end;
      }
    });
  }

 private:
  std::string character_;
  bool split_ = true, always_ = false, first_ = false;
};

class ByteLevel final : public Splitter {
 public:
  explicit ByteLevel(const Json& json) : prefix_(json.at("add_prefix_space").as_bool()) {
    const Json* use = json.find("use_regex");
    if (use != nullptr && !use->as_bool()) return;
    JsonObject pattern;
    pattern.set("Regex", Json(kGpt2));
    splitter_ = std::make_unique<CutSplitter<AtMatches>>(AtMatches{Pattern(pattern), false},
                                                         Behavior::kIsolated);
  }

  void run(Pieces& pieces, Pieces& spare) const override {
    if (prefix_) {
      rewrite(pieces, spare, [&](const Piece& piece, std::string_view text) {
        const auto begin = static_cast<uint32_t>(spare.text.size());
        const uint32_t space = text.starts_with(' ') ? 0 : 1;
        spare.text.append(space, ' ');
        spare.text += text;
        spare.all.push_back({begin, static_cast<uint32_t>(spare.text.size()), Piece::kWord,
                             piece.front > 0 ? piece.front + space : 0});
      });
    }
    if (splitter_) splitter_->run(pieces, spare);
    rewrite(pieces, spare, [&](const Piece& piece, std::string_view text) {
      const auto begin = static_cast<uint32_t>(spare.text.size());
      uint32_t front = 0;
      for (size_t i = 0; i < text.size(); ++i) {
        append_byte_letter(spare.text, text[i]);
        if (i < piece.front) front = static_cast<uint32_t>(spare.text.size()) - begin;
      }
      spare.all.push_back({begin, static_cast<uint32_t>(spare.text.size()), Piece::kWord, front});
    });
  }

 private:
  bool prefix_;
  std::unique_ptr<const Splitter> splitter_;
};

template <class Cut>
std::unique_ptr<const Splitter> cutting(Cut cut, Behavior behavior) {
  return std::make_unique<CutSplitter<Cut>>(std::move(cut), behavior);
}

std::unique_ptr<const Splitter> make(const Json& json, const std::string& type) {
  if (type == "BertPreTokenizer") return cutting(BertWords{}, Behavior::kIsolated);
  if (type == "Whitespace") return cutting(Words{}, Behavior::kRemoved);
  if (type == "WhitespaceSplit") return cutting(AtCharacters{kSpace}, Behavior::kRemoved);
  if (type == "Metaspace") return std::make_unique<Metaspace>(json);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>(json);
  if (type == "Digits") {
    const bool alone = json.at("individual_digits").as_bool();
    return cutting(AtCharacters{kNumeric}, alone ? Behavior::kIsolated : Behavior::kContiguous);
  }
  if (type == "Punctuation") {
    const Json* behavior = json.find("behavior");
    return cutting(AtCharacters{kPunctuation},
                   behavior == nullptr ? Behavior::kIsolated : behavior_of(behavior->as_string()));
  }
  if (type == "Split") {
    return cutting(AtMatches{Pattern(json.at("pattern")), json.at("invert").as_bool()},
                   behavior_of(json.at("behavior").as_string()));
  }
  throw ModelError(cat("pre_tokenizer ", quoted(type), " is not known to the C++ tokenizer"));
}

}  // namespace

Splitters::Splitters(const Json& description) {
  if (!description.is_null()) add(description);
}

void Splitters::add(const Json& description) {
  const std::string& type = description.at("type").as_string();
  if (type == "Sequence") {
    for (const Json& one : description.at("pretokenizers").as_array()) add(one);
  } else {
    all_.push_back(make(description, type));
  }
}

}  // namespace trine::text
