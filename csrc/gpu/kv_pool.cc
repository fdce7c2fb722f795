// SPDX-License-Identifier: Apache-2.0
#include "gpu/kv_pool.h"

#include <algorithm>

#include "base/error.h"

namespace trine::gpu {
namespace {

constexpr int64_t kFirstPages = 16;
constexpr size_t kMostChunk = size_t{1} << 30;

}  // namespace

KvPool::KvPool(std::shared_ptr<const KvLayout> layout, DType dtype) : layout_(std::move(layout)) {
  for (const KvLayout::Layer& layer : layout_->layers) {
    const size_t bytes = static_cast<size_t>(kTokens * layer.heads * layer.dim) * size_of(dtype);
    layers_.push_back({page_bytes_, page_bytes_ + bytes});
    page_bytes_ += 2 * bytes;
  }
}

// Chunks double, up to a gigabyte, so that few are needed and little is taken in vain.
void KvPool::add_pages(int64_t pages) {
  const auto most = std::max<int64_t>(static_cast<int64_t>(kMostChunk / page_bytes_), kFirstPages);
  const int64_t count = std::max(pages, std::clamp(pages_, kFirstPages, most));
  const int64_t first = grow(count);
  if (first < INT32_MIN || first + count > INT32_MAX)
    throw DeviceError("the caches of keys and values lie too far apart on the GPU");
  for (int64_t p = first + count; p-- > first;) free_.push_back(static_cast<int32_t>(p));
  pages_ += count;
}

void KvPool::take(int64_t count, std::vector<int32_t>& pages) {
  const std::lock_guard lock(mutex_);
  const auto there = static_cast<int64_t>(free_.size());
  if (there < count) add_pages(count - there);
  for (int64_t i = 0; i < count; ++i) {
    pages.push_back(free_.back());
    free_.pop_back();
  }
}

void KvPool::give_back(std::span<const int32_t> pages) noexcept {
  const std::lock_guard lock(mutex_);
  free_.insert(free_.end(), pages.rbegin(), pages.rend());
}

PagedKv::PagedKv(std::shared_ptr<KvPool> pool, int64_t capacity)
    : pool_(std::move(pool)), capacity_(capacity) {
  // Later nothing may throw, so that pages are never lost.
  pages_.reserve(static_cast<size_t>(KvPool::pages_for(capacity)));
}

PagedKv::~PagedKv() { pool_->give_back(pages_); }

KvView PagedKv::view() const noexcept { return {nullptr, nullptr, capacity_, 0, this}; }

void PagedKv::reserve(int64_t tokens) {
  const auto have = static_cast<int64_t>(pages_.size());
  const int64_t want = KvPool::pages_for(std::min(tokens, capacity_));
  if (want > have) pool_->take(want - have, pages_);
}

void PagedKv::copy_prefix(const KvMemory& from, int64_t tokens) {
  const std::span<const int32_t> source = static_cast<const PagedKv&>(from).pages();
  for (int64_t p = 0; p < KvPool::pages_for(tokens); ++p)
    pool_->copy(source[static_cast<size_t>(p)], pages_[static_cast<size_t>(p)]);
}

}  // namespace trine::gpu
