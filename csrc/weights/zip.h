// SPDX-License-Identifier: Apache-2.0
// Zip archives as a table of mapped entries; nothing is decompressed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace trine {

struct ZipEntry {
  std::string_view name;
  uint16_t method = 0;  // 0: stored, `data` is the content; else compressed
  std::span<const std::byte> data;
};

// The entries by name, in the order of their data. Sizes and places are those of the central
// directory, each checked against the file; local headers only say how long they are, and must
// agree on the name. ModelError for entries that overlap, that have the same name or are encrypted.
// Checksums are not compared: that would read every page of a file that is mapped to avoid it.
std::vector<ZipEntry> parse_zip(std::span<const std::byte> file, const std::string& file_name);

}  // namespace trine
