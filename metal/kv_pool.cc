// SPDX-License-Identifier: Apache-2.0
#include "kv_pool.h"

#include <sys/mman.h>

#include <cstring>

#include "base/error.h"

namespace trine::metal {

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

KvPool::KvPool(std::shared_ptr<Device> device, std::shared_ptr<const KvLayout> layout, DType dtype)
    : gpu::KvPool(std::move(layout), dtype),
      device_(std::move(device)),
      reserved_(device_->most_bytes() / Device::page_bytes() * Device::page_bytes()) {
  // Addresses alone: the system gives memory to what is written.
  void* const p = mmap(nullptr, reserved_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    throw DeviceError(cat("Metal: no ", reserved_,
                          " bytes of addresses for keys and values: raise ",
                          "the limit (ulimit -v)"));
  }
  memory_ = static_cast<std::byte*>(p);
}

KvPool::~KvPool() {
  buffer_ = {};
  munmap(memory_, reserved_);
}

Ref KvPool::buffer() const {
  const std::lock_guard lock(mutex_);
  return buffer_.object;
}

int64_t KvPool::grow(int64_t count) {
  const size_t page = Device::page_bytes();
  const size_t used = static_cast<size_t>(there_ + count) * page_bytes();
  const size_t bytes = (used + page - 1) / page * page;
  Buffer larger;
  if (bytes <= reserved_) larger = device_->around(memory_, bytes);
  if (!larger.object) {
    throw DeviceError(cat("Metal: no room for ", bytes, " bytes of keys and values on ",
                          device_->name(), ": use fewer or shorter sequences at a time"));
  }
  const std::lock_guard lock(mutex_);
  buffer_ = std::move(larger);
  const int64_t first = there_;
  there_ += count;
  return first;
}

// No run that is under way writes to either: they belong to sequences that are not in one.
void KvPool::copy(int32_t from, int32_t to) {
  std::memcpy(memory_ + static_cast<size_t>(to) * page_bytes(),
              memory_ + static_cast<size_t>(from) * page_bytes(), page_bytes());
}

}  // namespace trine::metal
