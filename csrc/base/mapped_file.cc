// SPDX-License-Identifier: Apache-2.0
#include "base/mapped_file.h"

#include <cstdint>
#include <system_error>
#include <utility>

#include "base/error.h"

#ifdef _WIN32
#include "base/windows.h"
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#endif

namespace trine {

namespace {

[[noreturn]] void fail(const std::string& name, std::string_view why) {
  throw ModelError(cat(name, ": ", why));
}

#ifdef _WIN32

int last_error() { return static_cast<int>(GetLastError()); }

class Handle {
 public:
  explicit Handle(HANDLE handle) : handle_(handle) {}
  ~Handle() {
    if (*this) CloseHandle(handle_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  explicit operator bool() const { return handle_ != nullptr && handle_ != INVALID_HANDLE_VALUE; }
  HANDLE get() const { return handle_; }

 private:
  HANDLE handle_;
};

#else

int last_error() { return errno; }

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

#endif

[[noreturn]] void fail_with_reason(const std::string& name, std::string_view action) {
  const int code = last_error();
  fail(name, cat("cannot ", action, ": ", std::system_category().message(code)));
}

size_t checked_size(const std::string& name, uint64_t size) {
  if (size == 0) fail(name, "the file is empty");
  if (size > SIZE_MAX / 2) fail(name, "the file is too large for this process to map");
  return static_cast<size_t>(size);
}

#ifdef _WIN32

std::span<const std::byte> map_file(const std::filesystem::path& path, const std::string& name) {
  // The backup flag lets a folder be opened, so that the message can say what is wrong with it.
  const Handle file(CreateFileW(path.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE,
                                nullptr, OPEN_EXISTING,
                                FILE_ATTRIBUTE_NORMAL | FILE_FLAG_BACKUP_SEMANTICS, nullptr));
  if (!file) fail_with_reason(name, "open");
  BY_HANDLE_FILE_INFORMATION info;
  if (GetFileType(file.get()) != FILE_TYPE_DISK || !GetFileInformationByHandle(file.get(), &info)) {
    fail(name, "not a regular file");
  }
  if (info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) fail(name, "is a folder, not a file");
  const size_t size = checked_size(name, (uint64_t{info.nFileSizeHigh} << 32) | info.nFileSizeLow);
  const Handle mapping(CreateFileMappingW(file.get(), nullptr, PAGE_READONLY, 0, 0, nullptr));
  if (!mapping) fail_with_reason(name, "map");
  const void* data = MapViewOfFile(mapping.get(), FILE_MAP_READ, 0, 0, size);
  if (data == nullptr) fail_with_reason(name, "map");
  return {static_cast<const std::byte*>(data), size};
}

void unmap(std::span<const std::byte> bytes) noexcept { UnmapViewOfFile(bytes.data()); }

void will_need(std::span<const std::byte> bytes) noexcept {
  WIN32_MEMORY_RANGE_ENTRY range{const_cast<std::byte*>(bytes.data()), bytes.size()};
  (void)PrefetchVirtualMemory(GetCurrentProcess(), 1, &range, 0);
}

#else

std::span<const std::byte> map_file(const std::filesystem::path& path, const std::string& name) {
  // O_NONBLOCK: opening a named pipe must not wait for its writer. Regular files ignore it.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) fail_with_reason(name, "open");
  struct stat info;
  if (::fstat(file.get(), &info) != 0) fail_with_reason(name, "read the size");
  if (S_ISDIR(info.st_mode)) fail(name, "is a folder, not a file");
  if (!S_ISREG(info.st_mode)) fail(name, "not a regular file");
  const size_t size = checked_size(name, static_cast<uint64_t>(info.st_size));
  const void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) fail_with_reason(name, "map");
  return {static_cast<const std::byte*>(data), size};
}

void unmap(std::span<const std::byte> bytes) noexcept {
  ::munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
}

void will_need(std::span<const std::byte> bytes) noexcept {
  (void)::madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_WILLNEED);
}

#endif

}  // namespace

std::string display_name(const std::filesystem::path& path) {
  const std::u8string name = path.u8string();
  return {name.begin(), name.end()};
}

MappedFile::MappedFile(std::filesystem::path path)
    : path_(std::move(path)), name_(display_name(path_)), bytes_(map_file(path_, name_)) {}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) unmap(bytes_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      name_(std::move(other.name_)),
      bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(name_, other.name_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void MappedFile::prefetch() const noexcept {
  if (!bytes_.empty()) will_need(bytes_);
}

}  // namespace trine
