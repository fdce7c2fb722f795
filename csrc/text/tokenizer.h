// SPDX-License-Identifier: Apache-2.0
// The tokenizer of a model: the ids that the `tokenizers` library gives for the same
// tokenizer.json, cut as python/trine/tokenization.py cuts them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/added.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/processor.h"
#include "text/splitter.h"

namespace trine::text {

// Which of two texts is cut.
enum class Cut : uint8_t { kLongestFirst, kOnlyFirst, kOnlySecond };

struct EncodeSettings {
  std::optional<int64_t> limit = {};  // most tokens; by default the model's
  Cut cut = Cut::kLongestFirst;
  bool truncate = true;  // false: InputError for a text that is too long
  bool special = true;   // false: without the tokens that are put around texts
};

struct Encoded {
  std::vector<int32_t> ids = {};
  std::vector<int32_t> types = {};
  size_t cut = 0;             // tokens taken away
  bool ends_special = false;  // the last token was put around the text
};

// Immutable, and safe to use from many threads.
class Tokenizer {
 public:
  // `json`: tokenizer.json. `settings`: what Python keeps beside it ("trine.tokenizer"), or empty.
  // ModelError for what is damaged, incomplete or not known, named in `source`.
  Tokenizer(std::string_view json, std::string_view settings, const std::string& source);

  // Texts need not be UTF-8: what isn't is read as U+FFFD. InputError when the part that may be cut
  // is too short, and for a character that the vocabulary lacks if it has no unknown token.
  void encode(std::string_view first, const std::string_view* second, const EncodeSettings&,
              Encoded& out) const;
  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const;

  // TokenModel::kNone when there is no such token.
  int32_t find(std::string_view token) const;
  // As it is in the vocabulary; false when no token has the id.
  bool text(int32_t id, std::string_view& out) const;
  bool is_special(int32_t id) const { return added_.is_special(id); }
  // Whether the token is one byte of a character that the vocabulary lacks.
  bool is_byte(int32_t id) const;
  size_t size() const { return model_->size() + added_.new_ones(); }

  std::optional<int64_t> limit() const noexcept { return limit_; }
  bool has_types() const noexcept { return token_types_; }
  // Tokens of a prompt at the front of a text, as Python counts them.
  size_t prompt_length(std::string_view prompt, std::optional<int64_t> limit) const;

 private:
  struct Room;
  void read(std::string_view json, const std::string& source);
  void read_settings(std::string_view settings, const std::string& source);
  void part(std::string_view text, Room& room, std::vector<int32_t>& out) const;

  std::unique_ptr<const TokenModel> model_;
  Normalizers normalizers_;
  Splitters splitters_;
  Processor processor_;
  Decoders decoders_;
  AddedTokens added_;
  std::optional<int64_t> limit_;
  bool token_types_ = false, cuts_left_ = false;
};

// The text of one sequence of tokens as they come. The pieces, joined, are what decode makes of all
// at once; bytes are held back until they are whole characters.
class TextStream {
 public:
  explicit TextStream(std::shared_ptr<const Tokenizer> tokenizer)
      : tokenizer_(std::move(tokenizer)) {}
  // The text that is certain now.
  std::string push(int32_t token);
  // What was held back: there are no more tokens.
  std::string flush() { return show(true); }

 private:
  std::string show(bool last);

  std::shared_ptr<const Tokenizer> tokenizer_;
  // The first `shown_` are on display and decoded again as context: spaces depend on it.
  std::vector<int32_t> tokens_;
  size_t shown_ = 0;
};

}  // namespace trine::text
