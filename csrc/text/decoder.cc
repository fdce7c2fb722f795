// SPDX-License-Identifier: Apache-2.0
#include "text/decoder.h"

#include "base/error.h"
#include "base/utf8.h"
#include "text/byte_level.h"
#include "text/pattern.h"

namespace trine::text {
namespace {

using Tokens = std::vector<std::string>;

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at = text.find(from); at != text.npos; at = text.find(from)) {
    out += text.substr(0, at);
    out += to;
    text.remove_prefix(at + from.size());
  }
  out += text;
  return out;
}

class ByteLevel final : public Decoder {
 public:
  void run(Tokens& tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) {
      const size_t before = bytes.size();
      for (const char* at = token.data(); at != token.data() + token.size();) {
        const char32_t c = next_char(at);
        if (c >= kLetterBytes.size() || kLetterBytes[c] < 0) {  // not of bytes: as it is
          bytes.resize(before);
          bytes += token;
          break;
        }
        bytes += static_cast<char>(kLetterBytes[c]);
      }
    }
    tokens.assign(1, replace_invalid(bytes));
  }
};

class WordPiece final : public Decoder {
 public:
  explicit WordPiece(const Json& json)
      : prefix_(json.at("prefix").as_string()), cleanup_(json.at("cleanup").as_bool()) {}
  void run(Tokens& tokens) const override {
    constexpr std::string_view kCleaned[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string& token = tokens[i];
      if (i > 0 && token.starts_with(prefix_)) {
        token.erase(0, prefix_.size());
      } else if (i > 0) {
        token.insert(token.begin(), ' ');
      }
      if (!cleanup_) continue;
      for (const auto& [from, to] : kCleaned) token = replaced(token, from, to);
    }
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

class Metaspace final : public Decoder {
 public:
  explicit Metaspace(const Json& json) : character_(json.at("replacement").as_string()) {
    if (character_.empty() || char_length(character_[0]) != character_.size())
      throw ModelError("the replacement of Metaspace is no character");
    const Json* scheme = json.find("prepend_scheme");
    const Json* prefix = json.find("add_prefix_space");
    prepends_ = scheme == nullptr || scheme->as_string() != "never";
    if (prefix != nullptr && !prefix->is_null() && !prefix->as_bool()) prepends_ = false;
  }
  void run(Tokens& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = replaced(tokens[i], character_, i == 0 && prepends_ ? "" : " ");
  }

 private:
  std::string character_;
  bool prepends_;
};

class ByteFallback final : public Decoder {
 public:
  void run(Tokens& tokens) const override {
    Tokens out;
    std::string bytes;
    const auto flush = [&] {
      if (is_utf8(bytes)) {
        if (!bytes.empty()) out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const int byte = byte_of_token(token); byte >= 0) {
        bytes += static_cast<char>(byte);
        continue;
      }
      flush();
      out.push_back(std::move(token));
    }
    flush();
    tokens = std::move(out);
  }
};

class Fuse final : public Decoder {
 public:
  void run(Tokens& tokens) const override {
    std::string all;
    for (const std::string& token : tokens) all += token;
    tokens.assign(1, all);
  }
};

class Strip final : public Decoder {
 public:
  explicit Strip(const Json& json)
      : character_(json.at("content").as_string()),
        start_(json.at("start").as_uint()),
        stop_(json.at("stop").as_uint()) {
    if (character_.empty() || char_length(character_[0]) != character_.size())
      throw ModelError("the content of Strip is no character");
  }
  void run(Tokens& tokens) const override {
    for (std::string& token : tokens) {
      size_t begin = 0, end = token.size();
      for (uint64_t i = 0; i < start_ && token.substr(begin).starts_with(character_); ++i)
        begin += character_.size();
      for (uint64_t i = 0; i < stop_ && end > begin &&
                           std::string_view(token).substr(begin, end - begin).ends_with(character_);
           ++i)
        end -= character_.size();
      token = token.substr(begin, end - begin);
    }
  }

 private:
  std::string character_;
  uint64_t start_, stop_;
};

class Replace final : public Decoder {
 public:
  explicit Replace(const Json& json)
      : pattern_(json.at("pattern")), content_(json.at("content").as_string()) {}
  void run(Tokens& tokens) const override {
    for (std::string& token : tokens) {
      std::string out;
      size_t done = 0;
      for (Pattern::Match match{}; pattern_.find(token, done, match); done = match.end) {
        out.append(token, done, match.begin - done);
        out += content_;
      }
      if (done == 0) continue;
      out.append(token, done);
      token = std::move(out);
    }
  }

 private:
  Pattern pattern_;
  std::string content_;
};

std::unique_ptr<const Decoder> make(const Json& json, const std::string& type) {
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "WordPiece") return std::make_unique<WordPiece>(json);
  if (type == "Metaspace") return std::make_unique<Metaspace>(json);
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Strip") return std::make_unique<Strip>(json);
  if (type == "Replace") return std::make_unique<Replace>(json);
  throw ModelError(cat("decoder ", quoted(type), " is not known to the C++ tokenizer"));
}

}  // namespace

int byte_of_token(std::string_view token) noexcept {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int lower = c | 0x20;
    const int digit = c >= '0' && c <= '9'           ? c - '0'
                      : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
                                                     : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

Decoders::Decoders(const Json& description) {
  there_ = !description.is_null();
  if (there_) add(description);
}

void Decoders::add(const Json& description) {
  const std::string& type = description.at("type").as_string();
  if (type == "Sequence") {
    for (const Json& one : description.at("decoders").as_array()) add(one);
    return;
  }
  byte_fallback_ = byte_fallback_ || type == "ByteFallback";
  all_.push_back(make(description, type));
}

std::string Decoders::run(std::vector<std::string> tokens) const {
  for (const auto& one : all_) one->run(tokens);
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && !there_) out += ' ';
    out += tokens[i];
  }
  return out;
}

}  // namespace trine::text
