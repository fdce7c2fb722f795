// SPDX-License-Identifier: Apache-2.0
#include "base/atomic_file.h"

#include <algorithm>
#include <cerrno>
#include <random>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/mapped_file.h"

#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

namespace trine {
namespace {

#ifdef _WIN32
std::FILE* create(const std::filesystem::path& path) { return _wfopen(path.c_str(), L"wbx"); }
bool to_disk(std::FILE* file) { return _commit(_fileno(file)) == 0; }
constexpr std::string_view kMapped = " (Windows replaces no file that a process has mapped)";
#else
std::FILE* create(const std::filesystem::path& path) { return std::fopen(path.c_str(), "wbx"); }
bool to_disk(std::FILE* file) { return fsync(fileno(file)) == 0; }
constexpr std::string_view kMapped;
#endif

constexpr size_t kPiece = size_t{2} << 20;  // of x86-64 and ARM

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  std::random_device random;
  temporary_ = path_;
  temporary_ += cat(".", random(), ".tmp");
  file_ = create(temporary_);
  if (file_ == nullptr) fail(errno);
  (void)std::setvbuf(file_, nullptr, _IONBF, 0);
  piece_.reserve(kPiece);
}

AtomicFile::~AtomicFile() {
  if (temporary_.empty()) return;
  if (file_ != nullptr) std::fclose(file_);
  std::error_code ignored;
  std::filesystem::remove(temporary_, ignored);
}

void AtomicFile::fail(int code) const {
  throw std::system_error(code, std::generic_category(),
                          cat(display_name(path_), ": cannot be written"));
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::span<const std::byte> now =
        bytes.first(std::min(bytes.size(), kPiece - piece_.size()));
    piece_.insert(piece_.end(), now.begin(), now.end());
    bytes = bytes.subspan(now.size());
    if (piece_.size() == kPiece) write_piece();
  }
}

void AtomicFile::write_piece() {
  if (std::fwrite(piece_.data(), 1, piece_.size(), file_) != piece_.size()) fail(errno);
  piece_.clear();
}

void AtomicFile::commit() {
  write_piece();
  if (std::fflush(file_) != 0 || !to_disk(file_)) fail(errno);
  if (std::fclose(std::exchange(file_, nullptr)) != 0) fail(errno);
  std::error_code code;
  std::filesystem::rename(temporary_, path_, code);
  if (code) throw std::system_error(code, cat(display_name(path_), ": cannot be written", kMapped));
  temporary_.clear();
}

}  // namespace trine
