// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace trine::text {

// Fast, and seeded anew in each process: names come from files, and those can be made to collide.
uint64_t hash_of(std::string_view text) noexcept;
uint64_t hash_of(uint64_t number) noexcept;

// Tokens by text and by id, in one piece of memory.
class Vocabulary {
 public:
  static constexpr int32_t kNone = -1;
  // Of an id: more would be a table for nothing.
  static constexpr uint64_t kMaxId = (1 << 22) - 1;

  // A text that is there gets the new id; of two texts with one id the later one is the id's.
  void add(std::string_view text, int32_t id);
  void reserve(size_t tokens);

  int32_t find(std::string_view text) const noexcept;
  // False when no token has the id.
  bool text(int32_t id, std::string_view& out) const noexcept;
  size_t size() const noexcept { return count_; }
  // One above the greatest id.
  int32_t end() const noexcept { return static_cast<int32_t>(by_id_.size()); }
  size_t longest() const noexcept { return longest_; }

 private:
  struct Entry {
    uint32_t begin = 0, size = 0;
    int32_t id = kNone;
  };
  void grow();
  std::string_view of(const Entry& entry) const noexcept {
    return {texts_.data() + entry.begin, entry.size};
  }

  std::vector<char> texts_;
  std::vector<Entry> entries_;
  std::vector<uint64_t> slots_;  // upper half of the hash, entry + 1
  std::vector<uint32_t> by_id_;  // entry + 1
  size_t count_ = 0, longest_ = 0;
};

}  // namespace trine::text
