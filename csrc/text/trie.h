// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace trine::text {

// Strings with a number each, found by their beginnings: nodes only where strings part, children
// of a node side by side. Of equal strings the last one stays.
class Trie {
 public:
  static constexpr int32_t kNone = -1;
  struct Entry {
    std::string_view key;  // not empty
    int32_t value;         // not negative
  };

  Trie() = default;
  explicit Trie(std::vector<Entry> entries);

  // Calls found(length, value) for each string that the text begins with, the shortest first.
  template <class Found>
  void prefixes(std::string_view text, const Found& found) const {
    if (nodes_.empty()) return;
    uint32_t at = 0;
    size_t depth = 0;
    for (;;) {
      const Node& node = nodes_[at];
      if (node.tail_size > 0) {
        if (text.substr(depth, node.tail_size) ==
            std::string_view(tails_).substr(node.tail, node.tail_size))
          found(depth + node.tail_size, node.value);
        return;
      }
      if (node.value != kNone) found(depth, node.value);
      if (depth == text.size() || node.count == 0) return;
      const auto label = static_cast<uint8_t>(text[depth++]);
      if (node.dense != kNotDense) {
        at = dense_[node.dense + label];
        if (at == 0) return;
        continue;
      }
      const uint8_t* const labels = labels_.data() + node.first;
      uint32_t i = 0;
      while (i < node.count && labels[i] < label) ++i;
      if (i == node.count || labels[i] != label) return;
      at = node.first + i;
    }
  }

  int32_t find(std::string_view text) const {
    int32_t found = kNone;
    prefixes(text, [&](size_t length, int32_t value) {
      if (length == text.size()) found = value;
    });
    return found;
  }

  // Whether some string begins with the byte.
  bool begins(char byte) const noexcept { return first_bytes_[static_cast<uint8_t>(byte)]; }

 private:
  static constexpr uint32_t kNotDense = ~uint32_t{0}, kManyChildren = 12;
  struct Node {
    uint32_t first = 0, count = 0;  // children
    uint32_t dense = kNotDense;     // a table of them by their labels
    int32_t value = kNone;
    uint32_t tail = 0, tail_size = 0;  // of the only string here
  };

  std::vector<Node> nodes_;
  std::vector<uint8_t> labels_;
  std::vector<uint32_t> dense_;
  std::string tails_;
  std::vector<bool> first_bytes_ = std::vector<bool>(256);
};

}  // namespace trine::text
