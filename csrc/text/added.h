// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/json.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/trie.h"

namespace trine::text {

// Tokens that are found in a text as they are, before it is normalised or after. Safe to use from
// many threads.
class AddedTokens {
 public:
  AddedTokens() = default;
  // Of tokenizer.json's "added_tokens"; ModelError for ids that contradict the model's.
  AddedTokens(const Json& list, const TokenModel& model, const Normalizers& normalizers);

  // The text as pieces: tokens, and what is normalised and still to be split.
  void split(std::string_view text, const Normalizers& normalizers, Pieces& out) const;

  int32_t find(std::string_view content) const;
  // What decoders are given for a token. False when it is none of these.
  bool text(int32_t id, std::string_view& out) const;
  bool is_special(int32_t id) const;
  // Whether decoding leaves a token of this text out.
  bool hides(std::string_view text) const { return hidden_.contains(std::string(text)); }
  int32_t end() const noexcept { return end_; }
  // Of those that the model doesn't have.
  size_t new_ones() const noexcept { return new_; }

 private:
  struct Token {
    int32_t id = 0;
    std::string content = {}, normal = {};
    bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
  };
  // Calls token(index, begin, end) and text(begin, end) in the order of the text.
  template <class OnToken, class OnText>
  void find_all(std::string_view text, const Trie& trie, const OnToken& token,
                const OnText& other) const;

  std::vector<Token> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string, int32_t> by_content_;
  std::unordered_set<std::string> hidden_;
  Trie raw_, normal_;  // in texts before they are normalised, and after
  int32_t end_ = 0;
  size_t new_ = 0;
};

}  // namespace trine::text
