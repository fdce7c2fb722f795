// SPDX-License-Identifier: Apache-2.0
// JSON as RFC 8259 has it and nothing more: a pull reader for big or typed documents, a value for
// small ones, a writer. Text from a file is hostile until it is parsed: depth and size are capped,
// UTF-8 is checked, nothing costs more than O(n log n).
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace trine {

struct JsonLimits {
  size_t max_bytes = size_t{256} << 20;
  int max_depth = 128;
  bool allow_duplicate_keys = false;  // true: the last one stays
};

class Json;
struct JsonMember;

// Members in the order of the document, found by binary search. A hash table would be the usual
// choice, but keys come from files, and those can be made to collide.
class JsonObject {
 public:
  // Out of line, where JsonMember is complete.
  JsonObject();
  ~JsonObject();
  JsonObject(const JsonObject& other);
  JsonObject(JsonObject&& other) noexcept;
  JsonObject& operator=(const JsonObject& other);
  JsonObject& operator=(JsonObject&& other) noexcept;

  const Json* find(std::string_view key) const;
  void set(std::string key, Json value);  // adds or replaces; moves up to size() indices
  size_t size() const noexcept;
  const JsonMember* begin() const noexcept;
  const JsonMember* end() const noexcept;
  bool operator==(const JsonObject& other) const;

 private:
  friend class JsonReader;
  std::vector<uint32_t>::const_iterator lower_bound(std::string_view key) const;
  void sort();

  std::vector<JsonMember> members_;
  std::vector<uint32_t> sorted_;  // indices of all members, by key
};

enum class JsonType : uint8_t { kNull, kBool, kInt, kUint, kDouble, kString, kArray, kObject };

std::string_view name_of(JsonType type) noexcept;

class Json {
 public:
  using Array = std::vector<Json>;

  Json() = default;
  Json(std::nullptr_t) {}
  template <std::same_as<bool> T>  // not a plain bool, which every pointer converts to
  Json(T value) : value_(value) {}
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  Json(T value) {
    // Only what no int64_t holds is kept unsigned, so that equal numbers are equal values.
    if (std::in_range<int64_t>(value)) {
      value_ = static_cast<int64_t>(value);
    } else {
      value_ = static_cast<uint64_t>(value);
    }
  }
  Json(double value) : value_(value) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(JsonObject value) : value_(std::move(value)) {}

  // ModelError unless the text is one value: "SOURCE: what in 'key'[2] (line 1, column 9, byte 8)".
  static Json parse(std::string_view text, std::string source, const JsonLimits& limits = {});
  // On one line when indent < 0. Doubles read back as the same double. Strings must hold UTF-8.
  std::string dump(int indent = -1) const;

  JsonType type() const noexcept { return static_cast<JsonType>(value_.index()); }
  bool is_null() const noexcept { return type() == JsonType::kNull; }

  // ModelError when the value is of another type. as_double takes integers too.
  bool as_bool() const;
  int64_t as_int() const;
  uint64_t as_uint() const;
  double as_double() const;
  const std::string& as_string() const;
  const Array& as_array() const;
  const JsonObject& as_object() const;

  // A member of an object: null, or ModelError, when there is no such key.
  const Json* find(std::string_view key) const { return as_object().find(key); }
  const Json& at(std::string_view key) const;

  bool operator==(const Json& other) const { return value_ == other.value_; }

 private:
  template <class T>
  const T& get() const;

  // In the order of JsonType.
  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, Array, JsonObject>
      value_;
};

struct JsonMember {
  std::string key;
  Json value;
  bool operator==(const JsonMember&) const = default;
};

// Reads a document piece by piece, without building values:
//   for (reader.begin_object(); reader.next_key(key);) { ... read or skip() the value ... }
//   for (reader.begin_array(); reader.next_item();) { ... read or skip() the item ... }
//   reader.finish();
// Whatever else the text holds is a ModelError. A repeated key is shown as often as it comes; only
// value() looks for it.
class JsonReader {
 public:
  // The text must outlive the reader.
  JsonReader(std::string_view text, std::string source, const JsonLimits& limits = {});

  JsonType peek();  // kInt for every number
  void begin_object();
  bool next_key(std::string& key);
  void begin_array();
  bool next_item();
  void string(std::string& out);
  uint64_t unsigned_integer();
  Json number();
  Json value();
  void skip();
  void finish();  // only white space may follow

  [[noreturn]] void fail(std::string_view what) const { fail_at(pos_, what); }

 private:
  struct Frame {  // an array or object that is being read
    bool is_array;
    size_t key = 0;    // where the current key is in the text
    size_t count = 0;  // elements up to and including the current one
  };

  [[noreturn]] void fail_at(size_t pos, std::string_view what) const;
  std::string path() const;
  char token();
  bool at_any(std::string_view characters) const;
  void expect(char c, std::string_view what);
  void push(bool is_array);
  bool next_element(char close, std::string_view otherwise);
  void literal(std::string_view word);
  void escape(std::string& out);
  uint32_t hex4();
  void digits(std::string_view where);
  Json object();

  std::string_view text_;
  std::string source_;
  JsonLimits limits_;
  size_t pos_ = 0;
  std::vector<Frame> frames_;
};

}  // namespace trine
