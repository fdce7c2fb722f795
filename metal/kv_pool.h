// SPDX-License-Identifier: Apache-2.0
// The pages of gpu/kv_pool.h in one buffer, as kernels find them by number. It grows where it lies:
// addresses for all that may come are taken at the start, memory as pages are first written, and a
// larger buffer is put around the same memory. Runs that began before go on with the smaller one.
#pragma once

#include <cstddef>
#include <memory>

#include "device.h"
#include "gpu/kv_pool.h"

namespace trine::metal {

class KvPool : public gpu::KvPool {
 public:
  KvPool(std::shared_ptr<Device> device, std::shared_ptr<const KvLayout> layout, DType dtype);
  ~KvPool() override;

  // A buffer that has every page that was taken so far.
  Ref buffer() const;

  void copy(int32_t from, int32_t to) override;

 private:
  int64_t grow(int64_t count) override;

  std::shared_ptr<Device> device_;
  std::byte* memory_ = nullptr;
  size_t reserved_ = 0;
  int64_t there_ = 0;  // pages
  mutable std::mutex mutex_;
  Buffer buffer_;
};

static_assert(gpu::KvPool::kTokens == kPageTokens);

}  // namespace trine::metal
