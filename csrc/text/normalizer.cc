// SPDX-License-Identifier: Apache-2.0
#include "text/normalizer.h"

#include <optional>
#include <utility>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/charsmap.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace trine::text {
namespace {

// Calls put(out, character) for each character; what it adds stands for the same original one.
template <class Put>
void each(Buffer& buffer, Buffer& spare, const Put& put) {
  spare.text.clear();
  spare.front = 0;
  const char* const start = buffer.text.data();
  const char* const end = start + buffer.text.size();
  for (const char* at = start; at != end;) {
    const auto here = static_cast<size_t>(at - start);
    put(spare.text, next_char(at));
    if (here < buffer.front) spare.front = spare.text.size();
  }
  std::swap(buffer, spare);
}

bool is_chinese(char32_t c) noexcept {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

class Unicode final : public Normalizer {
 public:
  explicit Unicode(NormalForm form) : form_(form) {}
  void run(Buffer& buffer, Buffer& spare) const override {
    spare.text.clear();
    if (buffer.front > 0) {
      // What the first character and the marks behind it become, then the first one of that.
      normalize(std::string_view(buffer.text).substr(0, buffer.front), form_, spare.text);
      spare.front = spare.text.size();
      spare.text.clear();
    } else {
      spare.front = 0;
    }
    normalize(buffer.text, form_, spare.text);
    spare.front = std::min(spare.front, spare.text.size());
    while (spare.front < spare.text.size() && spare.front > 0 && is_tail(spare.text[spare.front]))
      ++spare.front;
    std::swap(buffer, spare);
  }

 private:
  NormalForm form_;
};

class Bert final : public Normalizer {
 public:
  explicit Bert(const Json& json)
      : clean_(json.at("clean_text").as_bool()),
        chinese_(json.at("handle_chinese_chars").as_bool()),
        lowercase_(json.at("lowercase").as_bool()),
        strip_(lowercase_) {
    const Json* strip = json.find("strip_accents");
    if (strip != nullptr && !strip->is_null()) strip_ = strip->as_bool();
    for (int c = 0; c < 128; ++c) {
      const bool space = c == '\t' || c == '\n' || c == '\r';
      char to = static_cast<char>(c);
      if (clean_ && (space || has(static_cast<char32_t>(c), kSpace))) to = ' ';
      if (clean_ && !space && has(static_cast<char32_t>(c), kOther)) to = kGone;
      if (c == 0 && clean_) to = kGone;
      if (lowercase_ && c >= 'A' && c <= 'Z') to = static_cast<char>(c + 32);
      ascii_[c] = to;
    }
  }

  void run(Buffer& buffer, Buffer& spare) const override {
    bool plain = true;
    each(buffer, spare, [&](std::string& out, char32_t c) {
      if (c < 128) {
        if (ascii_[c] != kGone) out += ascii_[c];
        return;
      }
      plain = false;
      if (clean_) {
        if (c == 0xFFFD || has(c, kOther)) return;
        if (has(c, kSpace)) c = ' ';
      }
      const bool apart = chinese_ && is_chinese(c);
      if (apart) out += ' ';
      append_utf8(out, c);
      if (apart) out += ' ';
    });
    if (plain) return;
    if (strip_) decompose_.run(buffer, spare);
    if (!strip_ && !lowercase_) return;
    each(buffer, spare, [&](std::string& out, char32_t c) {
      if (c < 128) {
        // Decomposing makes new letters of ASCII.
        out +=
            lowercase_ && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : static_cast<char>(c);
        return;
      }
      if (strip_ && has(c, kNonspacing)) return;
      if (lowercase_) {
        append_lower(out, c);
      } else {
        append_utf8(out, c);
      }
    });
  }

 private:
  static constexpr char kGone = '\xFF';
  bool clean_, chinese_, lowercase_, strip_;
  char ascii_[128];
  Unicode decompose_{NormalForm::kNfd};
};

class Lowercase final : public Normalizer {
 public:
  void run(Buffer& buffer, Buffer& spare) const override { each(buffer, spare, append_lower); }
};

class StripAccents final : public Normalizer {
 public:
  void run(Buffer& buffer, Buffer& spare) const override {
    each(buffer, spare, [](std::string& out, char32_t c) {
      if (!has(c, kCombining)) append_utf8(out, c);
    });
  }
};

class Nmt final : public Normalizer {
 public:
  void run(Buffer& buffer, Buffer& spare) const override {
    each(buffer, spare, [](std::string& out, char32_t c) {
      if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
          c == 0x9F)
        return;
      const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                         (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
                         c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      append_utf8(out, space ? U' ' : c);
    });
  }
};

class Strip final : public Normalizer {
 public:
  explicit Strip(const Json& json)
      : left_(json.at("strip_left").as_bool()), right_(json.at("strip_right").as_bool()) {}
  void run(Buffer& buffer, Buffer&) const override {
    std::string& text = buffer.text;
    size_t end = text.size();
    while (right_ && end > 0) {
      size_t start = end - 1;
      while (is_tail(text[start])) --start;
      const char* at = text.data() + start;
      if (!has(next_char(at), kSpace)) break;
      end = start;
    }
    text.resize(end);
    size_t begin = 0;
    while (left_ && begin < text.size()) {
      const char* at = text.data() + begin;
      if (!has(next_char(at), kSpace)) break;
      begin = static_cast<size_t>(at - text.data());
    }
    text.erase(0, begin);
    buffer.front = std::min(buffer.front - std::min(buffer.front, begin), text.size());
  }

 private:
  bool left_, right_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(const Json& json) : what_(json.at("prepend").as_string()) {}
  void run(Buffer& buffer, Buffer&) const override {
    if (buffer.text.empty()) return;
    buffer.text.insert(0, what_);
    if (buffer.front > 0) buffer.front += what_.size();
  }

 private:
  std::string what_;
};

class Replace final : public Normalizer {
 public:
  explicit Replace(const Json& json)
      : pattern_(json.at("pattern")), content_(json.at("content").as_string()) {}
  void run(Buffer& buffer, Buffer& spare) const override {
    const std::string& text = buffer.text;
    Pattern::Match match{};
    if (!pattern_.find(text, 0, match)) return;
    std::string& out = spare.text;
    out.clear();
    spare.front = 0;
    size_t done = 0;
    const auto copy = [&](size_t to) {
      if (done < buffer.front) spare.front = out.size() + std::min(to, buffer.front) - done;
      out.append(text, done, to - done);
    };
    do {
      copy(match.begin);
      out += content_;
      // What takes the place of several characters stands for the last one.
      if (match.end - 1 < buffer.front) spare.front = out.size();
      done = match.end;
    } while (pattern_.find(text, done, match));
    copy(text.size());
    std::swap(buffer, spare);
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class ByteLevel final : public Normalizer {
 public:
  void run(Buffer& buffer, Buffer& spare) const override {
    spare.text.clear();
    spare.front = 0;
    for (size_t i = 0; i < buffer.text.size(); ++i) {
      append_byte_letter(spare.text, buffer.text[i]);
      if (i < buffer.front) spare.front = spare.text.size();
    }
    std::swap(buffer, spare);
  }
};

std::unique_ptr<const Normalizer> make(const Json& json, const std::string& type) {
  if (type == "BertNormalizer") return std::make_unique<Bert>(json);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "NFC") return std::make_unique<Unicode>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<Unicode>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<Unicode>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<Unicode>(NormalForm::kNfkd);
  if (type == "Strip") return std::make_unique<Strip>(json);
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "Nmt") return std::make_unique<Nmt>();
  if (type == "Prepend") return std::make_unique<Prepend>(json);
  if (type == "Replace") return std::make_unique<Replace>(json);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "Precompiled") return make_precompiled(json.at("precompiled_charsmap").as_string());
  throw ModelError(cat("normalizer ", quoted(type), " is not known to the C++ tokenizer"));
}

}  // namespace

Normalizers::Normalizers(const Json& description) {
  if (!description.is_null()) add(description);
}

void Normalizers::add(const Json& description) {
  const std::string& type = description.at("type").as_string();
  if (type == "Sequence") {
    for (const Json& one : description.at("normalizers").as_array()) add(one);
  } else {
    all_.push_back(make(description, type));
  }
}

}  // namespace trine::text
