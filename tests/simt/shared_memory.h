// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace trine::simt {

// One block's shared memory: the launch's dynamic part first, then the static arrays as threads ask
// for them. Everything starts as NaN, of float and of bfloat16, and between the arrays lie gaps
// that nobody may touch.
class SharedMemory {
 public:
  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // For the next block.
  void start(size_t dynamic_bytes);
  void* dynamic() { return memory_ + kGap; }
  // Null if there is no room.
  void* array(const char* name, size_t bytes, size_t alignment, const char* file, unsigned line);
  bool contains(const void* p, size_t bytes) const;
  size_t used() const { return used_; }  // without the gaps
  // Which array was written past its end or before its start; empty if none.
  std::string overrun() const;
  // What TSan orders by: a tag for each barrier's users, two in turn. One alone would order what
  // fast threads do after a barrier before what slow ones do after the one before it. They are
  // here because they are the block's own, so that they order nothing between blocks.
  char* tag(int barrier, unsigned passed);

 private:
  static constexpr size_t kGap = 256, kArrays = 64;

  struct Array {
    const char *name, *file;
    unsigned line;
    size_t begin, bytes;
  };
  char* add(const Array& array);

  char* memory_;
  size_t end_ = 0, used_ = 0;
  std::vector<Array> arrays_;
};

}  // namespace trine::simt
