// SPDX-License-Identifier: Apache-2.0
#include "weights/gguf.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "base/bytes.h"
#include "base/error.h"
#include "base/utf8.h"

namespace trine {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kMinVersion = 2, kMaxVersion = 3;
constexpr size_t kHeader = 24;  // magic, version, number of tensors, number of keys
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxName = 65535;
constexpr uint32_t kDefaultAlignment = 32;
constexpr std::string_view kAlignmentKey = "general.alignment";
// Arrays of arrays are allowed, deep ones are nobody's. A bound on the stack.
constexpr int kMaxDepth = 8;
// A name's length, a type, a value; a name's length, a number of dimensions, a type, an offset.
constexpr size_t kLeastKey = 8 + 4 + 1, kLeastTensor = 8 + 4 + 4 + 8;
// An item's bytes by type; 0 for strings and arrays, whose length comes with each.
constexpr size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr size_t kLeastString = 8, kLeastArray = 4 + 8;

// ggml's numbers of the types. The gaps were types once, and are gone.
std::optional<DType> dtype_of(uint32_t number) {
  struct Row {
    uint32_t number;
    DType dtype;
  };
  constexpr Row kRows[] = {
      {0, DType::kF32},     {1, DType::kF16},    {2, DType::kQ4_0},    {3, DType::kQ4_1},
      {6, DType::kQ5_0},    {7, DType::kQ5_1},   {8, DType::kQ8_0},    {9, DType::kQ8_1},
      {10, DType::kQ2K},    {11, DType::kQ3K},   {12, DType::kQ4K},    {13, DType::kQ5K},
      {14, DType::kQ6K},    {15, DType::kQ8K},   {16, DType::kIQ2XXS}, {17, DType::kIQ2XS},
      {18, DType::kIQ3XXS}, {19, DType::kIQ1S},  {20, DType::kIQ4NL},  {21, DType::kIQ3S},
      {22, DType::kIQ2S},   {23, DType::kIQ4XS}, {24, DType::kI8},     {25, DType::kI16},
      {26, DType::kI32},    {27, DType::kI64},   {28, DType::kF64},    {29, DType::kIQ1M},
      {30, DType::kBF16},   {34, DType::kTQ1_0}, {35, DType::kTQ2_0},  {39, DType::kMXFP4},
      {40, DType::kNVFP4},  {41, DType::kQ1_0},
  };
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows),
                                 [&](const Row& r) { return r.number == number; });
  return row == std::end(kRows) ? std::nullopt : std::optional(row->dtype);
}

// Where a value of this type that starts at `at` ends. For bytes that were checked.
size_t end_of(Bytes bytes, GgufType type, size_t at) {
  if (type == GgufType::kString) return at + 8 + load_le<uint64_t>(bytes, at);
  if (type != GgufType::kArray) return at + kSizes[static_cast<size_t>(type)];
  const auto item = static_cast<GgufType>(load_le<uint32_t>(bytes, at));
  const uint64_t count = load_le<uint64_t>(bytes, at + 4);
  at += kLeastArray;
  if (const size_t size = kSizes[static_cast<size_t>(item)]; size != 0) return at + count * size;
  for (uint64_t i = 0; i < count; ++i) at = end_of(bytes, item, at);
  return at;
}

// What is being read, for messages.
struct Where {
  std::string_view kind;  // "key" or "tensor"
  uint64_t index, count;
  std::string_view name = {};
  bool has_name = false;
  std::optional<uint64_t> item = {};
};

std::string describe(const Where& at) {
  const std::string what = at.has_name ? cat(at.kind, " ", quoted(at.name))
                                       : cat(at.kind, " ", at.index, " of ", at.count);
  return at.item ? cat("item ", *at.item, " of ", what) : what;
}

class Parser {
 public:
  Parser(Bytes file, const std::string& file_name) : file_(file), file_name_(file_name) {}

  Gguf parse() {
    const auto [tensors, keys] = read_header();
    read_metadata(keys);
    check_unique(result_.metadata, "key");
    read_tensors(tensors);
    check_unique(result_.tensors, "tensor");
    place_tensors();
    return std::move(result_);
  }

 private:
  template <class... A>
  [[noreturn]] void fail(const A&... what) const {
    throw ModelError(cat(file_name_, ": ", what...));
  }

  size_t left() const { return file_.size() - at_; }

  template <class... A>
  [[noreturn]] void fail_at(const Where& where, const A&... what) const {
    fail(describe(where), ": ", what...);
  }

  // Steps over so many bytes and returns where they began.
  size_t take(const Where& where, size_t size) {
    if (left() < size) fail_at(where, "the file ends in it, at byte ", file_.size());
    at_ += size;
    return at_ - size;
  }

  template <class T>
  T number(const Where& where) {
    return load_le<T>(file_, take(where, sizeof(T)));
  }

  std::string_view text(const Where& where) {
    const auto length = number<uint64_t>(where);
    if (length > left()) {
      fail_at(where, "a string of ", length, " bytes, ", left(), " are left in the file");
    }
    return as_text(file_.subspan(take(where, length), length));
  }

  std::string_view read_name(Where& where) {
    where.name = text(where);
    if (where.name.size() > kMaxName) {
      fail_at(where, "a name of ", where.name.size(), " bytes, the limit is ", kMaxName);
    }
    if (!is_utf8(where.name)) fail_at(where, "the name is not UTF-8");
    where.has_name = true;
    return where.name;
  }

  struct Counts {
    uint64_t tensors, keys;
  };

  Counts read_header() {
    const std::string_view start = as_text(file_.first(std::min<size_t>(file_.size(), 32)));
    if (start.starts_with("version https://git-lfs")) {
      fail("is a Git LFS pointer, not the file that it points to");
    }
    if (!start.starts_with(kMagic)) fail("does not start with 'GGUF'; not a GGUF file?");
    if (file_.size() < kHeader) fail("has ", file_.size(), " bytes, too few for a header");
    const auto version = load_le<uint32_t>(file_, 4);
    if ((version & 0xFFFFu) == 0 && version != 0) fail("is big-endian, which is not read");
    if (version < kMinVersion || version > kMaxVersion) {
      fail("is of version ", version, " of the format; 2 and 3 are read");
    }
    const Counts counts = {load_le<uint64_t>(file_, 8), load_le<uint64_t>(file_, 16)};
    at_ = kHeader;
    if (counts.keys > left() / kLeastKey) {
      fail("header: ", counts.keys, " keys in a file of ", file_.size(), " bytes");
    }
    if (counts.tensors > left() / kLeastTensor) {
      fail("header: ", counts.tensors, " tensors in a file of ", file_.size(), " bytes");
    }
    return counts;
  }

  void read_metadata(uint64_t count) {
    result_.metadata.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      GgufKey key;
      Where where = {"key", i, count};
      key.name = read_name(where);
      key.value.type = read_type(where);
      const size_t start = at_;
      check_value(key.value.type, where, 0);
      const size_t prefix = key.value.type == GgufType::kString ? 8 : 0;
      key.value.bytes = file_.subspan(start + prefix, at_ - start - prefix);
      if (key.name == kAlignmentKey) set_alignment(key.value);
      result_.metadata.push_back(key);
    }
  }

  GgufType read_type(const Where& where) {
    const auto type = number<uint32_t>(where);
    if (type > static_cast<uint32_t>(GgufType::kF64)) fail_at(where, "unknown type ", type);
    return static_cast<GgufType>(type);
  }

  void check_value(GgufType type, const Where& where, int depth) {
    switch (type) {
      case GgufType::kString:
        text(where);
        return;
      case GgufType::kArray:
        return check_array(where, depth + 1);
      case GgufType::kBool:
        if (const auto value = number<uint8_t>(where); value > 1) {
          fail_at(where, int{value}, " is neither true nor false");
        }
        return;
      default:
        take(where, kSizes[static_cast<size_t>(type)]);
    }
  }

  void check_array(Where where, int depth) {
    if (depth > kMaxDepth) fail_at(where, "arrays nested deeper than ", kMaxDepth);
    const GgufType type = read_type(where);
    const auto count = number<uint64_t>(where);
    const size_t size = kSizes[static_cast<size_t>(type)];
    const size_t least = type == GgufType::kString  ? kLeastString
                         : type == GgufType::kArray ? kLeastArray
                                                    : size;
    if (count > left() / least) {
      fail_at(where, "an array of ", count, " items, ", left(), " bytes are left in the file");
    }
    if (size != 0 && type != GgufType::kBool) {
      take(where, count * size);
      return;
    }
    for (uint64_t i = 0; i < count; ++i) {
      where.item = i;
      check_value(type, where, depth);
    }
  }

  void set_alignment(const GgufValue& value) {
    if (value.type != GgufType::kU32) fail(kAlignmentKey, " is no 32-bit unsigned number");
    alignment_ = load_le<uint32_t>(value.bytes, 0);
    if (!std::has_single_bit(alignment_)) {
      fail(kAlignmentKey, " is ", alignment_, ", which is no power of two");
    }
  }

  template <class Items>
  void check_unique(const Items& items, std::string_view kind) const {
    std::vector<std::string_view> names;
    names.reserve(items.size());
    for (const auto& item : items) names.push_back(item.name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail(kind, " ", quoted(*twice), ": comes twice");
  }

  void read_tensors(uint64_t count) {
    result_.tensors.reserve(count);
    offsets_.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      GgufEntry& entry = result_.tensors.emplace_back();
      Where where = {"tensor", i, count};
      entry.name = read_name(where);
      const auto dims = number<uint32_t>(where);
      if (dims > kMaxDims) fail_at(where, dims, " dimensions, at most ", kMaxDims);
      entry.shape.resize(dims);
      for (uint32_t d = dims; d-- > 0;) {
        const auto dim = number<uint64_t>(where);
        if (dim > uint64_t{INT64_MAX}) fail_at(where, "dimension ", dim, " is out of range");
        entry.shape[d] = static_cast<int64_t>(dim);
      }
      const auto type = number<uint32_t>(where);
      const std::optional<DType> dtype = dtype_of(type);
      if (!dtype) fail_at(where, "unknown type ", type);
      entry.dtype = *dtype;
      offsets_.push_back(number<uint64_t>(where));
    }
  }

  // Offsets count from the first multiple of the alignment behind the descriptions.
  void place_tensors() {
    const uint64_t padding = (alignment_ - at_ % alignment_) % alignment_;
    const Bytes data = file_.subspan(at_ + std::min<uint64_t>(padding, left()));
    for (size_t i = 0; i < offsets_.size(); ++i) {
      GgufEntry& entry = result_.tensors[i];
      const Where where = {"tensor", i, offsets_.size(), entry.name, true};
      const std::optional<uint64_t> bytes = checked_bytes(entry.dtype, entry.shape);
      if (!bytes) {
        fail_at(where, "shape ", entry.shape, " of ", name_of(entry.dtype),
                " is no whole number of blocks, or not below 2^63 bytes");
      }
      const uint64_t offset = offsets_[i];
      if (offset % alignment_ != 0) {
        fail_at(where, "offset ", offset, " is no multiple of the alignment, ", alignment_);
      }
      if (*bytes > data.size() || offset > data.size() - *bytes) {
        fail_at(where, "its ", *bytes, " bytes at offset ", offset, " do not lie in the ",
                data.size(), " bytes of data; truncated file?");
      }
      entry.data = data.subspan(offset, *bytes);
    }
    check_overlaps();
  }

  void check_overlaps() const {
    std::vector<const GgufEntry*> order;
    order.reserve(result_.tensors.size());
    for (const GgufEntry& entry : result_.tensors) {
      if (!entry.data.empty()) order.push_back(&entry);
    }
    std::sort(order.begin(), order.end(), [](const GgufEntry* a, const GgufEntry* b) {
      return a->data.data() < b->data.data();
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const Bytes before = order[i - 1]->data;
      if (order[i]->data.data() < before.data() + before.size()) {
        fail("tensor ", quoted(order[i]->name), ": its data overlaps that of ",
             quoted(order[i - 1]->name));
      }
    }
  }

  Bytes file_;
  const std::string& file_name_;
  size_t at_ = 0;
  uint32_t alignment_ = kDefaultAlignment;
  std::vector<uint64_t> offsets_;
  Gguf result_;
};

}  // namespace

GgufItems::GgufItems(const GgufValue& array)
    : bytes_(array.bytes),
      type_(static_cast<GgufType>(load_le<uint32_t>(array.bytes, 0))),
      left_(load_le<uint64_t>(array.bytes, 4)),
      at_(kLeastArray) {}

GgufValue GgufItems::next() {
  --left_;
  const size_t start = at_ + (type_ == GgufType::kString ? 8 : 0);
  at_ = end_of(bytes_, type_, at_);
  return {type_, bytes_.subspan(start, at_ - start)};
}

Gguf parse_gguf(std::span<const std::byte> file, const std::string& file_name) {
  return Parser(file, file_name).parse();
}

}  // namespace trine
