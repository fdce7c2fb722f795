// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <span>
#include <vector>

namespace trine {

// A file that is there with all of its bytes or not at all: it is written under a name of its own
// beside the one that is wanted, brought to the disk, and renamed. Readers of a file that is
// replaced keep what they have mapped; on Windows it is not replaced, but an error. Errors are
// std::system_error.
//
// It is written in whole huge pages, as far as there are bytes: where a file system's cache has
// such pages at all (ext4 of Linux 6.16, XFS), a mapping of the file takes them, so that reading
// weights misses the TLB less.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();  // removes what was not committed
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void commit();

 private:
  void write_piece();
  [[noreturn]] void fail(int code) const;

  std::filesystem::path path_, temporary_;
  std::FILE* file_ = nullptr;
  std::vector<std::byte> piece_;  // not written yet
};

}  // namespace trine
