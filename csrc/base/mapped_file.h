// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace trine {

// The path as UTF-8, for messages.
std::string display_name(const std::filesystem::path& path);

// A whole file, mapped read-only and shared: every process that maps it uses the same pages.
// The file must not shrink while it is mapped: touching a page that is gone ends the process
// (SIGBUS), as with every reader that maps. Replacing a file by rename is safe (on Windows,
// refused).
class MappedFile {
 public:
  // ModelError with the file and the system's reason; also for a folder, an empty file and
  // anything else that is not a regular file.
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  const std::filesystem::path& path() const noexcept { return path_; }
  const std::string& name() const noexcept { return name_; }

  // Asks the system to start reading the pages. Only a hint: it never fails or waits.
  void prefetch() const noexcept;

 private:
  std::filesystem::path path_;
  std::string name_;
  std::span<const std::byte> bytes_;
};

}  // namespace trine
