// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace trine::text {

// Room for one call of encode at a time, kept from word to word.
struct Scratch {
  struct Symbol {
    int32_t id;
    int32_t previous, next;
    uint32_t bytes;  // 0: merged away
  };
  struct Merge {
    uint32_t rank, place;
    int32_t id;
  };
  struct Best {  // of the ways to a place in a text
    double score;
    int32_t start, id;
  };
  std::vector<Symbol> symbols = {};
  std::vector<Merge> merges = {};
  std::vector<Best> best = {};
  std::vector<int32_t> ids = {};
  std::vector<std::string_view> parts = {};
  std::string text = {};
};

// A vocabulary and how words are made of it. Safe to use from many threads.
class TokenModel {
 public:
  static constexpr int32_t kNone = -1;

  virtual ~TokenModel() = default;
  // Adds a word's tokens. InputError for a word that needs the unknown token where there is none.
  virtual void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const = 0;
  virtual int32_t find(std::string_view token) const = 0;
  // False when no token has the id.
  virtual bool text(int32_t id, std::string_view& out) const = 0;
  virtual size_t size() const = 0;
};

// tokenizer.json's "model", read as it comes: WordPiece, WordLevel, BPE or Unigram. ModelError for
// another one, and for lists that contradict each other.
std::unique_ptr<const TokenModel> read_token_model(JsonReader& reader);

// What it is made of.
struct ModelFields {
  struct Item {
    uint32_t begin, size;
    double number;  // an id, or a score
  };
  std::string_view at(const Item& item) const {
    return std::string_view(texts).substr(item.begin, item.size);
  }
  const Json* find(std::string_view name) const;  // null where there is none, or a null
  bool flag(std::string_view name) const;         // false where there is none
  std::string text(std::string_view name) const;  // empty where there is none

  Json small;               // the fields that are no lists
  std::string texts;        // of both lists
  std::vector<Item> vocab;  // by id where it is a list
  bool vocab_is_list = false;
  std::vector<Item> merges;  // left and right in turn
};

std::unique_ptr<const TokenModel> make_word_piece(const ModelFields&);
std::unique_ptr<const TokenModel> make_word_level(const ModelFields&);
std::unique_ptr<const TokenModel> make_bpe(const ModelFields&);
std::unique_ptr<const TokenModel> make_unigram(const ModelFields&);

}  // namespace trine::text
