// SPDX-License-Identifier: Apache-2.0
#include "text/trie.h"

#include <algorithm>

namespace trine::text {
namespace {

// The first eight bytes as a number: nearly all that sorting has to look at.
uint64_t front(std::string_view key) noexcept {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i)
    value = value << 8 | (i < key.size() ? static_cast<uint8_t>(key[i]) : 0);
  return value;
}

struct Sorted {
  uint64_t front;
  std::string_view key;
  int32_t value;
};

struct Range {
  uint32_t node;
  size_t from, to, depth;
};

}  // namespace

Trie::Trie(std::vector<Entry> entries) {
  std::vector<Sorted> sorted;
  sorted.reserve(entries.size());
  for (const Entry& e : entries) {
    sorted.push_back({front(e.key), e.key, e.value});
    first_bytes_[static_cast<uint8_t>(e.key[0])] = true;
  }
  std::stable_sort(sorted.begin(), sorted.end(), [](const Sorted& a, const Sorted& b) {
    return a.front != b.front ? a.front < b.front : a.key < b.key;
  });
  if (sorted.empty()) return;
  nodes_.reserve(sorted.size() * 2);
  nodes_.emplace_back();
  labels_.push_back(0);
  std::vector<Range> pending{{0, 0, sorted.size(), 0}};
  for (size_t done = 0; done < pending.size(); ++done) {
    auto [node, from, to, depth] = pending[done];
    for (; from < to && sorted[from].key.size() == depth; ++from)
      nodes_[node].value = sorted[from].value;
    if (from == to) continue;
    if (to - from == 1 && nodes_[node].value == kNone && node != 0) {
      const std::string_view tail = sorted[from].key.substr(depth);
      nodes_[node].value = sorted[from].value;
      nodes_[node].tail = static_cast<uint32_t>(tails_.size());
      nodes_[node].tail_size = static_cast<uint32_t>(tail.size());
      tails_ += tail;
      continue;
    }
    const auto first = static_cast<uint32_t>(nodes_.size());
    for (size_t start = from; start < to;) {
      const char label = sorted[start].key[depth];
      size_t end = start + 1;
      while (end < to && sorted[end].key[depth] == label) ++end;
      pending.push_back({static_cast<uint32_t>(nodes_.size()), start, end, depth + 1});
      nodes_.emplace_back();
      labels_.push_back(static_cast<uint8_t>(label));
      start = end;
    }
    const auto count = static_cast<uint32_t>(nodes_.size()) - first;
    nodes_[node].first = first;
    nodes_[node].count = count;
    if (count < kManyChildren) continue;
    nodes_[node].dense = static_cast<uint32_t>(dense_.size());
    dense_.resize(dense_.size() + 256);
    for (uint32_t i = 0; i < count; ++i)
      dense_[nodes_[node].dense + labels_[first + i]] = first + i;
  }
}

}  // namespace trine::text
