// SPDX-License-Identifier: Apache-2.0
// Values and the writer; json_reader.cc reads.
#include "base/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "base/error.h"

namespace trine {

// In the order of JsonType.
constexpr std::string_view kTypeNames[] = {"null",     "a boolean", "an integer", "an integer",
                                           "a number", "a string",  "an array",   "an object"};

std::string_view name_of(JsonType type) noexcept { return kTypeNames[static_cast<size_t>(type)]; }

JsonObject::JsonObject() = default;
JsonObject::~JsonObject() = default;
JsonObject::JsonObject(const JsonObject& other) = default;
JsonObject::JsonObject(JsonObject&& other) noexcept = default;
JsonObject& JsonObject::operator=(const JsonObject& other) = default;
JsonObject& JsonObject::operator=(JsonObject&& other) noexcept = default;

std::vector<uint32_t>::const_iterator JsonObject::lower_bound(std::string_view key) const {
  return std::lower_bound(
      sorted_.begin(), sorted_.end(), key,
      [&](uint32_t i, std::string_view wanted) { return members_[i].key < wanted; });
}

const Json* JsonObject::find(std::string_view key) const {
  const auto found = lower_bound(key);
  const bool is_there = found != sorted_.end() && members_[*found].key == key;
  return is_there ? &members_[*found].value : nullptr;
}

void JsonObject::set(std::string key, Json value) {
  const auto place = lower_bound(key);
  if (place != sorted_.end() && members_[*place].key == key) {
    members_[*place].value = std::move(value);
    return;
  }
  sorted_.insert(place, static_cast<uint32_t>(members_.size()));
  members_.push_back({std::move(key), std::move(value)});
}

// Equal keys, which only a document that is being read can have, stay in their order.
void JsonObject::sort() {
  sorted_.resize(members_.size());
  std::iota(sorted_.begin(), sorted_.end(), uint32_t{0});
  std::sort(sorted_.begin(), sorted_.end(), [&](uint32_t a, uint32_t b) {
    const int order = members_[a].key.compare(members_[b].key);
    return order != 0 ? order < 0 : a < b;
  });
}

size_t JsonObject::size() const noexcept { return members_.size(); }
const JsonMember* JsonObject::begin() const noexcept { return members_.data(); }
const JsonMember* JsonObject::end() const noexcept { return members_.data() + members_.size(); }
bool JsonObject::operator==(const JsonObject& other) const { return members_ == other.members_; }

template <class T>
const T& Json::get() const {
  if (const T* value = std::get_if<T>(&value_)) return *value;
  const size_t wanted = decltype(value_)(T{}).index();
  throw ModelError(cat("expected ", kTypeNames[wanted], ", found ", name_of(type())));
}

bool Json::as_bool() const { return get<bool>(); }
int64_t Json::as_int() const { return get<int64_t>(); }
const std::string& Json::as_string() const { return get<std::string>(); }
const Json::Array& Json::as_array() const { return get<Array>(); }
const JsonObject& Json::as_object() const { return get<JsonObject>(); }

uint64_t Json::as_uint() const {
  if (type() == JsonType::kInt && as_int() >= 0) return static_cast<uint64_t>(as_int());
  return get<uint64_t>();
}

double Json::as_double() const {
  if (type() == JsonType::kInt) return static_cast<double>(as_int());
  if (type() == JsonType::kUint) return static_cast<double>(as_uint());
  return get<double>();
}

const Json& Json::at(std::string_view key) const {
  if (const Json* value = find(key)) return *value;
  throw ModelError(cat("missing key ", quoted(key)));
}

namespace {

void append_double(std::string& out, double value) {
  if (!std::isfinite(value)) throw Error("JSON cannot hold an infinite number or NaN");
  char buffer[40];
#if defined(__cpp_lib_to_chars)
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
#else
  // Old libc++. The locale that some other part of the process has set may put a comma here.
  int length = 0;
  for (int precision = 1; precision <= 17; ++precision) {
    length = std::snprintf(buffer, sizeof buffer, "%.*g", precision, value);
    if (std::strtod(buffer, nullptr) == value) break;
  }
  std::replace(buffer, buffer + length, ',', '.');
  const std::string_view text(buffer, static_cast<size_t>(length));
#endif
  out += text;
  // 1.0 must not come back as the integer 1.
  if (text.find_first_of(".e") == text.npos) out += ".0";
}

void append_string(std::string& out, std::string_view s) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out += '"';
  for (const char c : s) {
    const auto byte = static_cast<uint8_t>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

class Writer {
 public:
  explicit Writer(int indent) : indent_(indent) {}

  void write(const Json& json) {
    switch (json.type()) {
      case JsonType::kNull:
        out += "null";
        break;
      case JsonType::kBool:
        out += cat(json.as_bool());
        break;
      case JsonType::kInt:
        out += cat(json.as_int());
        break;
      case JsonType::kUint:
        out += cat(json.as_uint());
        break;
      case JsonType::kDouble:
        append_double(out, json.as_double());
        break;
      case JsonType::kString:
        append_string(out, json.as_string());
        break;
      case JsonType::kArray:
        write_list('[', json.as_array(), ']');
        break;
      case JsonType::kObject:
        write_list('{', json.as_object(), '}');
        break;
    }
  }

  std::string out;

 private:
  void write(const JsonMember& member) {
    append_string(out, member.key);
    out += indent_ < 0 ? ":" : ": ";
    write(member.value);
  }

  template <class List>
  void write_list(char open, const List& list, char close) {
    out += open;
    ++depth_;
    bool first = true;
    for (const auto& item : list) {
      if (!first) out += ',';
      first = false;
      new_line();
      write(item);
    }
    --depth_;
    if (!first) new_line();
    out += close;
  }

  void new_line() {
    if (indent_ < 0) return;
    out += '\n';
    out.append(static_cast<size_t>(indent_) * depth_, ' ');
  }

  int indent_;
  size_t depth_ = 0;
};

}  // namespace

std::string Json::dump(int indent) const {
  Writer writer(indent);
  writer.write(*this);
  return std::move(writer.out);
}

}  // namespace trine
