// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"
#include "text/model.h"
#include "text/trie.h"

namespace trine::text {
namespace {

// How much worse than the worst token an unknown character is.
constexpr double kUnknownPenalty = 10;

// SentencePiece's unigrams: the tokens whose scores have the greatest sum.
class Unigram final : public TokenModel {
 public:
  explicit Unigram(const ModelFields& fields)
      : texts_(fields.texts), pieces_(fields.vocab), byte_fallback_(fields.flag("byte_fallback")) {
    if (!fields.vocab_is_list) throw ModelError("vocab is no list of tokens with scores");
    if (const Json* id = fields.find("unk_id")) {
      if (id->as_uint() >= pieces_.size())
        throw ModelError(
            cat("unk_id is ", id->as_uint(), ", there are ", pieces_.size(), " tokens"));
      unknown_ = static_cast<int32_t>(id->as_uint());
    }
    std::vector<Trie::Entry> entries;
    entries.reserve(pieces_.size());
    double least = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < pieces_.size(); ++i) {
      least = std::min(least, pieces_[i].number);
      if (pieces_[i].size > 0) entries.push_back({at(i), static_cast<int32_t>(i)});
    }
    unknown_score_ = least - kUnknownPenalty;
    trie_ = Trie(std::move(entries));
    constexpr std::string_view kHex = "0123456789ABCDEF";
    for (size_t b = 0; b < 256; ++b) {
      const char token[] = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
      bytes_[b] = trie_.find({token, sizeof token});
    }
  }

  int32_t find(std::string_view token) const override { return trie_.find(token); }
  bool text(int32_t id, std::string_view& out) const override {
    if (id < 0 || static_cast<size_t>(id) >= pieces_.size()) return false;
    out = at(static_cast<size_t>(id));
    return true;
  }
  size_t size() const override { return pieces_.size(); }

  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const override {
    auto& best = scratch.best;
    best.assign(word.size() + 1, {0, -1, 0});
    for (size_t start = 0; start < word.size();) {
      const double here = best[start].score;
      const size_t size = char_length(word[start]);
      bool single = false;
      const auto offer = [&](size_t length, double score, int32_t id) {
        Scratch::Best& target = best[start + length];
        if (target.start >= 0 && !(score > target.score)) return;
        target = {score, static_cast<int32_t>(start), id};
      };
      trie_.prefixes(word.substr(start), [&](size_t length, int32_t id) {
        offer(length, pieces_[static_cast<size_t>(id)].number + here, id);
        single = single || length == size;
      });
      if (!single) {
        if (unknown_ == kNone)
          throw InputError("a character is unknown, and the vocabulary has no token for that");
        offer(size, unknown_score_ + here, unknown_);
      }
      start += size;
    }
    collect(word, scratch, out);
  }

 private:
  std::string_view at(size_t i) const {
    return std::string_view(texts_).substr(pieces_[i].begin, pieces_[i].size);
  }

  // From the end; unknown characters side by side are one.
  void collect(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const {
    const auto& best = scratch.best;
    auto& ids = scratch.ids;
    ids.clear();
    size_t unknown_end = 0;  // of the unknown stretch that is being passed, 0 for none
    for (size_t end = word.size(); end > 0;) {
      const auto& [score, start, id] = best[end];
      const auto begin = static_cast<size_t>(start);
      if (id == unknown_) {
        if (unknown_end == 0) unknown_end = end;
      } else {
        if (unknown_end > 0) unknown(word.substr(end, unknown_end - end), ids);
        unknown_end = 0;
        ids.push_back(id);
      }
      end = begin;
    }
    if (unknown_end > 0) unknown(word.substr(0, unknown_end), ids);
    out.insert(out.end(), ids.rbegin(), ids.rend());
  }

  // Adds what stands for an unknown stretch, backwards. It may be spelled like a token.
  void unknown(std::string_view stretch, std::vector<int32_t>& ids) const {
    int32_t id = trie_.find(stretch);
    if (id == kNone && byte_fallback_ && std::all_of(stretch.begin(), stretch.end(), [&](char c) {
          return bytes_[static_cast<uint8_t>(c)] != kNone;
        })) {
      for (size_t i = stretch.size(); i > 0; --i)
        ids.push_back(bytes_[static_cast<uint8_t>(stretch[i - 1])]);
      return;
    }
    ids.push_back(id == kNone ? unknown_ : id);
  }

  std::string texts_;
  std::vector<ModelFields::Item> pieces_;
  bool byte_fallback_;
  int32_t unknown_ = kNone;
  double unknown_score_ = 0;
  Trie trie_;
  int32_t bytes_[256];
};

}  // namespace

std::unique_ptr<const TokenModel> make_unigram(const ModelFields& fields) {
  return std::make_unique<Unigram>(fields);
}

}  // namespace trine::text
