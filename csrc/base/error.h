// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <cstdio>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>

#include "trine.h"

namespace trine {

namespace detail {

template <class T>
void append_to(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    out += value ? "true" : "false";
  } else if constexpr (std::is_same_v<T, char>) {
    out += value;
  } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    out += std::string_view(value);
  } else if constexpr (std::is_integral_v<T>) {
    using Wide = std::conditional_t<std::is_signed_v<T>, long long, unsigned long long>;
    char buffer[24];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, static_cast<Wide>(value)).ptr;
    out.append(buffer, end);
  } else if constexpr (std::is_floating_point_v<T>) {
    // Not std::to_chars: its floating-point overloads need macOS 13.3.
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.9g", static_cast<double>(value));
    out += buffer;
  } else {
    using Item = std::remove_cvref_t<decltype(*std::begin(value))>;
    static_assert(std::is_arithmetic_v<Item> || std::is_convertible_v<Item, std::string_view>,
                  "cat takes numbers, strings and ranges of them");
    out += '[';
    std::string_view separator;
    for (const Item& item : value) {
      out += separator;
      append_to(out, item);
      separator = ", ";
    }
    out += ']';
  }
}

}  // namespace detail

// The one formatting helper: cat("x has ", 3, " rows, shape ", shape). Ranges print as [2, 3].
template <class... A>
std::string cat(const A&... parts) {
  std::string out;
  (detail::append_to(out, parts), ...);
  return out;
}

// A name that came from a file, fit for a message: quoted, control characters escaped, cut when
// somebody made it a megabyte long (never inside a UTF-8 sequence). An object, not a function: for
// a std::string argument, argument-dependent lookup would prefer std::quoted of <iomanip>.
inline constexpr auto quoted = [](std::string_view name) {
  constexpr size_t kMaxShown = 160;
  size_t shown = name.size() <= kMaxShown ? name.size() : kMaxShown;
  while (shown < name.size() && shown > 0 && (name[shown] & 0xC0) == 0x80) --shown;
  std::string out = "'";
  for (const char c : name.substr(0, shown)) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      char buffer[8];
      std::snprintf(buffer, sizeof buffer, "\\x%02x", c);
      out += buffer;
    } else {
      out += c;
    }
  }
  if (shown < name.size()) out += cat("...' (", name.size(), " bytes)");
  return shown < name.size() ? out : out + "'";
};

}  // namespace trine
