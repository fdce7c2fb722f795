// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <cmath>
// libc++ has it since version 20, and does not say so; on macOS it lies in the system's library.
#if defined(__cpp_lib_to_chars) || \
    (defined(_LIBCPP_VERSION) && _LIBCPP_VERSION >= 200000 && !defined(__APPLE__))
#define TRINE_FROM_CHARS 1
#else
#include <locale.h>
#include <stdlib.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif
#endif

#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"

namespace trine {

namespace {

// Not finite when no double is near enough. Old libc++ has no from_chars for double, and strtod
// alone heeds the locale that some other part of the process has set.
double parse_double(std::string_view text) {
#if defined(TRINE_FROM_CHARS)
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc() ? value : HUGE_VAL;
#else
  static const locale_t kC = newlocale(LC_ALL_MASK, "C", nullptr);
  return strtod_l(std::string(text).c_str(), nullptr, kC);
#endif
}

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// What a backslash before this character stands for, 0 where it is none of the short escapes. A
// switch, since a compiled file's tokenizer is one string with an escape every few characters.
char unescaped(char c) {
  switch (c) {
    case '"':
    case '\\':
    case '/':
      return c;
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    default:
      return '\0';
  }
}

}  // namespace

JsonReader::JsonReader(std::string_view text, std::string source, const JsonLimits& limits)
    : text_(text), source_(std::move(source)), limits_(limits) {
  if (text.size() <= limits.max_bytes) return;
  throw ModelError(
      cat(source_, ": ", text.size(), " bytes of JSON, the limit is ", limits.max_bytes));
}

// From the root to here, as in  'weight_map'.'wte'  or  'shape'[1].
std::string JsonReader::path() const {
  std::string path;
  for (const Frame& frame : frames_) {
    if (frame.count == 0 || path.size() > 400) break;
    if (frame.is_array) {
      path += cat("[", frame.count - 1, "]");
    } else {
      size_t end = frame.key + 1;  // the key was read: its closing quote is there
      while (text_[end] != '"') end += text_[end] == '\\' ? 2 : 1;
      path +=
          cat(path.empty() ? "" : ".", quoted(text_.substr(frame.key + 1, end - frame.key - 1)));
    }
  }
  return path;
}

void JsonReader::fail_at(size_t pos, std::string_view what) const {
  const std::string_view before = text_.substr(0, pos);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t column = pos - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
  const std::string in = path();
  throw ModelError(cat(source_, ": ", what, in.empty() ? "" : " in ", in, " (line ", line,
                       ", column ", column, ", byte ", pos, ")"));
}

// The next character that is not white space, 0 at the end; it is not consumed.
char JsonReader::token() {
  while (pos_ < text_.size() && is_space(text_[pos_])) ++pos_;
  return pos_ < text_.size() ? text_[pos_] : '\0';
}

bool JsonReader::at_any(std::string_view characters) const {
  return pos_ < text_.size() && characters.find(text_[pos_]) != characters.npos;
}

void JsonReader::expect(char c, std::string_view what) {
  if (token() != c) fail(cat("expected ", what, pos_ == text_.size() ? ", found the end" : ""));
  ++pos_;
}

void JsonReader::push(bool is_array) {
  if (frames_.size() >= static_cast<size_t>(limits_.max_depth)) {
    fail(cat("nested deeper than ", limits_.max_depth));
  }
  frames_.push_back({is_array});
}

void JsonReader::begin_object() {
  expect('{', "an object");
  push(false);
}

void JsonReader::begin_array() {
  expect('[', "an array");
  push(true);
}

// Steps over the comma before an element; at the closing bracket false, and one level up.
bool JsonReader::next_element(char close, std::string_view otherwise) {
  Frame& frame = frames_.back();
  if (token() == close) {
    ++pos_;
    frames_.pop_back();
    return false;
  }
  if (frame.count > 0) expect(',', otherwise);
  return true;
}

bool JsonReader::next_key(std::string& key) {
  if (!next_element('}', "',' or '}'")) return false;
  if (token() != '"') fail("expected a key in double quotes");
  const size_t start = pos_;
  string(key);
  frames_.back().key = start;
  ++frames_.back().count;
  expect(':', "':'");
  return true;
}

bool JsonReader::next_item() {
  if (!next_element(']', "',' or ']'")) return false;
  ++frames_.back().count;
  return true;
}

JsonType JsonReader::peek() {
  const char c = token();
  if (c == '{') return JsonType::kObject;
  if (c == '[') return JsonType::kArray;
  if (c == '"') return JsonType::kString;
  if (c == 'n') return JsonType::kNull;
  if (c == 't' || c == 'f') return JsonType::kBool;
  if (c == '-' || (c >= '0' && c <= '9')) return JsonType::kInt;
  fail(pos_ == text_.size() ? "expected a value, found the end" : "expected a value");
}

void JsonReader::literal(std::string_view word) {
  if (text_.substr(pos_, word.size()) != word) fail(cat("expected ", word));
  pos_ += word.size();
}

uint32_t JsonReader::hex4() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i, ++pos_) {
    if (!at_any("0123456789abcdefABCDEF")) fail("expected four hexadecimal digits after \\u");
    const char c = text_[pos_];
    value = value * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return value;
}

void JsonReader::escape(std::string& out) {
  const size_t start = pos_++;
  const char simple = pos_ < text_.size() ? unescaped(text_[pos_]) : '\0';
  if (simple != '\0') {
    ++pos_;
    out += simple;
    return;
  }
  if (!at_any("u")) fail_at(start, "unknown escape in a string");
  ++pos_;
  uint32_t code = hex4();
  if (code >= 0xD800 && code < 0xE000) {
    uint32_t low = 0;
    if (text_.substr(pos_, 2) == "\\u") {
      pos_ += 2;
      low = hex4();
    }
    if (code >= 0xDC00 || low < 0xDC00 || low >= 0xE000) {
      fail_at(start, "half of a surrogate pair alone");
    }
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  append_utf8(out, code);
}

void JsonReader::string(std::string& out) {
  expect('"', "a string");
  out.clear();
  for (;;) {
    const size_t start = pos_;
    while (pos_ < text_.size()) {
      const auto c = static_cast<uint8_t>(text_[pos_]);
      if (c == '"' || c == '\\' || c < 0x20) break;
      const size_t length = c < 0x80 ? 1 : utf8_length(text_.substr(pos_, 4));
      if (length == 0) fail("invalid UTF-8 in a string");
      pos_ += length;
    }
    out.append(text_, start, pos_ - start);
    if (pos_ == text_.size()) fail("string without an end");
    if (text_[pos_] == '"') break;
    if (text_[pos_] != '\\') fail("control character in a string");
    escape(out);
  }
  ++pos_;
}

void JsonReader::digits(std::string_view where) {
  const size_t start = pos_;
  while (at_any("0123456789")) ++pos_;
  if (pos_ == start) fail(cat("expected a digit ", where));
}

Json JsonReader::number() {
  if (peek() != JsonType::kInt) fail("expected a number");
  const size_t start = pos_;
  if (at_any("-")) ++pos_;
  const size_t first = pos_;
  digits("after '-'");
  if (text_[first] == '0' && pos_ > first + 1) fail_at(start, "number with a leading zero");
  bool integral = true;
  if (at_any(".")) {
    integral = false;
    ++pos_;
    digits("after the point");
  }
  if (at_any("eE")) {
    integral = false;
    ++pos_;
    if (at_any("+-")) ++pos_;
    digits("in the exponent");
  }
  const std::string_view token = text_.substr(start, pos_ - start);
  if (integral && token != "-0") {  // an integer has no sign of zero to keep
    const char* const end = token.data() + token.size();
    int64_t i;
    if (std::from_chars(token.data(), end, i).ec == std::errc()) return i;
    uint64_t u;
    if (std::from_chars(token.data(), end, u).ec == std::errc()) return u;
  }
  const double d = parse_double(token);
  if (!std::isfinite(d)) fail_at(start, "number out of the range of double");
  return d;
}

uint64_t JsonReader::unsigned_integer() {
  token();
  const size_t start = pos_;
  const Json n = number();
  if (n.type() == JsonType::kDouble || (n.type() == JsonType::kInt && n.as_int() < 0)) {
    fail_at(start, "expected an integer from 0 to 2^64 - 1");
  }
  return n.as_uint();
}

Json JsonReader::object() {
  JsonObject object;
  std::vector<JsonMember>& members = object.members_;
  std::string key;
  for (begin_object(); next_key(key);) {
    members.emplace_back();
    members.back().key = key;
    members.back().value = value();
  }
  object.sort();
  const auto& sorted = object.sorted_;
  std::vector<bool> dropped;
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (members[sorted[i - 1]].key != members[sorted[i]].key) continue;
    if (!limits_.allow_duplicate_keys) {
      fail(
          cat("key ", quoted(members[sorted[i]].key), " comes twice in the object that ends here"));
    }
    dropped.resize(members.size());
    dropped[sorted[i - 1]] = true;
  }
  if (!dropped.empty()) {
    size_t kept = 0;
    for (size_t i = 0; i < members.size(); ++i) {
      if (!dropped[i] && kept++ != i) members[kept - 1] = std::move(members[i]);
    }
    members.resize(kept);
    object.sort();
  }
  return object;
}

Json JsonReader::value() {
  const JsonType type = peek();
  if (type == JsonType::kObject) return object();
  if (type == JsonType::kArray) {
    Json::Array array;
    for (begin_array(); next_item();) array.push_back(value());
    return array;
  }
  if (type == JsonType::kString) {
    std::string s;
    string(s);
    return s;
  }
  if (type == JsonType::kInt) return number();
  const char first = text_[pos_];
  literal(first == 'n' ? "null" : first == 't' ? "true" : "false");
  return first == 'n' ? Json() : Json(first == 't');
}

// As strict as value() with what it passes over, but for repeated keys.
void JsonReader::skip() {
  std::string ignored;
  const JsonType type = peek();
  if (type == JsonType::kObject) {
    for (begin_object(); next_key(ignored);) skip();
  } else if (type == JsonType::kArray) {
    for (begin_array(); next_item();) skip();
  } else if (type == JsonType::kString) {
    string(ignored);
  } else {
    value();
  }
}

void JsonReader::finish() {
  if (token(), pos_ != text_.size()) fail("text after the end of the document");
}

Json Json::parse(std::string_view text, std::string source, const JsonLimits& limits) {
  JsonReader reader(text, std::move(source), limits);
  Json json = reader.value();
  reader.finish();
  return json;
}

}  // namespace trine
