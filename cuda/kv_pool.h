// SPDX-License-Identifier: Apache-2.0
// The pages of gpu/kv_pool.h in chunks of device memory that lie anywhere.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "gpu/kv_pool.h"
#include "kernels/attention.h"

namespace trine::cuda {

class KvPool : public gpu::KvPool {
 public:
  KvPool(int device, std::shared_ptr<const KvLayout> layout, DType dtype)
      : gpu::KvPool(std::move(layout), dtype), device_(device) {}

  // Page p lies at base() + p * page_bytes(); p may be negative, for the pool grows by chunks that
  // lie anywhere. Null before the first page is taken; then it never changes.
  std::byte* base() const noexcept { return base_; }

  void copy(int32_t from, int32_t to) override;

 private:
  int64_t grow(int64_t count) override;

  int device_;
  std::byte* base_ = nullptr;
  std::vector<std::shared_ptr<std::byte>> chunks_;
};

static_assert(gpu::KvPool::kTokens == KvPages::kTokens);

}  // namespace trine::cuda
