// SPDX-License-Identifier: Apache-2.0
// Compiled without sanitizers, see fiber.cc.
#include "shared_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>

#include "block.h"
#include "fiber.h"

namespace trine::simt {

namespace {

constexpr size_t kMapped = 512 << 10;
constexpr size_t kTags = kMapped - 4096;
constexpr unsigned char kUnwritten = 0xff;  // a NaN as float, bfloat16 and half
constexpr unsigned char kUntouched = 0xfe;  // likewise large and odd, if not NaN

// memset and the like are intercepted by the sanitizers, which would object.
void fill(char* memory, size_t bytes, unsigned char value) {
  volatile char* p = memory;
  for (size_t i = 0; i < bytes; ++i) p[i] = static_cast<char>(value);
}

}  // namespace

SharedMemory::SharedMemory() : memory_(map_memory(kMapped)) { arrays_.reserve(kArrays); }

SharedMemory::~SharedMemory() {
  allow_access(memory_, kMapped);
  munmap(memory_, kMapped);
}

void SharedMemory::start(size_t dynamic_bytes) {
  forget_accesses(memory_, kMapped);
  forbid_access(memory_, kMapped);
  arrays_.clear();
  used_ = 0;
  fill(memory_, kGap, kUntouched);
  end_ = kGap;
  add({"the dynamic part", "", 0, end_, dynamic_bytes});
}

char* SharedMemory::add(const Array& array) {
  char* data = memory_ + array.begin;
  fill(memory_ + end_, array.begin - end_, kUntouched);
  fill(data, array.bytes, kUnwritten);
  fill(data + array.bytes, kGap, kUntouched);
  allow_access(data, array.bytes);
  end_ = array.begin + array.bytes + kGap;
  used_ += array.bytes;
  arrays_.push_back(array);
  return data;
}

void* SharedMemory::array(const char* name, size_t bytes, size_t alignment, const char* file,
                          unsigned line) {
  for (const Array& known : arrays_) {
    if (known.line == line && std::strcmp(known.name, name) == 0 &&
        std::strcmp(known.file, file) == 0 && known.bytes == bytes) {
      return memory_ + known.begin;
    }
  }
  // As much alignment as was asked for, and no more.
  size_t begin = (end_ + alignment - 1) / alignment * alignment;
  if (begin % (2 * alignment) == 0) begin += alignment;
  if (arrays_.size() == kArrays || used_ + bytes > shared_bytes() || begin + bytes + kGap > kTags)
    return nullptr;
  return add({name, file, line, begin, bytes});
}

char* SharedMemory::tag(int barrier, unsigned passed) {
  return memory_ + kTags + 16 * barrier + 8 * (passed & 1);
}

bool SharedMemory::contains(const void* p, size_t bytes) const {
  const auto address = reinterpret_cast<uintptr_t>(p), base = reinterpret_cast<uintptr_t>(memory_);
  return address >= base && address + bytes <= base + end_;
}

std::string SharedMemory::overrun() const {
  size_t gap = 0;
  for (size_t i = 0; i <= arrays_.size(); ++i) {
    const size_t gap_end = i < arrays_.size() ? arrays_[i].begin : end_;
    for (size_t at = gap; at < gap_end; ++at) {
      if (static_cast<unsigned char>(memory_[at]) == kUntouched) continue;
      const bool after = i > 0 && (i == arrays_.size() || at - gap < gap_end - at);
      const Array& array = arrays_[after ? i - 1 : i];
      return "shared memory was written " +
             (after ? std::to_string(at - gap) + " bytes past the end of "
                    : std::to_string(gap_end - at) + " bytes before ") +
             array.name +
             (array.line == 0
                  ? ""
                  : ", declared at " + std::string(array.file) + ":" + std::to_string(array.line));
    }
    if (i < arrays_.size()) gap = arrays_[i].begin + arrays_[i].bytes;
  }
  return "";
}

}  // namespace trine::simt
