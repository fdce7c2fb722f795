// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <atomic>
#include <optional>

#include "base/error.h"
#include "base/utf8.h"
#include "text/vocabulary_model.h"

namespace trine::text {
namespace {

std::string byte_token(char byte) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  const auto b = static_cast<uint8_t>(byte);
  return {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
}

// Merges by their pair of tokens.
class MergeTable {
 public:
  struct Merge {
    uint64_t pair = kEmpty;
    uint32_t rank = 0;
    int32_t id = 0;
  };

  explicit MergeTable(size_t count) {
    size_t size = 16;
    while (size < count + count / 2) size *= 2;
    slots_.resize(size);
  }
  void set(int32_t left, int32_t right, uint32_t rank, int32_t id) {
    slots_[place(key(left, right))] = {key(left, right), rank, id};
  }
  const Merge* find(int32_t left, int32_t right) const noexcept {
    const Merge& found = slots_[place(key(left, right))];
    return found.pair == kEmpty ? nullptr : &found;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t key(int32_t left, int32_t right) noexcept {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  // Of the pair, or of the free slot where it belongs.
  size_t place(uint64_t key) const noexcept {
    const size_t mask = slots_.size() - 1;
    size_t at = hash_of(key) & mask;
    while (slots_[at].pair != key && slots_[at].pair != kEmpty) at = (at + 1) & mask;
    return at;
  }

  std::vector<Merge> slots_;
};

class Bpe final : public VocabularyModel {
 public:
  explicit Bpe(const ModelFields& fields)
      : VocabularyModel(fields),
        merges_(fields.merges.size() / 2),
        unknown_text_(fields.text("unk_token")),
        has_unknown_(fields.find("unk_token") != nullptr),
        unknown_(has_unknown_ ? find(unknown_text_) : kNone),
        prefix_(fields.text("continuing_subword_prefix")),
        suffix_(fields.text("end_of_word_suffix")),
        fuse_(fields.flag("fuse_unk")),
        byte_fallback_(fields.flag("byte_fallback")),
        whole_words_(fields.flag("ignore_merges")) {
    if (const Json* dropout = fields.find("dropout");
        dropout != nullptr && dropout->as_double() != 0)
      throw ModelError("BPE's dropout is not known to the C++ tokenizer");
    read_merges(fields);
    for (int i = 0; i < 256; ++i) bytes_[i] = find(byte_token(static_cast<char>(i)));
    letters_.fill(kNone);
    for (char32_t c = 0; c < kLetters; ++c) {
      std::string text;
      append_utf8(text, c);
      letters_[c] = find(text);
    }
    itself_ = std::vector<std::atomic<uint8_t>>(static_cast<size_t>(vocabulary_.end()));
  }

  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const override {
    const int32_t whole = find(word);
    if (whole != kNone && whole_words_) return out.push_back(whole);
    std::atomic<uint8_t>* const itself =
        whole == kNone ? nullptr : &itself_[static_cast<size_t>(whole)];
    if (itself != nullptr && itself->load(std::memory_order_relaxed) == kItself)
      return out.push_back(whole);
    split(word, scratch);
    if (scratch.symbols.size() <= kFew) {
      merge_few(scratch.symbols);
    } else {
      merge_many(scratch);
    }
    const size_t before = out.size();
    for (const Scratch::Symbol& symbol : scratch.symbols) {
      if (symbol.bytes > 0) out.push_back(symbol.id);
    }
    if (itself != nullptr && out.size() == before + 1 && out.back() == whole)
      itself->store(kItself, std::memory_order_relaxed);
  }

 private:
  static constexpr char32_t kLetters = 0x180;
  static constexpr size_t kFew = 40;
  static constexpr uint8_t kItself = 1;  // the word's tokens are the one that it is spelled like

  void read_merges(const ModelFields& fields) {
    std::string joined;
    for (size_t i = 0; i + 1 < fields.merges.size(); i += 2) {
      const std::string_view left = fields.at(fields.merges[i]);
      const std::string_view right = fields.at(fields.merges[i + 1]);
      const int32_t a = find(left), b = find(right);
      joined = left;
      if (right.size() < prefix_.size())
        throw ModelError(cat("merge ", i / 2, ", of ", quoted(right), ", lacks the prefix"));
      joined += right.substr(prefix_.size());
      const int32_t id = find(joined);
      if (a == kNone || b == kNone || id == kNone) {
        const std::string_view which = a == kNone ? left : b == kNone ? right : joined;
        throw ModelError(cat("merge ", i / 2, ": the vocabulary has no ", quoted(which)));
      }
      merges_.set(a, b, static_cast<uint32_t>(i / 2), id);
    }
  }

  // One symbol for each character, or for its bytes.
  void split(std::string_view word, Scratch& scratch) const {
    auto& symbols = scratch.symbols;
    symbols.clear();
    uint32_t unknown_bytes = 0;
    const auto add = [&](int32_t id, uint32_t bytes) {
      const auto at = static_cast<int32_t>(symbols.size());
      symbols.push_back({id, at - 1, at + 1, bytes});
    };
    const auto flush = [&] {
      if (unknown_bytes > 0) add(unknown_, unknown_bytes);
      unknown_bytes = 0;
    };
    for (size_t i = 0; i < word.size();) {
      const auto size = static_cast<uint32_t>(char_length(word[i]));
      const std::string_view one = word.substr(i, size);
      const bool first = i == 0;
      i += size;
      const bool last = i == word.size();
      const int32_t id = symbol(one, first, last, scratch.text);
      if (id != kNone) {
        flush();
        add(id, size);
        continue;
      }
      if (byte_fallback_ && add_bytes(scratch.text, add)) continue;
      if (!has_unknown_) continue;
      if (unknown_ == kNone)
        throw InputError(cat("a character is unknown, and the vocabulary has no token ",
                             quoted(unknown_text_), " for that"));
      if (!fuse_) flush();
      unknown_bytes += size;
    }
    flush();
    if (!symbols.empty()) symbols.back().next = -1;
  }

  // `text` becomes what was looked for, where it isn't found.
  int32_t symbol(std::string_view one, bool first, bool last, std::string& text) const {
    const bool bare = (first || prefix_.empty()) && (!last || suffix_.empty());
    if (bare && one.size() <= 2) {
      const char* at = one.data();
      const char32_t c = next_char(at);
      if (c < kLetters && letters_[c] != kNone) return letters_[c];
    }
    text.clear();
    if (!first) text += prefix_;
    text += one;
    if (last) text += suffix_;
    return find(text);
  }

  template <class Add>
  bool add_bytes(std::string_view text, const Add& add) const {
    for (const char byte : text) {
      if (bytes_[static_cast<uint8_t>(byte)] == kNone) return false;
    }
    for (const char byte : text) add(bytes_[static_cast<uint8_t>(byte)], 1);
    return true;
  }

  // The merge of the least rank, the leftmost of those, until there is none. In a short word
  // looking at all of them is faster than a queue.
  void merge_few(std::vector<Scratch::Symbol>& symbols) const {
    size_t count = symbols.size();
    std::array<const MergeTable::Merge*, kFew> merges;
    const auto look = [&](size_t i) {
      merges[i] = i + 1 < count ? merges_.find(symbols[i].id, symbols[i + 1].id) : nullptr;
    };
    for (size_t i = 0; i < count; ++i) look(i);
    for (;;) {
      size_t best = kFew;
      for (size_t i = 0; i + 1 < count; ++i) {
        if (merges[i] != nullptr && (best == kFew || merges[i]->rank < merges[best]->rank))
          best = i;
      }
      if (best == kFew) break;
      symbols[best].id = merges[best]->id;
      symbols[best].bytes += symbols[best + 1].bytes;
      --count;
      for (size_t i = best + 1; i < count; ++i) {
        symbols[i] = symbols[i + 1];
        merges[i] = merges[i + 1];
      }
      look(best);
      if (best > 0) look(best - 1);
    }
    symbols.resize(count);
  }

  void merge_many(Scratch& scratch) const {
    auto& symbols = scratch.symbols;
    auto& queue = scratch.merges;
    const auto later = [](const Scratch::Merge& a, const Scratch::Merge& b) {
      return a.rank != b.rank ? a.rank > b.rank : a.place > b.place;
    };
    const auto push = [&](int32_t left, int32_t right) {
      const auto* merge = merges_.find(symbols[left].id, symbols[right].id);
      if (merge == nullptr) return;
      queue.push_back({merge->rank, static_cast<uint32_t>(left), merge->id});
      std::push_heap(queue.begin(), queue.end(), later);
    };
    queue.clear();
    for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i) push(i, i + 1);
    while (!queue.empty()) {
      const Scratch::Merge top = queue.front();
      std::pop_heap(queue.begin(), queue.end(), later);
      queue.pop_back();
      Scratch::Symbol& left = symbols[top.place];
      if (left.bytes == 0 || left.next == -1) continue;
      Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
      // What stood here when it was queued may be merged with others by now.
      const auto* merge = merges_.find(left.id, right.id);
      if (merge == nullptr || merge->id != top.id) continue;
      left.id = top.id;
      left.bytes += right.bytes;
      right.bytes = 0;
      left.next = right.next;
      if (left.next != -1)
        symbols[static_cast<size_t>(left.next)].previous = static_cast<int32_t>(top.place);
      if (left.previous != -1) push(left.previous, static_cast<int32_t>(top.place));
      if (left.next != -1) push(static_cast<int32_t>(top.place), left.next);
    }
  }

  MergeTable merges_;
  std::string unknown_text_;
  bool has_unknown_;
  int32_t unknown_;
  std::string prefix_, suffix_;
  bool fuse_, byte_fallback_, whole_words_;
  std::array<int32_t, 256> bytes_;
  std::array<int32_t, kLetters> letters_;
  // Found out at a word's first use, by whichever thread comes first: all find the same.
  mutable std::vector<std::atomic<uint8_t>> itself_;
};

}  // namespace

std::unique_ptr<const TokenModel> make_bpe(const ModelFields& fields) {
  return std::make_unique<Bpe>(fields);
}

}  // namespace trine::text
