// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include "ref/ref.h"

namespace trine::ref {

namespace {

double inner(const float* a, const float* b, int64_t n) {
  double sum = 0.0;
  for (int64_t c = 0; c < n; ++c) sum += double{a[c]} * double{b[c]};
  return sum;
}

// Rows [past, past + length) into the cache, then all of it as dense rows.
struct Cached {
  std::vector<float> k, v;
};

Cached through_cache(const AttentionArgs& args, int32_t b, int64_t kv_head) {
  const KvView& cache = args.caches[b];
  const int64_t dim = args.head_dim, padded = (dim + 15) / 16 * 16;
  float* keys = cache.data + cache.capacity * (cache.begin[args.cache] + kv_head * dim);
  float* values = cache.data + cache.capacity * (cache.begin[args.cache] + args.kv_heads * dim +
                                                 kv_head * padded);
  const int64_t first = args.batch.offsets[b], length = args.batch.offsets[b + 1] - first;
  const int64_t past = cache.past;
  Cached out;
  for (int64_t j = 0; j < past + length; ++j) {
    for (int64_t c = 0; c < dim; ++c) {
      float& key = keys[j / 16 * 16 * dim + c * 16 + j % 16];
      float& value = values[(c / 16 * cache.capacity + j) * 16 + c % 16];
      if (j >= past) {
        key = args.k[(first + j - past) * args.ldk + kv_head * dim + c];
        value = args.v[(first + j - past) * args.ldv + kv_head * dim + c];
      }
      out.k.push_back(key);
      out.v.push_back(value);
    }
  }
  return out;
}

}  // namespace

void attention(const AttentionArgs& args) {
  std::vector<double> score;
  for (int32_t b = 0; b < args.batch.sequences; ++b) {
    const int64_t first = args.batch.offsets[b];
    const int64_t length = args.batch.offsets[b + 1] - first;
    for (int64_t h = 0; h < args.heads; ++h) {
      const int64_t kv_head = h * args.kv_heads / args.heads;
      const bool all = args.queries == Queries::kAll;
      if (!all && length == 0)
        std::fill_n(args.y + b * args.ldy + h * args.head_dim, args.head_dim, 0.0f);
      const bool cached = args.caches != nullptr && args.caches[b].data != nullptr;
      const int64_t past = cached ? args.caches[b].past : 0;
      const Cached rows = cached ? through_cache(args, b, kv_head) : Cached{};
      const int64_t ldk = cached ? args.head_dim : args.ldk;
      const int64_t ldv = cached ? args.head_dim : args.ldv;
      const float* k = cached ? rows.k.data() : args.k + first * ldk + kv_head * args.head_dim;
      const float* v = cached ? rows.v.data() : args.v + first * ldv + kv_head * args.head_dim;
      for (int64_t i = 0; i < length; ++i) {
        if (!all && i != (args.queries == Queries::kFirst ? 0 : length - 1)) continue;
        const int64_t row = all ? first + i : b;
        const int64_t keys = args.causal ? past + i + 1 : length;
        const float* q = args.q + row * args.ldq + h * args.head_dim;
        float* y = args.y + row * args.ldy + h * args.head_dim;

        score.assign(static_cast<size_t>(keys), 0.0);
        for (int64_t j = 0; j < keys; ++j) {
          double dot = inner(q, k + j * ldk, args.head_dim);
          if (args.position_at != nullptr) {
            const int64_t d = std::clamp<int64_t>(j - i, -args.reach, args.reach);
            const int64_t at = (args.position_at[d] * args.heads + h) * args.head_dim;
            if (args.position_keys != nullptr)
              dot += inner(q, args.position_keys + at, args.head_dim);
            if (args.position_queries != nullptr)
              dot += inner(k + j * ldk, args.position_queries + at, args.head_dim);
          }
          dot *= double{args.scale};
          if (args.bias != nullptr) {
            dot += double{args.bias[h * (2 * args.span - 1) + j - i + args.span - 1]};
          }
          score[static_cast<size_t>(j)] = dot;
        }

        const double largest = *std::max_element(score.begin(), score.end());
        double total = 0.0;
        for (double& s : score) {
          s = std::exp(s - largest);
          total += s;
        }
        for (int64_t c = 0; c < args.head_dim; ++c) {
          double sum = 0.0;
          for (int64_t j = 0; j < keys; ++j)
            sum += score[static_cast<size_t>(j)] * double{v[j * ldv + c]};
          y[c] = static_cast<float>(sum / total);
        }
      }
    }
  }
}

}  // namespace trine::ref
