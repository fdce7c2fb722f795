// SPDX-License-Identifier: Apache-2.0
#include "weights/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/json.h"

namespace trine {

namespace {

// The limit of the reference implementation.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

// Values of one tensor's object as the header has them, not checked against anything yet.
struct Claim {
  SafetensorsEntry entry;
  uint64_t begin = 0;
  uint64_t end = 0;
};

class Parser {
 public:
  Parser(std::span<const std::byte> file, const std::string& file_name)
      : file_name_(file_name), header_(split(file)), reader_(header_, file_name + ": header") {}

  Safetensors parse() {
    read_header();
    // Empty tensors share their offsets with a neighbour; they keep the header's order.
    std::stable_sort(claims_.begin(), claims_.end(), [](const Claim& a, const Claim& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    check_names();
    check_layout();
    for (Claim& claim : claims_) {
      claim.entry.data = data_.subspan(claim.begin, claim.end - claim.begin);
      result_.tensors.push_back(std::move(claim.entry));
    }
    return std::move(result_);
  }

 private:
  template <class... A>
  [[noreturn]] void fail(const A&... what) const {
    throw ModelError(cat(file_name_, ": ", what...));
  }
  template <class... A>
  [[noreturn]] void fail_tensor(const Claim& claim, const A&... what) const {
    fail("tensor ", quoted(claim.entry.name), ": ", what...);
  }

  // The header's text; the data goes to data_.
  std::string_view split(std::span<const std::byte> file) {
    const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
    if (text.starts_with("version https://git-lfs")) {
      fail("is a Git LFS pointer, not the file that it points to");
    }
    uint64_t length = 0;
    if (file.size() < sizeof length) fail("has ", file.size(), " bytes, too few for a header");
    std::memcpy(&length, file.data(), sizeof length);
    if (length > kMaxHeaderBytes) {
      fail("header of ", length, " bytes, the limit is ", kMaxHeaderBytes,
           "; not a safetensors file?");
    }
    if (length > file.size() - sizeof length) {
      const bool is_other = file.size() > sizeof length && text[sizeof length] != '{';
      fail("header of ", length, " bytes in a file of ", file.size(),
           is_other ? "; not a safetensors file?" : "; truncated?");
    }
    data_ = file.subspan(sizeof length + length);
    const std::string_view header = text.substr(sizeof length, length);
    if (!header.starts_with('{')) fail("header does not start with '{'; not a safetensors file?");
    return header;
  }

  void read_header() {
    std::string key;
    bool has_metadata = false;
    for (reader_.begin_object(); reader_.next_key(key);) {
      if (key != "__metadata__") {
        claims_.push_back(read_tensor(key));
      } else if (std::exchange(has_metadata, true)) {
        reader_.fail("__metadata__ comes twice");
      } else {
        read_metadata();
      }
    }
    reader_.finish();
  }

  void read_metadata() {
    auto& metadata = result_.metadata;
    std::string key;
    for (reader_.begin_object(); reader_.next_key(key);) {
      metadata.emplace_back(key, std::string());
      reader_.string(metadata.back().second);
    }
    std::vector<std::string_view> keys;
    keys.reserve(metadata.size());
    for (const auto& [name, value] : metadata) keys.push_back(name);
    if (const auto twice = find_repeated(keys)) {
      fail("header: key ", quoted(*twice), " of __metadata__ comes twice");
    }
  }

  Claim read_tensor(const std::string& name) {
    Claim claim;
    claim.entry.name = name;
    std::string field;
    bool dtype = false, shape = false, offsets = false;
    for (reader_.begin_object(); reader_.next_key(field);) {
      bool again = false;
      if (field == "dtype") {
        again = std::exchange(dtype, true);
        claim.entry.dtype = read_dtype(claim);
      } else if (field == "shape") {
        again = std::exchange(shape, true);
        read_shape(claim);
      } else if (field == "data_offsets") {
        again = std::exchange(offsets, true);
        read_offsets(claim);
      } else {
        reader_.skip();  // as the reference implementation does
      }
      if (again) fail_tensor(claim, field, " comes twice");
    }
    if (!dtype || !shape || !offsets) {
      fail_tensor(claim, "no ", !dtype ? "dtype" : !shape ? "shape" : "data_offsets");
    }
    return claim;
  }

  DType read_dtype(const Claim& claim) {
    std::string name;
    reader_.string(name);
    const std::optional<DType> dtype = parse_dtype(name);
    if (!dtype) fail_tensor(claim, "unknown dtype ", quoted(name));
    return *dtype;
  }

  void read_shape(Claim& claim) {
    for (reader_.begin_array(); reader_.next_item();) {
      const uint64_t dim = reader_.unsigned_integer();
      if (dim > uint64_t{INT64_MAX}) fail_tensor(claim, "dimension ", dim, " is out of range");
      claim.entry.shape.push_back(static_cast<int64_t>(dim));
    }
  }

  void read_offsets(Claim& claim) {
    size_t count = 0;
    for (reader_.begin_array(); reader_.next_item(); ++count) {
      const uint64_t offset = reader_.unsigned_integer();
      if (count == 0) claim.begin = offset;
      if (count == 1) claim.end = offset;
    }
    if (count != 2) fail_tensor(claim, "data_offsets must be two numbers");
  }

  static std::optional<std::string_view> find_repeated(std::vector<std::string_view>& names) {
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    return twice == names.end() ? std::nullopt : std::optional(*twice);
  }

  void check_names() const {
    std::vector<std::string_view> names;
    names.reserve(claims_.size());
    for (const Claim& claim : claims_) names.push_back(claim.entry.name);
    if (const auto twice = find_repeated(names)) fail("tensor ", quoted(*twice), ": comes twice");
  }

  void check_layout() const {
    uint64_t covered = 0;
    const Claim* previous = nullptr;
    for (const Claim& claim : claims_) {
      check_size(claim);
      if (claim.begin < covered) {
        fail_tensor(claim, "its data overlaps that of ", quoted(previous->entry.name));
      }
      if (claim.begin > covered) {
        fail_tensor(claim, "a hole of ", claim.begin - covered, " bytes before its data");
      }
      covered = claim.end;
      previous = &claim;
    }
    if (covered != data_.size()) {
      fail(data_.size() - covered, " bytes after the data of the last tensor",
           previous == nullptr ? "" : ", ",
           previous == nullptr ? "" : quoted(previous->entry.name));
    }
  }

  void check_size(const Claim& claim) const {
    const auto& [entry, begin, end] = claim;
    if (begin > end)
      fail_tensor(claim, "data_offsets [", begin, ", ", end, "] end before they begin");
    const std::string_view dtype = name_of(entry.dtype);
    const std::optional<uint64_t> bytes = checked_bytes(entry.dtype, entry.shape);
    if (!bytes) {
      fail_tensor(claim, "shape ", entry.shape, " of ", dtype,
                  " is no whole number of bytes < 2^63");
    }
    if (*bytes != end - begin) {
      fail_tensor(claim, "shape ", entry.shape, " of ", dtype, " needs ", *bytes,
                  " bytes, data_offsets give ", end - begin);
    }
    if (end > data_.size()) {
      fail_tensor(claim, "its data ends at byte ", end, " of ", data_.size(), "; truncated file?");
    }
  }

  const std::string& file_name_;
  std::span<const std::byte> data_;
  std::string_view header_;
  JsonReader reader_;
  std::vector<Claim> claims_;
  Safetensors result_;
};

}  // namespace

Safetensors parse_safetensors(std::span<const std::byte> file, const std::string& file_name) {
  return Parser(file, file_name).parse();
}

}  // namespace trine
