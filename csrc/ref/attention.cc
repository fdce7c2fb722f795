// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "ref/ref.h"
#include "weights/convert.h"

namespace trine::ref {

namespace {

// What is multiplied: numbers as they are, or rounded; and how many of them a float of a cache
// holds.
struct Float32 {
  static constexpr int64_t kPair = 1;
  static double rounded(double x) { return x; }
  static float load(const float* at, int64_t) { return *at; }
  static void store(float x, float* at, int64_t) { *at = x; }
};

struct BFloat16 {
  static constexpr int64_t kPair = 2;
  static double rounded(double x) {
    return double{bf16_to_f32(f32_to_bf16(static_cast<float>(x)))};
  }
  static float load(const float* at, int64_t i) {
    uint16_t pair[2];
    std::memcpy(pair, at, sizeof pair);
    return bf16_to_f32(pair[i]);
  }
  static void store(float x, float* at, int64_t i) {
    const uint16_t bits = f32_to_bf16(x);
    std::memcpy(reinterpret_cast<std::byte*>(at) + i * static_cast<int64_t>(sizeof bits), &bits,
                sizeof bits);
  }
};

template <class Number>
double inner(const float* a, const float* b, int64_t n) {
  double sum = 0.0;
  for (int64_t c = 0; c < n; ++c) sum += Number::rounded(a[c]) * Number::rounded(b[c]);
  return sum;
}

// Keys and values of one key head of one sequence, as dense rows.
struct Rows {
  const float *k, *v;
  int64_t ldk, ldv;
  int64_t past = 0;
  std::vector<float> cached = {};
};

// Rows [past, past + length) into the cache, then all of it as dense rows.
template <class Number>
Rows through_cache(const AttentionArgs& args, int32_t b, int64_t kv_head) {
  constexpr int64_t kPair = Number::kPair;
  const KvView& cache = args.caches[b];
  const int64_t dim = args.head_dim, padded = (dim + 15) / 16 * 16;
  const int64_t key_floats = (dim + kPair - 1) / kPair;
  float* keys = cache.data + cache.capacity * (cache.begin[args.cache] + kv_head * key_floats);
  float* values =
      cache.data + cache.capacity * (cache.begin[args.cache] + args.kv_heads * key_floats +
                                     kv_head * padded / kPair);
  const int64_t first = args.batch.offsets[b], length = args.batch.offsets[b + 1] - first;
  const int64_t past = cache.past, all = past + length;
  Rows out{nullptr, nullptr, dim,
           dim,     past,    std::vector<float>(static_cast<size_t>(2 * all * dim))};
  float* k = out.cached.data();
  float* v = k + all * dim;
  for (int64_t j = 0; j < all; ++j) {
    for (int64_t c = 0; c < dim; ++c) {
      float* key = keys + j / 16 * 16 * key_floats + c / kPair * 16 + j % 16;
      float* value = values + (c / 16 * (cache.capacity / kPair) + j / kPair) * 16 + c % 16;
      if (j >= past) {
        Number::store(args.k[(first + j - past) * args.ldk + kv_head * dim + c], key, c % kPair);
        Number::store(args.v[(first + j - past) * args.ldv + kv_head * dim + c], value, j % kPair);
      }
      k[j * dim + c] = Number::load(key, c % kPair);
      v[j * dim + c] = Number::load(value, j % kPair);
    }
  }
  out.k = k;
  out.v = v;
  return out;
}

template <class Number>
Rows rows_of(const AttentionArgs& args, int32_t b, int64_t h) {
  const int64_t kv_head = h * args.kv_heads / args.heads;
  if (args.caches != nullptr && args.caches[b].data != nullptr)
    return through_cache<Number>(args, b, kv_head);
  const int64_t first = args.batch.offsets[b], column = kv_head * args.head_dim;
  return {args.k + first * args.ldk + column, args.v + first * args.ldv + column, args.ldk,
          args.ldv};
}

// exp(score - largest) of each key that token i of the sequence sees with head h.
template <class Number>
std::vector<double> weights(const AttentionArgs& args, const Rows& rows, int32_t b, int64_t h,
                            int64_t i) {
  const int64_t first = args.batch.offsets[b], length = args.batch.offsets[b + 1] - first;
  const int64_t keys = args.causal ? rows.past + i + 1 : length;
  const int64_t row = args.queries == Queries::kAll ? first + i : b;
  const float* q = args.q + row * args.ldq + h * args.head_dim;
  std::vector<double> score(static_cast<size_t>(keys));
  for (int64_t j = 0; j < keys; ++j) {
    const float* k = rows.k + j * rows.ldk;
    double dot = inner<Number>(q, k, args.head_dim);
    if (args.position_at != nullptr) {
      const int64_t d = std::clamp<int64_t>(j - i, -args.reach, args.reach);
      const int64_t at = (args.position_at[d] * args.heads + h) * args.head_dim;
      if (args.position_keys != nullptr)
        dot += inner<Number>(q, args.position_keys + at, args.head_dim);
      if (args.position_queries != nullptr)
        dot += inner<Number>(k, args.position_queries + at, args.head_dim);
    }
    dot *= double{args.scale};
    if (args.bias != nullptr)
      dot += double{args.bias[h * (2 * args.span - 1) + j - i + args.span - 1]};
    score[static_cast<size_t>(j)] = dot;
  }
  const double largest = *std::max_element(score.begin(), score.end());
  for (double& s : score) s = std::exp(s - largest);
  return score;
}

template <class Number>
void attend(const AttentionArgs& args) {
  for (int32_t b = 0; b < args.batch.sequences; ++b) {
    const int64_t first = args.batch.offsets[b];
    const int64_t length = args.batch.offsets[b + 1] - first;
    for (int64_t h = 0; h < args.heads; ++h) {
      const bool all = args.queries == Queries::kAll;
      if (!all && length == 0)
        std::fill_n(args.y + b * args.ldy + h * args.head_dim, args.head_dim, 0.0f);
      const Rows rows = rows_of<Number>(args, b, h);
      for (int64_t i = 0; i < length; ++i) {
        if (!all && i != (args.queries == Queries::kFirst ? 0 : length - 1)) continue;
        const std::vector<double> p = weights<Number>(args, rows, b, h, i);
        double total = 0.0;
        for (const double weight : p) total += weight;
        float* y = args.y + (all ? first + i : b) * args.ldy + h * args.head_dim;
        for (int64_t c = 0; c < args.head_dim; ++c) {
          double sum = 0.0;
          for (size_t j = 0; j < p.size(); ++j) {
            const float v = rows.v[static_cast<int64_t>(j) * rows.ldv + c];
            sum += Number::rounded(p[j]) * Number::rounded(v);
          }
          y[c] = static_cast<float>(sum / total);
        }
      }
    }
  }
}

}  // namespace

void attention(const AttentionArgs& args) { attend<Float32>(args); }

void attention_bf16(const AttentionArgs& args) { attend<BFloat16>(args); }

std::vector<double> attention_weights_bf16(const AttentionArgs& args, int32_t b, int64_t h,
                                           int64_t token) {
  return weights<BFloat16>(args, rows_of<BFloat16>(args, b, h), b, h, token);
}

}  // namespace trine::ref
