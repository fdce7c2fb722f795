// SPDX-License-Identifier: Apache-2.0
#include "exec/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "trine.h"

namespace trine {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 24;
constexpr int64_t kMostFloats = int64_t{1} << 28;  // of one token

constexpr int64_t round_up(int64_t n) {
  return (n + KvLayout::kPanel - 1) / KvLayout::kPanel * KvLayout::kPanel;
}

int64_t padded_capacity(int64_t capacity) {
  if (capacity < 1 || capacity > kMostTokens)
    throw InputError(cat("a cache of ", capacity, " tokens: from 1 to ", kMostTokens, " can be"));
  return round_up(capacity);
}

}  // namespace

KvLayout kv_layout(const Graph& graph, DType dtype) {
  KvLayout out;
  out.dtype = dtype;
  const int64_t pair = out.elements();
  std::vector<bool> known;
  for (const Node& node : graph.nodes) {
    if (node.op != Op::attention || node.as<AttentionAttrs>().cache < 0) continue;
    const auto& a = node.as<AttentionAttrs>();
    const auto index = static_cast<size_t>(a.cache);
    if (index >= graph.nodes.size())
      throw ModelError(cat(describe(graph, node), ": cache ", index, " is out of range"));
    if (index >= known.size()) {
      known.resize(index + 1);
      out.layers.resize(index + 1);
    }
    if (known[index])
      throw ModelError(cat(describe(graph, node), ": cache ", index, " has another user"));
    known[index] = true;
    const int64_t dim = node.shape.cols() / a.heads;
    out.layers[index] = {a.kv_heads, dim, round_up(dim), (dim + pair - 1) / pair};
  }
  for (size_t i = 0; i < known.size(); ++i) {
    if (!known[i]) throw ModelError(cat("there are caches beyond ", i, ", but not ", i));
    out.begin.push_back(out.floats_per_token);
    const KvLayout::Layer& layer = out.layers[i];
    out.floats_per_token += layer.heads * (layer.key_floats + layer.value_dim / pair);
    if (out.floats_per_token > kMostFloats)
      throw ModelError("keys and values of one token take more than a gigabyte");
  }
  return out;
}

namespace {

// The layout of KvView, whole from the start: pages that no token has reached are not touched.
class HostKvMemory : public KvMemory {
 public:
  HostKvMemory(std::shared_ptr<const KvLayout> layout, Backend& backend, int64_t capacity)
      : layout_(std::move(layout)),
        capacity_(capacity),
        bytes_(static_cast<size_t>(capacity * layout_->floats_per_token) * sizeof(float)),
        memory_(backend.alloc(bytes_)) {}

  size_t bytes() const noexcept override { return bytes_; }
  KvView view() const noexcept override {
    return {reinterpret_cast<float*>(memory_.get()), layout_->begin.data(), capacity_, 0, nullptr};
  }
  void reserve(int64_t) override {}

  void copy_prefix(const KvMemory& other, int64_t tokens) override {
    const KvView to = view(), source = other.view();
    const int64_t pair = layout_->elements();
    const auto copy = [](float* a, const float* b, int64_t floats) {
      std::memcpy(a, b, static_cast<size_t>(floats) * sizeof(float));
    };
    for (size_t i = 0; i < layout_->layers.size(); ++i) {
      const KvLayout::Layer& layer = layout_->layers[i];
      float* a = to.data + to.capacity * layout_->begin[i];
      const float* b = source.data + source.capacity * layout_->begin[i];
      for (int64_t h = 0; h < layer.heads; ++h) {
        // Whole panels, and lines of V: what is beyond does not count.
        copy(a, b, round_up(tokens) * layer.key_floats);
        a += to.capacity * layer.key_floats;
        b += source.capacity * layer.key_floats;
      }
      for (int64_t panel = 0; panel < layer.heads * layer.value_dim / KvLayout::kPanel; ++panel) {
        copy(a, b, (tokens + pair - 1) / pair * KvLayout::kPanel);
        a += to.capacity / pair * KvLayout::kPanel;
        b += source.capacity / pair * KvLayout::kPanel;
      }
    }
  }

 private:
  std::shared_ptr<const KvLayout> layout_;
  int64_t capacity_;
  size_t bytes_;
  std::shared_ptr<std::byte> memory_;
};

}  // namespace

std::unique_ptr<KvMemory> Backend::kv_memory(std::shared_ptr<const KvLayout> layout,
                                             int64_t capacity) {
  return std::make_unique<HostKvMemory>(std::move(layout), *this, capacity);
}

KvCache::KvCache(std::shared_ptr<const KvLayout> layout, Backend& backend, int64_t capacity)
    : layout_(std::move(layout)),
      capacity_(padded_capacity(capacity)),
      memory_(backend.kv_memory(layout_, capacity_)) {}

KvView KvCache::view() const noexcept {
  KvView out = memory_->view();
  out.past = static_cast<int32_t>(length_);
  return out;
}

void KvCache::truncate(int64_t tokens) {
  if (tokens < 0 || tokens > length_)
    throw InputError(cat("a cache of ", length_, " tokens cannot be cut to ", tokens));
  length_ = tokens;
}

void KvCache::copy_prefix(const KvCache& from, int64_t tokens) {
  if (layout_ != from.layout_) throw InputError("the caches are of different models");
  if (tokens < 0 || tokens > from.length_ || tokens > capacity_)
    throw InputError(
        cat(tokens, " tokens of a cache of ", from.length_, " into one for ", capacity_));
  memory_->reserve(tokens);
  memory_->copy_prefix(*from.memory_, tokens);
  length_ = tokens;
}

KvCachesInUse::KvCachesInUse(std::span<KvCache* const> caches) : caches_(caches) {
  for (size_t i = 0; i < caches_.size(); ++i) {
    if (caches_[i] == nullptr || !caches_[i]->in_use_.exchange(true, std::memory_order_acquire))
      continue;
    release(i);
    throw InputError(cat("the cache of sequence ", i, " is in use by another sequence or call"));
  }
}

KvCachesInUse::~KvCachesInUse() { release(caches_.size()); }

void KvCachesInUse::release(size_t count) noexcept {
  for (size_t i = 0; i < count; ++i) {
    if (caches_[i] != nullptr) caches_[i]->in_use_.store(false, std::memory_order_release);
  }
}

void KvCachesInUse::advance(std::span<const int32_t> offsets) noexcept {
  for (size_t b = 0; b < caches_.size(); ++b) {
    if (caches_[b] != nullptr) caches_[b]->length_ += offsets[b + 1] - offsets[b];
  }
}

}  // namespace trine
