// SPDX-License-Identifier: Apache-2.0
// Keys and values of all sequences of a model in pages of kTokens tokens, so that a sequence grows
// without being copied and takes memory for what it holds, not for what it might. Which page is
// whose is the same on every GPU; where pages lie is the device's.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "backend.h"
#include "exec/kv_cache.h"

namespace trine::gpu {

class KvPool {
 public:
  static constexpr int64_t kTokens = 64;  // as the attention kernels have it
  static constexpr int64_t pages_for(int64_t tokens) { return (tokens + kTokens - 1) / kTokens; }

  KvPool(std::shared_ptr<const KvLayout> layout, DType dtype);
  virtual ~KvPool() = default;
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  // A page holds, layer by layer, the keys and then the values of its tokens.
  size_t page_bytes() const noexcept { return page_bytes_; }
  // Bytes from a page's start to a layer's keys, and to its values.
  size_t keys_at(int32_t layer) const { return layers_[static_cast<size_t>(layer)].keys; }
  size_t values_at(int32_t layer) const { return layers_[static_cast<size_t>(layer)].values; }

  // DeviceError when the GPU has no memory left: then none is taken.
  void take(int64_t count, std::vector<int32_t>& pages);
  void give_back(std::span<const int32_t> pages) noexcept;
  virtual void copy(int32_t from, int32_t to) = 0;

 private:
  // Makes `count` pages more, which have consecutive numbers: the first one. DeviceError when there
  // is no memory for them. Called by one thread at a time.
  virtual int64_t grow(int64_t count) = 0;
  void add_pages(int64_t count);

  struct LayerPlace {
    size_t keys, values;
  };
  std::shared_ptr<const KvLayout> layout_;
  size_t page_bytes_ = 0;
  std::vector<LayerPlace> layers_;
  std::mutex mutex_;
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

}  // namespace trine::gpu
