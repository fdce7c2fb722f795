// SPDX-License-Identifier: Apache-2.0
// Keys and values of all sequences of a model in pages of kPageTokens tokens, so that a sequence
// grows without being copied and takes memory for what it holds, not for what it might.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "backend.h"
#include "exec/kv_cache.h"
#include "kernels/attention.h"

namespace trine::cuda {

class KvPool {
 public:
  static constexpr int64_t kPageTokens = KvPages::kTokens;
  static constexpr int64_t pages_for(int64_t tokens) {
    return (tokens + kPageTokens - 1) / kPageTokens;
  }

  KvPool(int device, std::shared_ptr<const KvLayout> layout, DType dtype);

  // A page holds, layer by layer, the keys and then the values of its tokens.
  size_t page_bytes() const noexcept { return page_bytes_; }
  // Page p lies at base() + p * page_bytes(); p may be negative, for the pool grows by chunks that
  // lie anywhere. Null before the first page is taken; then it never changes.
  std::byte* base() const noexcept { return base_; }
  // Bytes from a page's start to a layer's keys, and to its values.
  size_t keys_at(int32_t layer) const { return layers_[static_cast<size_t>(layer)].keys; }
  size_t values_at(int32_t layer) const { return layers_[static_cast<size_t>(layer)].values; }

  // DeviceError when the GPU has no memory left: then none is taken.
  void take(int64_t count, std::vector<int32_t>& pages);
  void give_back(std::span<const int32_t> pages) noexcept;
  void copy(int32_t from, int32_t to);

 private:
  struct LayerPlace {
    size_t keys, values;
  };
  void grow(int64_t pages);

  int device_;
  std::shared_ptr<const KvLayout> layout_;
  size_t page_bytes_ = 0;
  std::vector<LayerPlace> layers_;
  std::mutex mutex_;
  std::byte* base_ = nullptr;
  std::vector<std::shared_ptr<std::byte>> chunks_;
  std::vector<int32_t> free_;
  int64_t pages_ = 0;
};

// One sequence's pages.
class PagedKv : public KvMemory {
 public:
  PagedKv(std::shared_ptr<KvPool> pool, int64_t capacity);
  ~PagedKv() override;
  PagedKv(const PagedKv&) = delete;
  PagedKv& operator=(const PagedKv&) = delete;

  size_t bytes() const noexcept override { return pages_.size() * pool_->page_bytes(); }
  KvView view() const noexcept override;
  void reserve(int64_t tokens) override;
  void copy_prefix(const KvMemory& from, int64_t tokens) override;
  std::span<const int32_t> pages() const noexcept { return pages_; }

 private:
  std::shared_ptr<KvPool> pool_;
  int64_t capacity_;
  std::vector<int32_t> pages_;
};

}  // namespace trine::cuda
