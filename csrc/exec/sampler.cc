// SPDX-License-Identifier: Apache-2.0
#include "exec/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "trine.h"

namespace trine {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Vocabularies have 10^5 entries and a step many sequences, so passes over all of a row are loops
// over lanes, which compilers turn into vectors, and sorting comes after sieving.
constexpr size_t kLanes = 16, kBlock = 64;

// False when there is a NaN.
bool find_largest(std::span<const float> x, float& largest) {
  float top[kLanes];
  int32_t odd[kLanes] = {};
  std::fill_n(top, kLanes, kNever);
  size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      const float v = x[i + l];
      top[l] = v > top[l] ? v : top[l];
      odd[l] |= v != v;
    }
  }
  for (; i < x.size(); ++i) {
    top[0] = x[i] > top[0] ? x[i] : top[0];
    odd[0] |= std::isnan(x[i]) ? 1 : 0;
  }
  largest = *std::max_element(top, top + kLanes);
  return std::count(odd, odd + kLanes, 0) == kLanes;
}

// 2^((x - largest) * scale) of kLanes numbers: 7 terms of 2^f, |f| <= 1/2, are good to a float's
// last bit. 0 below the normal numbers. A loop for each operation, which is what gcc 12 makes
// vectors of where it doesn't of one loop with a condition in it.
void powers(const float* x, float largest, float scale, float* to) {
  constexpr float kTerms[] = {1.54035303e-4f,
                              1.33335581e-3f,
                              9.61812911e-3f,
                              5.55041087e-2f,
                              2.40226507e-1f,
                              6.93147181e-1f,
                              1.0f};
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded
  float z[kLanes], f[kLanes], p[kLanes];
  int32_t whole[kLanes], mask[kLanes];
  for (size_t l = 0; l < kLanes; ++l) z[l] = (x[l] - largest) * scale;
  for (size_t l = 0; l < kLanes; ++l) z[l] = z[l] > -126.0f ? z[l] : -126.0f;
  for (size_t l = 0; l < kLanes; ++l) mask[l] = z[l] > -126.0f ? -1 : 0;
  for (size_t l = 0; l < kLanes; ++l) f[l] = (z[l] + kRound) - kRound;
  for (size_t l = 0; l < kLanes; ++l) whole[l] = static_cast<int32_t>(f[l]);
  for (size_t l = 0; l < kLanes; ++l) f[l] = z[l] - f[l];
  std::fill_n(p, kLanes, 1.52527e-5f);
  for (const float term : kTerms) {
    for (size_t l = 0; l < kLanes; ++l) p[l] = p[l] * f[l] + term;
  }
  for (size_t l = 0; l < kLanes; ++l) {
    const float power = std::bit_cast<float>((whole[l] + 127) << 23);
    to[l] = std::bit_cast<float>(std::bit_cast<int32_t>(p[l] * power) & mask[l]);
  }
}

// exp((x - largest) / temperature)
void weigh(std::span<const float> x, float largest, float temperature, std::vector<float>& to) {
  const float scale = std::min(1.44269504f / temperature, 1e30f);
  to.resize(x.size());
  size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) powers(&x[i], largest, scale, &to[i]);
  float rest[kLanes] = {};
  std::copy(x.begin() + static_cast<std::ptrdiff_t>(i), x.end(), rest);
  powers(rest, largest, scale, rest);
  std::copy_n(rest, x.size() - i, to.begin() + static_cast<std::ptrdiff_t>(i));
}

// Sums of kBlock weights each; returns the sum of all.
double sum_blocks(std::span<const float> weights, std::vector<double>& sums) {
  sums.clear();
  for (size_t begin = 0; begin < weights.size(); begin += kBlock) {
    double part[4] = {};  // so that an addition needn't wait for the one before
    for (size_t i = begin; i < std::min(weights.size(), begin + kBlock); ++i)
      part[i % 4] += double{weights[i]};
    sums.push_back((part[0] + part[1]) + (part[2] + part[3]));
  }
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// A number that at least k of them reach, and that few others do: the k-th largest of the largest
// of each kBlock.
float at_most_kth(std::span<const float> x, size_t k, std::vector<float>& tops) {
  tops.clear();
  for (size_t begin = 0; begin < x.size(); begin += kBlock)
    find_largest(x.subspan(begin, std::min(kBlock, x.size() - begin)), tops.emplace_back());
  if (k > tops.size()) return kNever;
  const auto kth = tops.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(tops.begin(), kth, tops.end(), std::greater<>());
  return *kth;
}

void require(bool holds, const char* what) {
  if (!holds) throw InputError(cat("sampling: ", what));
}

}  // namespace

double uniform(uint64_t seed, uint64_t n) noexcept {
  uint32_t x[4] = {static_cast<uint32_t>(n), static_cast<uint32_t>(n >> 32), 0, 0};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * x[0], b = uint64_t{0xCD9E8D57} * x[2];
    const uint32_t next[4] = {
        static_cast<uint32_t>(b >> 32) ^ x[1] ^ key[0], static_cast<uint32_t>(b),
        static_cast<uint32_t>(a >> 32) ^ x[3] ^ key[1], static_cast<uint32_t>(a)};
    std::copy_n(next, 4, x);
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return static_cast<double>((uint64_t{x[0]} << 32 | x[1]) >> 11) * 0x1p-53;
}

Sampler::Sampler(Sampling options) : options_(std::move(options)) {
  const Sampling& o = options_;
  require(std::isfinite(o.temperature) && o.temperature >= 0, "temperature must be 0 or more");
  require(o.top_k >= 0, "top_k must be 0 or more");
  require(o.top_p > 0 && o.top_p <= 1, "top_p must be above 0 and at most 1");
  require(o.min_p >= 0 && o.min_p <= 1, "min_p must be from 0 to 1");
  require(std::isfinite(o.repetition_penalty) && o.repetition_penalty > 0,
          "repetition_penalty must be above 0");
  require(o.min_new_tokens >= 0, "min_new_tokens must be 0 or more");
  require(o.logprobs >= -1, "logprobs must be 0 or more");
}

void Sampler::see(int32_t token) {
  if (options_.repetition_penalty == 1) return;
  const auto at = std::lower_bound(seen_.begin(), seen_.end(), token);
  if (at == seen_.end() || *at != token) seen_.insert(at, token);
}

bool Sampler::pick(std::span<float> logits, int64_t n, Sample& out) {
  float largest = 0;
  if (!find_largest(logits, largest) || !std::isfinite(largest)) return false;
  const std::vector<float> raw = options_.logprobs >= 0
                                     ? std::vector<float>(logits.begin(), logits.end())
                                     : std::vector<float>();
  const bool masked = n < options_.min_new_tokens && !options_.end_tokens.empty();
  for (int32_t id : seen_) {
    float& x = logits[static_cast<size_t>(id)];
    x = x < 0 ? x * options_.repetition_penalty : x / options_.repetition_penalty;
  }
  if (masked) {
    for (int32_t id : options_.end_tokens) {
      if (id >= 0 && static_cast<size_t>(id) < logits.size())
        logits[static_cast<size_t>(id)] = kNever;
    }
  }
  if (masked || !seen_.empty()) find_largest(logits, largest);
  if (!std::isfinite(largest)) return false;
  // The first of equal ones.
  out.token =
      options_.temperature == 0
          ? static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin())
          : draw(logits, largest, n);
  if (options_.logprobs >= 0) report(raw, out);
  return true;
}

int32_t Sampler::draw(std::span<const float> logits, float largest, int64_t n) {
  const double place = uniform(options_.seed, static_cast<uint64_t>(n));
  const auto k = static_cast<size_t>(options_.top_k);
  const bool keeps_k = k > 0 && k < logits.size();
  weigh(logits, largest, options_.temperature, weights_);
  double total = keeps_k ? 0 : sum_blocks(weights_, sums_);
  if (!keeps_k && options_.top_p == 1 && options_.min_p == 0) return find(place * total);

  float least = kNever, lightest = 0;
  if (keeps_k) {
    least = at_most_kth(logits, k, tops_);
  } else if (options_.top_p < 1) {
    // All that are lighter have less than what top_p leaves out; a little off for rounding.
    lightest = static_cast<float>(0.999 * (1.0 - double{options_.top_p}) * total /
                                  static_cast<double>(logits.size()));
  } else {
    lightest = options_.min_p;
  }
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] >= least && weights_[i] >= lightest && logits[i] > kNever)
      candidates_.push_back({logits[i], static_cast<int32_t>(i), double{weights_[i]}});
  }
  if (keeps_k) {
    keep_top_k(k);
    for (const Candidate& c : candidates_) total += c.weight;
  }
  if (options_.top_p < 1) keep_top_p(total);
  if (options_.min_p > 0) {
    // Of the probability of the most likely one, whose weight is 1.
    std::erase_if(candidates_, [&](const Candidate& c) {
      return c.weight < double{options_.min_p} && c.weight < 1;
    });
  }
  total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  double left = place * total;
  for (const Candidate& c : candidates_) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return candidates_.back().id;  // rounding left a little
}

// The id at which the sum of weights up to it exceeds `left`.
int32_t Sampler::find(double left) const {
  size_t b = 0;
  for (; b + 1 < sums_.size() && left >= sums_[b]; ++b) left -= sums_[b];
  size_t last = b * kBlock;
  for (size_t i = last; i < std::min(weights_.size(), (b + 1) * kBlock) && left >= 0; ++i) {
    if (weights_[i] == 0) continue;
    last = i;
    left -= double{weights_[i]};
  }
  while (last > 0 && weights_[last] == 0) --last;  // rounding led past the last one
  return static_cast<int32_t>(last);
}

// Those that are no smaller than the k-th, in the order of ids.
void Sampler::keep_top_k(size_t k) {
  if (k >= candidates_.size()) return;
  std::vector<float> sorted;
  sorted.reserve(candidates_.size());
  for (const Candidate& c : candidates_) sorted.push_back(c.logit);
  const auto kth = sorted.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(sorted.begin(), kth, sorted.end(), std::greater<>());
  std::erase_if(candidates_, [least = *kth](const Candidate& c) { return c.logit < least; });
}

// A key that grows as x falls; all zeros have one, as they are equal.
uint32_t falling(float x) {
  const auto bits = std::bit_cast<uint32_t>(x + 0.0f);
  return bits >> 31 != 0 ? bits : ~bits & 0x7fffffffu;
}

// Largest logit first, of equal ones the lowest id, which is the order they come in. Four passes by
// a byte of the key, over whatever number of candidates: with flat logits that is all of a
// vocabulary.
void Sampler::sort_candidates() {
  constexpr int kBytes = 4;
  uint32_t counts[kBytes][256] = {};
  for (const Candidate& c : candidates_) {
    const uint32_t key = falling(c.logit);
    for (int byte = 0; byte < kBytes; ++byte) ++counts[byte][key >> 8 * byte & 255];
  }
  sorted_.resize(candidates_.size());
  for (int byte = 0; byte < kBytes; ++byte) {
    uint32_t* const places = counts[byte];
    if (*std::max_element(places, places + 256) == candidates_.size()) continue;  // all the same
    std::exclusive_scan(places, places + 256, places, uint32_t{0});
    for (const Candidate& c : candidates_)
      sorted_[places[falling(c.logit) >> 8 * byte & 255]++] = c;
    candidates_.swap(sorted_);
  }
}

// The most likely ones, until those before have top_p.
void Sampler::keep_top_p(double total) {
  sort_candidates();
  const double wanted = double{options_.top_p} * total;
  double above = 0;
  size_t kept = 0;
  while (kept < candidates_.size() && above < wanted) above += candidates_[kept++].weight;
  candidates_.resize(kept);
}

void Sampler::report(std::span<const float> logits, Sample& out) const {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float x : logits) sum += std::exp(x - top);
  const double norm = top + std::log(sum);
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(logits[static_cast<size_t>(id)] - norm);
  };
  out.logprob = logprob(out.token);
  const size_t count = std::min(logits.size(), static_cast<size_t>(options_.logprobs));
  std::vector<float> tops;
  const float least = count > 0 ? at_most_kth(logits, count, tops) : INFINITY;
  std::vector<int32_t> order;
  for (size_t i = 0; i < logits.size() && count > 0; ++i) {
    if (logits[i] >= least) order.push_back(static_cast<int32_t>(i));
  }
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    [&](int32_t a, int32_t b) {
                      const float x = logits[static_cast<size_t>(a)];
                      const float y = logits[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  out.top.clear();
  for (size_t i = 0; i < count; ++i) out.top.emplace_back(order[i], logprob(order[i]));
}

}  // namespace trine
