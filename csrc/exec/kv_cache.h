// SPDX-License-Identifier: Apache-2.0
// What a sequence keeps from run to run: keys and values of its tokens, in one piece of memory for
// all layers and for a stated number of tokens.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend.h"
#include "exec/args.h"
#include "graph/graph.h"

namespace trine {

// Of all the attention nodes that name a cache; what a plan prunes makes no difference.
struct KvLayout {
  static constexpr int64_t kPanel = 16;  // keys

  struct Layer {
    int64_t heads, dim, value_dim;  // value_dim: dim rounded up to 16
    int64_t key_floats;             // that a token takes in a head of KvView::data
  };
  DType dtype = DType::kF32;  // of keys and values in KvView::data
  // Elements in a float of KvView::data.
  int64_t elements() const noexcept { return dtype == DType::kBF16 ? 2 : 1; }
  std::vector<Layer> layers;
  std::vector<int64_t> begin;  // floats per token of the layers before
  int64_t floats_per_token = 0;
};
// ModelError unless the graph's caches are 0, 1, .. each once.
KvLayout kv_layout(const Graph&, DType dtype);

// Not for use by two calls at once: the second one gets an InputError.
class KvCache {
 public:
  // Room for `capacity` tokens or, as panels are 16 keys wide, up to 15 more.
  KvCache(std::shared_ptr<const KvLayout>, Backend&, int64_t capacity);

  int64_t capacity() const noexcept { return capacity_; }
  int64_t length() const noexcept { return length_; }
  int64_t layers() const noexcept { return static_cast<int64_t>(layout_->layers.size()); }
  size_t bytes() const noexcept { return memory_->bytes(); }
  KvView view() const noexcept;
  // Room for so many tokens more; DeviceError when the device has none left.
  void reserve(int64_t tokens) { memory_->reserve(length_ + tokens); }

  // Forgets all but the first `tokens`; InputError when there are fewer.
  void truncate(int64_t tokens);
  // Makes this the first `tokens` of another one of the same model: a prefix that both share.
  void copy_prefix(const KvCache& from, int64_t tokens);

 private:
  friend class KvCachesInUse;
  std::shared_ptr<const KvLayout> layout_;
  int64_t capacity_, length_ = 0;
  std::unique_ptr<KvMemory> memory_;
  std::atomic<bool> in_use_{false};
};

// The caches of one call (null where a sequence has none), claimed for as long as this lives.
class KvCachesInUse {
 public:
  explicit KvCachesInUse(std::span<KvCache* const>);
  ~KvCachesInUse();
  KvCachesInUse(const KvCachesInUse&) = delete;
  KvCachesInUse& operator=(const KvCachesInUse&) = delete;
  // After a run: sequence b has offsets[b + 1] - offsets[b] tokens more.
  void advance(std::span<const int32_t> offsets) noexcept;

 private:
  void release(size_t count) noexcept;
  std::span<KvCache* const> caches_;
};

}  // namespace trine
