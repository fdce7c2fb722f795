// SPDX-License-Identifier: Apache-2.0
// Python pickles, read without running anything: the result says which function would be called
// with which values, and who asked for the pickle decides what a call stands for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace trine {

enum class PickleKind : uint8_t {
  kNone,
  kBool,
  kInt,
  kLong,  // past 64 bits: its bytes
  kFloat,
  kString,
  kBytes,
  kTuple,       // items: the elements; a list's, too
  kList,        //
  kDict,        // items: key, value, key, value...
  kGlobal,      // number: the row in the list of globals
  kCall,        // items: the function, its arguments as a tuple, then key, value... as in a dict
  kPersistent,  // items: the id, which means something to the file around the pickle
};

// Text and items belong to the file and to the Pickle.
struct PickleValue {
  PickleKind kind = PickleKind::kNone;
  int64_t number = 0;  // of a bool, an int and a global; else the place of the items
  std::string_view text;
};

class Pickle {
 public:
  // One pickle at the front of `bytes`, of protocol 2 to 5. `globals` are the names that it may
  // refer to, such as "collections.OrderedDict". ModelError, starting with `where`, for any other,
  // for opcodes that data does not need, and for a pickle that breaks the format. Nothing in it
  // makes the reader recurse, and memory is bounded by a multiple of its size.
  Pickle(std::span<const std::byte> bytes, std::string where,
         std::span<const std::string_view> globals);

  const PickleValue& root() const noexcept { return root_; }
  size_t size() const noexcept { return pos_; }  // of the bytes up to the end of the pickle
  std::span<const PickleValue> items(const PickleValue& value) const;
  // Every persistent value, in the order of the pickle.
  std::span<const PickleValue> persistent() const noexcept { return persistent_; }

 private:
  template <class... A>
  [[noreturn]] void fail(const A&... what) const;
  std::string key() const;
  size_t floor() const noexcept { return marks_.empty() ? 0 : marks_.back(); }

  std::string_view take(uint64_t size);
  template <class T>
  T number();
  void push(const PickleValue& value);
  PickleValue pop();
  PickleValue& top();
  std::vector<PickleValue> pop_to_mark();
  void push_items(PickleKind kind, std::vector<PickleValue> items);
  void push_top(PickleKind kind, size_t count);
  void append(bool dict, std::vector<PickleValue> items);
  void put(uint64_t index);
  void get(uint64_t index);
  void global(std::string_view module, std::string_view name);
  void call();

  bool read_scalar();
  bool read_text();
  bool read_container();
  bool read_memo();
  bool read_object();

  std::span<const std::byte> bytes_;
  std::string where_;
  std::span<const std::string_view> globals_;
  size_t pos_ = 0;
  size_t start_ = 0;  // of the current opcode
  uint8_t op_ = 0;
  size_t pushed_ = 0;
  PickleValue root_;
  std::vector<PickleValue> stack_;
  std::vector<size_t> marks_;
  std::vector<PickleValue> memo_;
  std::vector<PickleValue> persistent_;
  std::deque<std::vector<PickleValue>> items_;
};

}  // namespace trine
