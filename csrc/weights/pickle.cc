// SPDX-License-Identifier: Apache-2.0
#include "weights/pickle.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/utf8.h"

namespace trine {

namespace {

// A checkpoint has some thirty values per tensor, in a kilobyte at most.
constexpr size_t kMaxBytes = size_t{256} << 20;
constexpr size_t kMaxValues = size_t{4} << 20;
constexpr int kMaxProtocol = 5;

enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kNone = 'N',
  kTrue = 0x88,
  kFalse = 0x89,
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kLong1 = 0x8A,
  kBinFloat = 'G',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kShortBinUnicode = 0x8C,
  kBinUnicode8 = 0x8D,
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kBinBytes8 = 0x8E,
  kEmptyTuple = ')',
  kTuple = 't',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kEmptyList = ']',
  kAppend = 'a',
  kAppends = 'e',
  kEmptyDict = '}',
  kSetItem = 's',
  kSetItems = 'u',
  kGlobal = 'c',
  kStackGlobal = 0x93,
  kReduce = 'R',
  kNewObj = 0x81,
  kBuild = 'b',
  kBinPersId = 'Q',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kMemoize = 0x94,
  kProto = 0x80,
  kFrame = 0x95,
};

// Those that are refused, for messages.
struct OpcodeName {
  uint8_t op;
  std::string_view name;
};
constexpr OpcodeName kRefused[] = {
    {'0', "POP"},          {'1', "POP_MARK"},
    {'2', "DUP"},          {'F', "FLOAT"},
    {'I', "INT"},          {'L', "LONG"},
    {'P', "PERSID"},       {'S', "STRING"},
    {'V', "UNICODE"},      {'d', "DICT"},
    {'g', "GET"},          {'i', "INST"},
    {'l', "LIST"},         {'o', "OBJ"},
    {'p', "PUT"},          {0x82, "EXT1"},
    {0x83, "EXT2"},        {0x84, "EXT4"},
    {0x8B, "LONG4"},       {0x8F, "EMPTY_SET"},
    {0x90, "ADDITEMS"},    {0x91, "FROZENSET"},
    {0x92, "NEWOBJ_EX"},   {0x96, "BYTEARRAY8"},
    {0x97, "NEXT_BUFFER"}, {0x98, "READONLY_BUFFER"},
};

std::string name_of_opcode(uint8_t op) {
  const auto* found = std::find_if(std::begin(kRefused), std::end(kRefused),
                                   [&](const OpcodeName& row) { return row.op == op; });
  return found == std::end(kRefused) ? cat("number ", int{op}) : std::string(found->name);
}

bool has_pairs(const PickleValue& value) {
  return value.kind == PickleKind::kDict || value.kind == PickleKind::kCall;
}

}  // namespace

Pickle::Pickle(std::span<const std::byte> bytes, std::string where,
               std::span<const std::string_view> globals)
    : bytes_(bytes.first(std::min(bytes.size(), kMaxBytes))),
      where_(std::move(where)),
      globals_(globals) {
  for (;;) {
    start_ = pos_;
    op_ = number<uint8_t>();
    if (op_ == kStop) break;
    if (!read_scalar() && !read_text() && !read_container() && !read_memo() && !read_object()) {
      fail("opcode ", name_of_opcode(op_), " is refused", key());
    }
  }
  root_ = pop();
  if (!stack_.empty() || !marks_.empty()) fail("ends with values that nothing takes");
}

std::span<const PickleValue> Pickle::items(const PickleValue& value) const {
  if (value.kind < PickleKind::kTuple || value.kind == PickleKind::kGlobal) return {};
  return items_[static_cast<size_t>(value.number)];
}

template <class... A>
void Pickle::fail(const A&... what) const {
  throw ModelError(cat(where_, ": byte ", start_, ": ", what...));
}

// The innermost key whose value is being made, for messages. Between a mark and the next are the
// keys and values of the dict below it, or else a dict, a key and what becomes its value.
std::string Pickle::key() const {
  size_t end = stack_.size();
  for (size_t i = marks_.size() + 1; i-- > 0;) {
    const size_t begin = i == 0 ? 0 : marks_[i - 1];
    for (size_t k = end; k-- > begin + 1;) {
      if (stack_[k].kind == PickleKind::kString && has_pairs(stack_[k - 1])) {
        return cat(" for key ", quoted(stack_[k].text));
      }
    }
    if (begin > 0 && end > begin && has_pairs(stack_[begin - 1])) {
      const PickleValue& key = stack_[begin + (end - begin - 1) / 2 * 2];
      if (key.kind == PickleKind::kString) return cat(" for key ", quoted(key.text));
    }
    end = begin;
  }
  return "";
}

std::string_view Pickle::take(uint64_t size) {
  if (size > bytes_.size() - pos_) {
    if (bytes_.size() == kMaxBytes) fail("is longer than ", kMaxBytes, " bytes");
    fail("wants ", size, " bytes, ", bytes_.size() - pos_, " are left; truncated?");
  }
  const std::string_view taken = as_text(bytes_.subspan(pos_, static_cast<size_t>(size)));
  pos_ += static_cast<size_t>(size);
  return taken;
}

template <class T>
T Pickle::number() {
  take(sizeof(T));
  return load_le<T>(bytes_, pos_ - sizeof(T));
}

void Pickle::push(const PickleValue& value) {
  if (++pushed_ > kMaxValues) fail("has more than ", kMaxValues, " values");
  stack_.push_back(value);
}

PickleValue& Pickle::top() {
  if (stack_.size() <= floor()) fail("takes a value where none is");
  return stack_.back();
}

PickleValue Pickle::pop() {
  const PickleValue value = top();
  stack_.pop_back();
  return value;
}

std::vector<PickleValue> Pickle::pop_to_mark() {
  if (marks_.empty()) fail("takes values up to a mark where none is");
  const auto from = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  std::vector<PickleValue> items(from, stack_.end());
  stack_.erase(from, stack_.end());
  marks_.pop_back();
  return items;
}

void Pickle::push_items(PickleKind kind, std::vector<PickleValue> items) {
  push({kind, static_cast<int64_t>(items_.size()), {}});
  items_.push_back(std::move(items));
}

void Pickle::push_top(PickleKind kind, size_t count) {
  if (stack_.size() - floor() < count) fail("takes a value where none is");
  const auto from = stack_.end() - static_cast<std::ptrdiff_t>(count);
  std::vector<PickleValue> items(from, stack_.end());
  stack_.erase(from, stack_.end());
  push_items(kind, std::move(items));
}

void Pickle::append(bool dict, std::vector<PickleValue> items) {
  const PickleValue& to = top();
  if (dict ? !has_pairs(to) : to.kind != PickleKind::kList) {
    fail("adds to what is no ", dict ? "dict" : "list", key());
  }
  if (dict && items.size() % 2 != 0) fail("adds a key without a value", key());
  std::vector<PickleValue>& into = items_[static_cast<size_t>(to.number)];
  into.insert(into.end(), items.begin(), items.end());
}

// Writers number what they keep from 0 or 1 upwards: an index past the number of values is a lie
// that would cost memory.
void Pickle::put(uint64_t index) {
  if (index > pushed_) fail("keeps a value under the number ", index);
  const PickleValue value = top();
  if (index >= memo_.size()) memo_.resize(static_cast<size_t>(index) + 1);
  memo_[static_cast<size_t>(index)] = value;
}

void Pickle::get(uint64_t index) {
  if (index >= memo_.size()) fail("refers to value ", index, " of ", memo_.size());
  push(memo_[static_cast<size_t>(index)]);
}

void Pickle::global(std::string_view module, std::string_view name) {
  if (!is_utf8(module) || !is_utf8(name)) fail("names a global that is not UTF-8", key());
  const std::string full = cat(module, ".", name);
  const auto found = std::find(globals_.begin(), globals_.end(), full);
  if (found == globals_.end()) {
    fail("global ", quoted(full), " is refused", key(), "; tensors do not need it");
  }
  push({PickleKind::kGlobal, found - globals_.begin(), {}});
}

void Pickle::call() {
  const PickleValue arguments = pop(), function = pop();
  if (function.kind != PickleKind::kGlobal) fail("calls what is no function", key());
  if (arguments.kind != PickleKind::kTuple) fail("calls without a tuple of arguments", key());
  push_items(PickleKind::kCall, {function, arguments});
}

bool Pickle::read_scalar() {
  switch (op_) {
    case kNone:
      push({});
      return true;
    case kTrue:
    case kFalse:
      push({PickleKind::kBool, op_ == kTrue, {}});
      return true;
    case kBinInt:
      push({PickleKind::kInt, number<int32_t>(), {}});
      return true;
    case kBinInt1:
      push({PickleKind::kInt, number<uint8_t>(), {}});
      return true;
    case kBinInt2:
      push({PickleKind::kInt, number<uint16_t>(), {}});
      return true;
    case kLong1: {
      const std::string_view digits = take(number<uint8_t>());
      uint64_t value = !digits.empty() && (digits.back() & 0x80) != 0 ? ~uint64_t{0} : 0;
      if (digits.size() > sizeof value) {
        push({PickleKind::kLong, 0, digits});
        return true;
      }
      std::memcpy(&value, digits.data(), digits.size());
      push({PickleKind::kInt, static_cast<int64_t>(value), {}});
      return true;
    }
    case kBinFloat:
      take(sizeof(double));
      push({PickleKind::kFloat, 0, {}});
      return true;
    default:
      return false;
  }
}

bool Pickle::read_text() {
  uint64_t size = 0;
  switch (op_) {
    case kShortBinString:
    case kShortBinUnicode:
    case kShortBinBytes:
      size = number<uint8_t>();
      break;
    case kBinString:
    case kBinUnicode:
    case kBinBytes:
      size = number<uint32_t>();
      break;
    case kBinUnicode8:
    case kBinBytes8:
      size = number<uint64_t>();
      break;
    default:
      return false;
  }
  const std::string_view text = take(size);
  const bool bytes = op_ == kShortBinBytes || op_ == kBinBytes || op_ == kBinBytes8;
  const bool valid = !bytes && is_utf8(text);
  const bool python2 = op_ == kShortBinString || op_ == kBinString;  // where strings are bytes
  if (!bytes && !valid && !python2) fail("has a string that is not UTF-8", key());
  push({valid ? PickleKind::kString : PickleKind::kBytes, 0, text});
  return true;
}

bool Pickle::read_container() {
  switch (op_) {
    case kMark:
      if (++pushed_ > kMaxValues) fail("has more than ", kMaxValues, " values");
      marks_.push_back(stack_.size());
      return true;
    case kEmptyTuple:
    case kTuple1:
    case kTuple2:
    case kTuple3:
      push_top(PickleKind::kTuple, op_ == kEmptyTuple ? 0 : op_ - kTuple1 + 1u);
      return true;
    case kTuple:
      push_items(PickleKind::kTuple, pop_to_mark());
      return true;
    case kEmptyList:
    case kEmptyDict:
      push_items(op_ == kEmptyList ? PickleKind::kList : PickleKind::kDict, {});
      return true;
    case kAppend:
      append(false, {pop()});
      return true;
    case kAppends:
      append(false, pop_to_mark());
      return true;
    case kSetItem: {
      const PickleValue value = pop(), key = pop();
      append(true, {key, value});
      return true;
    }
    case kSetItems:
      append(true, pop_to_mark());
      return true;
    default:
      return false;
  }
}

bool Pickle::read_memo() {
  switch (op_) {
    case kProto:
      if (const int protocol = number<uint8_t>(); protocol > kMaxProtocol) {
        fail("protocol ", protocol, ", at most ", kMaxProtocol, " is read");
      }
      return true;
    case kFrame:  // a hint for readers of streams
      take(sizeof(uint64_t));
      return true;
    case kBinPut:
      put(number<uint8_t>());
      return true;
    case kLongBinPut:
      put(number<uint32_t>());
      return true;
    case kMemoize:
      put(memo_.size());
      return true;
    case kBinGet:
      get(number<uint8_t>());
      return true;
    case kLongBinGet:
      get(number<uint32_t>());
      return true;
    default:
      return false;
  }
}

bool Pickle::read_object() {
  switch (op_) {
    case kGlobal: {
      const auto line = [&] {
        const std::string_view rest = as_text(bytes_.subspan(pos_));
        const std::string_view text = take(std::min(rest.find('\n'), rest.size()));
        take(1);
        return text;
      };
      const std::string_view module = line();
      global(module, line());
      return true;
    }
    case kStackGlobal: {
      const PickleValue name = pop(), module = pop();
      if (module.kind != PickleKind::kString || name.kind != PickleKind::kString) {
        fail("names a global by what is no string", key());
      }
      global(module.text, name.text);
      return true;
    }
    case kReduce:
    case kNewObj:
      call();
      return true;
    case kBuild:  // attributes, such as a state dict's _metadata: nothing here has any
      pop();
      if (top().kind != PickleKind::kCall) fail("sets attributes of what is no object", key());
      return true;
    case kBinPersId:
      push_top(PickleKind::kPersistent, 1);
      persistent_.push_back(stack_.back());
      return true;
    default:
      return false;
  }
}

}  // namespace trine
