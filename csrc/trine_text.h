// SPDX-License-Identifier: Apache-2.0
// Part of trine.h: errors, batches of token ids, and the tokenizers that make them of texts.
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trine_c.h"

namespace trine {

// Of the library, "0.1.0".
inline std::string version() { return trine_version(); }

class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A file that is broken or of another version: the text names it and says what to do.
class ModelError : public Error {
  using Error::Error;
};
// What the caller passed cannot be run: an id out of range, a sequence too long, an unknown output.
class InputError : public Error {
  using Error::Error;
};
// The device is missing, lacks something or failed.
class DeviceError : public Error {
  using Error::Error;
};

namespace detail {

inline void check(trine_error* error) {
  if (error == nullptr) return;
  const int32_t kind = trine_error_kind(error);
  const std::string text = trine_error_text(error);
  trine_error_free(error);
  if (kind == TRINE_MODEL_ERROR) throw ModelError(text);
  if (kind == TRINE_INPUT_ERROR) throw InputError(text);
  if (kind == TRINE_DEVICE_ERROR) throw DeviceError(text);
  throw Error(text);
}

}  // namespace detail

// Sequences laid end to end: sequence b is ids[offsets[b]] .. ids[offsets[b + 1] - 1]. No padding.
// A value; for one thread at a time.
class Batch {
 public:
  // token_types: empty, or one per id. prompt_length: how many of the first tokens belong to a
  // prompt that pooling leaves out when the model's pooling says so.
  void add(std::span<const int32_t> ids, std::span<const int32_t> token_types = {},
           int32_t prompt_length = 0) {
    const bool types_so_far = token_types_.size() == ids_.size() && !ids_.empty();
    if (!token_types.empty() && token_types.size() != ids.size())
      throw InputError("sequence " + std::to_string(size()) + " has " + std::to_string(ids.size()) +
                       " ids and " + std::to_string(token_types.size()) + " token types");
    // Token types are given for all sequences or for none; the first one that has them makes the
    // earlier ones 0.
    if (!token_types.empty() || types_so_far) {
      token_types_.resize(ids_.size());
      token_types_.insert(token_types_.end(), token_types.begin(), token_types.end());
      token_types_.resize(ids_.size() + ids.size());
    }
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    offsets_.push_back(static_cast<int32_t>(ids_.size()));
    prompt_lengths_.push_back(prompt_length);
  }
  void add(std::initializer_list<int32_t> ids) { add(std::span(ids.begin(), ids.size())); }
  void clear() noexcept {
    ids_.clear();
    token_types_.clear();
    offsets_.resize(1);
    prompt_lengths_.clear();
  }

  size_t size() const noexcept { return prompt_lengths_.size(); }
  std::span<const int32_t> ids() const noexcept { return ids_; }
  std::span<const int32_t> token_types() const noexcept { return token_types_; }
  std::span<const int32_t> offsets() const noexcept { return offsets_; }
  std::span<const int32_t> prompt_lengths() const noexcept { return prompt_lengths_; }

 private:
  std::vector<int32_t> ids_;
  std::vector<int32_t> token_types_;
  std::vector<int32_t> offsets_{0};
  std::vector<int32_t> prompt_lengths_;
};

// A text or a pair of texts, which must live as long as the call that gets them. UTF-8; any other
// byte is read as U+FFFD, as Python's bytes.decode(errors="replace") does it.
class Text {
 public:
  Text(const char* text) : first_(text) {}
  Text(std::string_view text) : first_(text) {}
  Text(const std::string& text) : first_(text) {}
  Text(std::string_view first, std::string_view second) : first_(first), second_(second) {}
  template <class A, class B>
  Text(const std::pair<A, B>& pair) : first_(pair.first), second_(pair.second) {}

  trine_text get() const noexcept {
    const bool pair = second_.has_value();
    return {first_.data() == nullptr ? "" : first_.data(), first_.size(),
            !pair                        ? nullptr
            : second_->data() == nullptr ? ""
                                         : second_->data(),
            pair ? second_->size() : 0};
  }

 private:
  std::string_view first_;
  std::optional<std::string_view> second_;
};

template <class Range>
concept TextRange = std::ranges::input_range<const Range> &&
                    std::convertible_to<std::ranges::range_reference_t<const Range>, Text> &&
                    !std::convertible_to<const Range&, Text>;

// Which text of a pair is cut when the two are too long.
enum class Cut : int32_t { kLongestFirst, kOnlyFirst, kOnlySecond };

struct EncodeOptions {
  int64_t max_length = 0;  // most tokens, special ones included; 0: as many as the model takes
  Cut cut = Cut::kLongestFirst;
  bool truncate = true;                    // false: InputError for a text that is too long
  bool special_tokens = true;              // false: none are put around
  std::optional<std::string> prompt = {};  // put before each single text
};

// The ids that Python's `tokenizers` gives for the same tokenizer.json. Copies are the same
// tokenizer; every method may be called from many threads at once.
class Tokenizer {
 public:
  // Of a compiled file, or of a tokenizer.json alone, which has no limit then. ModelError for one
  // that is damaged, or has something that the library doesn't know: names it.
  static Tokenizer load(const std::filesystem::path& path) {
    const std::u8string name = path.u8string();
    trine_tokenizer* tokenizer = nullptr;
    detail::check(trine_tokenizer_load(reinterpret_cast<const char*>(name.c_str()), &tokenizer));
    return Tokenizer(tokenizer);
  }

  // InputError for a text that cannot be cut as the options say, or has a character that the
  // vocabulary lacks if it has no token for that.
  std::vector<int32_t> encode(const Text& text, const EncodeOptions& options = {}) const {
    const Batch one = batch({text}, options);
    return {one.ids().begin(), one.ids().end()};
  }
  Batch batch(std::initializer_list<Text> texts, const EncodeOptions& options = {}) const {
    return batch(std::span(texts.begin(), texts.size()), options);
  }
  template <TextRange Range>
  Batch batch(const Range& texts, const EncodeOptions& options = {}) const {
    std::vector<trine_text> given;
    for (auto&& text : texts) given.push_back(Text(text).get());
    const std::string prompt = options.prompt.value_or("");
    const trine_encoding how{
        sizeof(trine_encoding), options.max_length,      static_cast<int32_t>(options.cut),
        !options.truncate,      !options.special_tokens, prompt.data(),
        prompt.size()};
    trine_tokens* made = nullptr;
    detail::check(trine_tokenizer_encode(get(), given.data(), given.size(), &how, &made));
    const std::unique_ptr<trine_tokens, void (*)(trine_tokens*)> tokens(made, trine_tokens_free);
    const trine_batch all = trine_tokens_batch(made);
    Batch out;
    for (size_t i = 0; i < all.sequences; ++i) {
      const auto from = static_cast<size_t>(all.offsets[i]);
      const size_t size = static_cast<size_t>(all.offsets[i + 1]) - from;
      const auto part = [&](const int32_t* ids) {
        return ids == nullptr ? std::span<const int32_t>() : std::span(ids + from, size);
      };
      out.add(part(all.ids), part(all.token_types),
              all.prompt_lengths == nullptr ? 0 : all.prompt_lengths[i]);
    }
    return out;
  }

  std::string decode(std::span<const int32_t> ids, bool special_tokens = false) const {
    std::string text(ids.size() * 8, 0);
    for (;;) {
      size_t bytes = 0;
      detail::check(trine_tokenizer_decode(get(), ids.data(), ids.size(), special_tokens,
                                           text.data(), text.size(), &bytes));
      const bool fits = bytes <= text.size();
      text.resize(bytes);
      if (fits) return text;
    }
  }

  std::optional<int32_t> find(std::string_view token) const {
    const int32_t id = trine_tokenizer_find(get(), token.data(), token.size());
    return id < 0 ? std::nullopt : std::optional<int32_t>(id);
  }
  // As it is in the vocabulary, with "##" or "\u2581" or the letters that stand for bytes.
  std::optional<std::string> token(int32_t id) const {
    size_t bytes = 0;
    const char* const text = trine_tokenizer_token(get(), id, &bytes);
    return text == nullptr ? std::nullopt : std::optional<std::string>(std::in_place, text, bytes);
  }
  size_t size() const { return trine_tokenizer_size(get()); }

  const trine_tokenizer* get() const noexcept { return tokenizer_.get(); }

 private:
  friend class Model;
  explicit Tokenizer(trine_tokenizer* tokenizer) : tokenizer_(tokenizer, trine_tokenizer_free) {}

  std::shared_ptr<trine_tokenizer> tokenizer_;
};

// The text of one sequence of tokens as they come: never half a character. For one thread at a
// time.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer) {
    trine_text_stream* stream = nullptr;
    detail::check(trine_text_stream_new(tokenizer.get(), &stream));
    stream_.reset(stream);
  }
  // The text that is certain now; special tokens have none.
  std::string push(int32_t token) {
    const char* text = nullptr;
    size_t bytes = 0;
    detail::check(trine_text_stream_push(stream_.get(), token, &text, &bytes));
    return {text, bytes};
  }
  // What was held back: there are no more tokens.
  std::string flush() {
    const char* text = nullptr;
    size_t bytes = 0;
    detail::check(trine_text_stream_flush(stream_.get(), &text, &bytes));
    return {text, bytes};
  }

 private:
  std::unique_ptr<trine_text_stream, void (*)(trine_text_stream*)> stream_{nullptr,
                                                                           trine_text_stream_free};
};

}  // namespace trine
