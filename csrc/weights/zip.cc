// SPDX-License-Identifier: Apache-2.0
#include "weights/zip.h"

#include <algorithm>
#include <optional>

#include "base/bytes.h"
#include "base/error.h"
#include "base/utf8.h"

namespace trine {

namespace {

constexpr uint32_t kLocal = 0x04034B50, kCentral = 0x02014B50;
constexpr uint32_t kEnd = 0x06054B50, kEnd64 = 0x06064B50, kLocator64 = 0x07064B50;
constexpr size_t kLocalBytes = 30, kCentralBytes = 46;
constexpr size_t kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr size_t kMaxComment = 0xFFFF;
constexpr uint32_t kIn64 = 0xFFFFFFFF;  // the value stands in a field of 64 bits

struct Directory {
  uint64_t begin = 0;
  uint64_t bytes = 0;
  uint64_t count = 0;
};

struct Row {  // of the central directory
  ZipEntry entry;
  uint64_t begin = 0;  // of the local header
  uint64_t end = 0;    // of the data
};

class ZipParser {
 public:
  ZipParser(std::span<const std::byte> file, const std::string& file_name)
      : file_(file), file_name_(file_name) {}

  std::vector<ZipEntry> parse() {
    read_directory(find_directory());
    std::sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.entry.name < b.entry.name;
    });
    std::vector<ZipEntry> entries;
    std::vector<std::string_view> names;
    for (size_t i = 0; i < rows_.size(); ++i) {
      const ZipEntry& entry = rows_[i].entry;
      if (i > 0 && rows_[i].begin < rows_[i - 1].end) {
        fail("entry ", quoted(entry.name), " overlaps ", quoted(rows_[i - 1].entry.name));
      }
      entries.push_back(entry);
      names.push_back(entry.name);
    }
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail("entry ", quoted(*twice), " comes twice");
    return entries;
  }

 private:
  template <class... A>
  [[noreturn]] void fail(const A&... what) const {
    throw ModelError(cat(file_name_, ": ", what...));
  }

  template <class T>
  T at(uint64_t offset) const noexcept {
    return load_le<T>(file_, static_cast<size_t>(offset));
  }
  bool holds(uint64_t offset, uint64_t bytes) const noexcept {
    return offset <= file_.size() && bytes <= file_.size() - offset;
  }

  // The end record is the last thing in the file, but for a comment whose length it has.
  size_t find_end() const {
    if (file_.size() >= kEndBytes) {
      const size_t last = file_.size() - kEndBytes;
      for (size_t back = 0; back <= std::min(last, kMaxComment); ++back) {
        const size_t end = last - back;
        if (at<uint32_t>(end) == kEnd && at<uint16_t>(end + 20) == back) return end;
      }
    }
    fail("zip archive without its directory; truncated?");
  }

  Directory find_directory() const {
    const size_t end = find_end();
    Directory d{at<uint32_t>(end + 16), at<uint32_t>(end + 12), at<uint16_t>(end + 10)};
    uint64_t limit = end;
    if (end >= kLocator64Bytes && at<uint32_t>(end - kLocator64Bytes) == kLocator64) {
      limit = at<uint64_t>(end - kLocator64Bytes + 8);
      if (!holds(limit, kEnd64Bytes) || at<uint32_t>(limit) != kEnd64) {
        fail("zip archive whose 64-bit end record is not where it should be");
      }
      d = {at<uint64_t>(limit + 48), at<uint64_t>(limit + 40), at<uint64_t>(limit + 32)};
    }
    if (d.begin > limit || d.bytes > limit - d.begin || d.count > d.bytes / kCentralBytes) {
      fail("zip directory of ", d.count, " entries in ", d.bytes, " bytes at byte ", d.begin,
           " does not fit into ", limit, " bytes");
    }
    return d;
  }

  void read_directory(const Directory& d) {
    uint64_t pos = d.begin;
    const uint64_t end = d.begin + d.bytes;
    for (uint64_t i = 0; i < d.count; ++i) {
      if (end - pos < kCentralBytes || at<uint32_t>(pos) != kCentral) {
        fail("zip directory is broken at entry ", i, " of ", d.count);
      }
      const uint64_t name_bytes = at<uint16_t>(pos + 28), extra_bytes = at<uint16_t>(pos + 30);
      const uint64_t bytes = kCentralBytes + name_bytes + extra_bytes + at<uint16_t>(pos + 32);
      if (bytes > end - pos) fail("zip directory is broken at entry ", i, " of ", d.count);
      const std::string_view name = as_text(file_.subspan(pos + kCentralBytes, name_bytes));
      if (!is_utf8(name)) fail("zip entry ", i, " has a name that is not UTF-8");
      rows_.push_back(read_row(pos, name, pos + kCentralBytes + name_bytes, extra_bytes));
      pos += bytes;
      if (rows_.back().end > d.begin) {
        fail("entry ", quoted(name), " reaches into the zip directory");
      }
    }
  }

  Row read_row(uint64_t pos, std::string_view name, uint64_t extra, uint64_t extra_bytes) const {
    Row row{{name, at<uint16_t>(pos + 10), {}}, at<uint32_t>(pos + 42), 0};
    uint64_t bytes = at<uint32_t>(pos + 20), size = at<uint32_t>(pos + 24);
    read_extra64(name, file_.subspan(extra, extra_bytes), {&size, &bytes, &row.begin});
    if ((at<uint16_t>(pos + 8) & 1u) != 0) fail("entry ", quoted(name), " is encrypted");
    if (row.entry.method == 0 && bytes != size) {
      fail("entry ", quoted(name), " is stored in ", bytes, " bytes but has ", size);
    }
    if (!holds(row.begin, kLocalBytes) || at<uint32_t>(row.begin) != kLocal) {
      fail("entry ", quoted(name), " has no header at byte ", row.begin);
    }
    const uint64_t local_name = at<uint16_t>(row.begin + 26);
    const uint64_t data = row.begin + kLocalBytes + local_name + at<uint16_t>(row.begin + 28);
    if (!holds(data, bytes)) fail("entry ", quoted(name), " reaches past the end; truncated?");
    if (as_text(file_.subspan(row.begin + kLocalBytes, local_name)) != name) {
      fail("entry ", quoted(name), " has another name in its header");
    }
    row.entry.data = file_.subspan(data, bytes);
    row.end = data + bytes;
    return row;
  }

  // Extra field 1 has, in this order, those of the values that did not fit into 32 bits.
  void read_extra64(std::string_view name, std::span<const std::byte> extra,
                    std::initializer_list<uint64_t*> values) const {
    std::optional<std::span<const std::byte>> wide;
    while (extra.size() >= 4) {
      const size_t bytes = load_le<uint16_t>(extra, 2);
      if (bytes > extra.size() - 4) break;
      if (load_le<uint16_t>(extra, 0) == 1 && !wide) wide = extra.subspan(4, bytes);
      extra = extra.subspan(4 + bytes);
    }
    for (uint64_t* value : values) {
      if (*value != kIn64) continue;
      if (!wide || wide->size() < 8) fail("entry ", quoted(name), " lacks its 64-bit sizes");
      *value = load_le<uint64_t>(*wide, 0);
      wide = wide->subspan(8);
    }
  }

  std::span<const std::byte> file_;
  const std::string& file_name_;
  std::vector<Row> rows_;
};

}  // namespace

std::vector<ZipEntry> parse_zip(std::span<const std::byte> file, const std::string& file_name) {
  return ZipParser(file, file_name).parse();
}

}  // namespace trine
