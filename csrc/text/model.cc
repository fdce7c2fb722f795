// SPDX-License-Identifier: Apache-2.0
#include "text/model.h"

#include "base/error.h"
#include "base/utf8.h"
#include "text/vocabulary_model.h"

namespace trine::text {

namespace {

// Reads the lists, which have nearly all of a file's bytes, without building values of them.
class FieldReader {
 public:
  explicit FieldReader(JsonReader& reader) : reader_(reader) {}

  ModelFields read() {
    JsonObject small;
    std::string key;
    for (reader_.begin_object(); reader_.next_key(key);) {
      if (key == "vocab" && reader_.peek() == JsonType::kObject) {
        tokens();
      } else if (key == "vocab") {
        pieces();
      } else if (key == "merges") {
        merges();
      } else {
        small.set(key, reader_.value());
      }
    }
    fields_.small = std::move(small);
    return std::move(fields_);
  }

 private:
  void put(std::vector<ModelFields::Item>& list, std::string_view text, double number) {
    if (fields_.texts.size() + text.size() > UINT32_MAX) reader_.fail("too many tokens");
    list.push_back(
        {static_cast<uint32_t>(fields_.texts.size()), static_cast<uint32_t>(text.size()), number});
    fields_.texts += text;
  }

  void tokens() {
    for (reader_.begin_object(); reader_.next_key(text_);) {
      const uint64_t id = reader_.unsigned_integer();
      if (id > Vocabulary::kMaxId)
        reader_.fail(cat("the id ", id, ", at most ", Vocabulary::kMaxId));
      put(fields_.vocab, text_, static_cast<double>(id));
    }
  }

  void pieces() {
    fields_.vocab_is_list = true;
    for (reader_.begin_array(); reader_.next_item();) {
      reader_.begin_array();
      if (!reader_.next_item()) reader_.fail("expected a token and its score");
      reader_.string(text_);
      if (!reader_.next_item()) reader_.fail("expected a score");
      put(fields_.vocab, text_, reader_.number().as_double());
      if (reader_.next_item()) reader_.fail("more than a token and its score");
      if (fields_.vocab.size() > Vocabulary::kMaxId) reader_.fail("too many tokens");
    }
  }

  void merges() {
    for (reader_.begin_array(); reader_.next_item();) {
      if (reader_.peek() == JsonType::kString) {  // as older files have it
        reader_.string(text_);
        if (text_.starts_with("#version")) continue;
        const size_t space = text_.find(' ');
        if (space == text_.npos || text_.find(' ', space + 1) != text_.npos)
          reader_.fail("expected two tokens and a space");
        put(fields_.merges, std::string_view(text_).substr(0, space), 0);
        put(fields_.merges, std::string_view(text_).substr(space + 1), 0);
        continue;
      }
      reader_.begin_array();
      for (int i = 0; i < 2; ++i) {
        if (!reader_.next_item()) reader_.fail("expected two tokens");
        reader_.string(text_);
        put(fields_.merges, text_, 0);
      }
      if (reader_.next_item()) reader_.fail("more than two tokens");
    }
  }

  JsonReader& reader_;
  ModelFields fields_;
  std::string text_;
};

// One token for each word.
class WordLevel final : public VocabularyModel {
 public:
  explicit WordLevel(const ModelFields& fields)
      : VocabularyModel(fields), unknown_(fields.text("unk_token")) {}
  void encode(std::string_view word, Scratch&, std::vector<int32_t>& out) const override {
    int32_t id = find(word);
    if (id == kNone) id = find(unknown_);
    if (id == kNone)
      throw InputError("a word is unknown, and the vocabulary has no token for that");
    out.push_back(id);
  }

 private:
  std::string unknown_;
};

// The longest token that a word begins with, then the longest of those that go on.
class WordPiece final : public VocabularyModel {
 public:
  explicit WordPiece(const ModelFields& fields)
      : VocabularyModel(fields),
        prefix_(fields.text("continuing_subword_prefix")),
        unknown_(find(fields.text("unk_token"))) {
    if (const Json* most = fields.find("max_input_chars_per_word")) most_ = most->as_uint();
  }

  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const override {
    size_t characters = 0;
    for (const char c : word) characters += is_tail(c) ? 0 : 1;
    if (characters > most_) return unknown(out);
    const size_t before = out.size();
    std::string& text = scratch.text;
    for (size_t start = 0; start < word.size();) {
      // Behind the first token all have a prefix, which is there once for all that are tried.
      const size_t prefix = start > 0 ? prefix_.size() : 0;
      if (start > 0) (text = prefix_) += word.substr(start);
      const std::string_view left = start > 0 ? std::string_view(text) : word;
      size_t end = std::min(left.size(), vocabulary_.longest());
      while (end > prefix && end < left.size() && is_tail(left[end])) --end;
      int32_t id = kNone;
      while (end > prefix) {
        id = find(left.substr(0, end));
        if (id != kNone) break;
        do --end;
        while (end > prefix && is_tail(left[end]));
      }
      if (id == kNone) {
        out.resize(before);
        return unknown(out);
      }
      out.push_back(id);
      start += end - prefix;
    }
  }

 private:
  void unknown(std::vector<int32_t>& out) const {
    if (unknown_ == kNone)
      throw InputError("a word is unknown, and the vocabulary has no token for that");
    out.push_back(unknown_);
  }

  std::string prefix_;
  int32_t unknown_;
  uint64_t most_ = 100;
};

}  // namespace

const Json* ModelFields::find(std::string_view name) const {
  const Json* found = small.find(name);
  return found == nullptr || found->is_null() ? nullptr : found;
}
bool ModelFields::flag(std::string_view name) const {
  const Json* found = find(name);
  return found != nullptr && found->as_bool();
}
std::string ModelFields::text(std::string_view name) const {
  const Json* found = find(name);
  return found == nullptr ? "" : found->as_string();
}

VocabularyModel::VocabularyModel(const ModelFields& fields) {
  if (fields.vocab_is_list) throw ModelError("vocab is a list, expected ids by token");
  vocabulary_.reserve(fields.vocab.size());
  for (const ModelFields::Item& item : fields.vocab)
    vocabulary_.add(fields.at(item), static_cast<int32_t>(item.number));
}

std::unique_ptr<const TokenModel> make_word_piece(const ModelFields& fields) {
  return std::make_unique<WordPiece>(fields);
}
std::unique_ptr<const TokenModel> make_word_level(const ModelFields& fields) {
  return std::make_unique<WordLevel>(fields);
}

std::unique_ptr<const TokenModel> read_token_model(JsonReader& reader) {
  const ModelFields fields = FieldReader(reader).read();
  const std::string type = fields.text("type");
  if (type == "WordPiece") return make_word_piece(fields);
  if (type == "WordLevel") return make_word_level(fields);
  if (type == "BPE") return make_bpe(fields);
  if (type == "Unigram") return make_unigram(fields);
  throw ModelError(cat("model ", quoted(type), " is not known to the C++ tokenizer"));
}

}  // namespace trine::text
