// SPDX-License-Identifier: Apache-2.0
#include "text/vocabulary.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace trine::text {
namespace {

uint64_t seed() noexcept {
  static const uint64_t value = [] {
    try {
      std::random_device device;
      return uint64_t{device()} << 32 | device();
    } catch (...) {  // no source of randomness: where the stack lies is hard to guess, too
      const int here = 0;
      return static_cast<uint64_t>(reinterpret_cast<uintptr_t>(&here)) * 0x9E3779B97F4A7C15u;
    }
  }();
  return value;
}

uint64_t mixed(uint64_t x) noexcept {
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93u;
  x = (x ^ (x >> 29)) * 0xBF58476D1CE4E5B9u;
  return x ^ (x >> 32);
}

constexpr uint64_t kUpper = 0xFFFFFFFF00000000u;

}  // namespace

uint64_t hash_of(uint64_t number) noexcept { return mixed(number ^ seed()); }

uint64_t hash_of(std::string_view text) noexcept {
  uint64_t hash = seed() + text.size();
  const char* at = text.data();
  size_t left = text.size();
  uint64_t word = 0;
  for (; left >= 8; left -= 8, at += 8) {
    std::memcpy(&word, at, 8);
    hash = mixed(hash ^ word);
  }
  word = 0;
  if (left > 0) std::memcpy(&word, at, left);
  return mixed(hash ^ word);
}

void Vocabulary::reserve(size_t tokens) {
  entries_.reserve(tokens);
  by_id_.reserve(tokens);
}

void Vocabulary::grow() {
  std::vector<uint64_t> slots(std::max<size_t>(64, slots_.size() * 2));
  const size_t mask = slots.size() - 1;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const uint64_t hash = hash_of(of(entries_[i]));
    size_t at = hash & mask;
    while (slots[at] != 0) at = (at + 1) & mask;
    slots[at] = (hash & kUpper) | (i + 1);
  }
  slots_ = std::move(slots);
}

void Vocabulary::add(std::string_view text, int32_t id) {
  if ((entries_.size() + 1) * 2 > slots_.size()) grow();
  const uint64_t hash = hash_of(text);
  const size_t mask = slots_.size() - 1;
  size_t at = hash & mask;
  size_t entry = entries_.size();
  for (; slots_[at] != 0; at = (at + 1) & mask) {
    const size_t other = static_cast<uint32_t>(slots_[at]) - 1;
    if ((slots_[at] & kUpper) == (hash & kUpper) && of(entries_[other]) == text) {
      entry = other;
      break;
    }
  }
  if (entry == entries_.size()) {
    entries_.push_back({static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(text.size())});
    texts_.insert(texts_.end(), text.begin(), text.end());
    slots_[at] = (hash & kUpper) | (entry + 1);
    longest_ = std::max(longest_, text.size());
    ++count_;
  } else {
    by_id_[static_cast<size_t>(entries_[entry].id)] = 0;
  }
  entries_[entry].id = id;
  if (static_cast<size_t>(id) >= by_id_.size()) by_id_.resize(static_cast<size_t>(id) + 1);
  by_id_[static_cast<size_t>(id)] = static_cast<uint32_t>(entry + 1);
}

int32_t Vocabulary::find(std::string_view text) const noexcept {
  if (slots_.empty() || text.size() > longest_) return kNone;
  const uint64_t hash = hash_of(text);
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash & mask; slots_[at] != 0; at = (at + 1) & mask) {
    if ((slots_[at] & kUpper) != (hash & kUpper)) continue;
    const Entry& entry = entries_[static_cast<uint32_t>(slots_[at]) - 1];
    if (of(entry) == text) return entry.id;
  }
  return kNone;
}

bool Vocabulary::text(int32_t id, std::string_view& out) const noexcept {
  if (id < 0 || static_cast<size_t>(id) >= by_id_.size()) return false;
  const uint32_t entry = by_id_[static_cast<size_t>(id)];
  if (entry == 0) return false;
  out = of(entries_[entry - 1]);
  return true;
}

}  // namespace trine::text
