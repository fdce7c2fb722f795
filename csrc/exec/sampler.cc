// SPDX-License-Identifier: Apache-2.0
#include "exec/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "trine.h"

namespace trine {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

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
  float largest = kNever;
  bool numbers = true;
  for (float x : logits) {
    numbers &= !std::isnan(x);
    largest = std::max(largest, x);
  }
  if (!numbers || !std::isfinite(largest)) return false;
  const std::vector<float> raw = options_.logprobs >= 0
                                     ? std::vector<float>(logits.begin(), logits.end())
                                     : std::vector<float>();
  for (int32_t id : seen_) {
    float& x = logits[static_cast<size_t>(id)];
    x = x < 0 ? x * options_.repetition_penalty : x / options_.repetition_penalty;
  }
  if (n < options_.min_new_tokens) {
    for (int32_t id : options_.end_tokens) {
      if (id >= 0 && static_cast<size_t>(id) < logits.size())
        logits[static_cast<size_t>(id)] = kNever;
    }
  }
  // The first of equal ones.
  const auto top = std::max_element(logits.begin(), logits.end());
  if (!std::isfinite(*top)) return false;
  out.token = options_.temperature == 0 ? static_cast<int32_t>(top - logits.begin())
                                        : draw(logits, *top, n);
  if (options_.logprobs >= 0) report(raw, out);
  return true;
}

int32_t Sampler::draw(std::span<const float> logits, float largest, int64_t n) {
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > kNever)
      candidates_.push_back({logits[i] / options_.temperature, static_cast<int32_t>(i), 0});
  }
  keep_top_k();
  const double top = largest / options_.temperature;
  double total = 0;
  for (Candidate& c : candidates_) {
    c.weight = std::exp(c.logit - top);
    total += c.weight;
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
  double left = uniform(options_.seed, static_cast<uint64_t>(n)) * total;
  for (const Candidate& c : candidates_) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return candidates_.back().id;  // rounding left a little
}

// Those that are no smaller than the k-th, in the order of ids.
void Sampler::keep_top_k() {
  const auto k = static_cast<size_t>(options_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  std::vector<float> sorted;
  sorted.reserve(candidates_.size());
  for (const Candidate& c : candidates_) sorted.push_back(c.logit);
  const auto kth = sorted.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(sorted.begin(), kth, sorted.end(), std::greater<>());
  std::erase_if(candidates_, [least = *kth](const Candidate& c) { return c.logit < least; });
}

// The most likely ones, until those before have top_p. Few are, so they are sorted piece by piece.
void Sampler::keep_top_p(double total) {
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  const double wanted = double{options_.top_p} * total;
  double above = 0;
  size_t kept = 0, sorted = 0;
  for (size_t piece = 64; kept < candidates_.size() && above < wanted; piece *= 4) {
    const size_t end = std::min(candidates_.size(), sorted + piece);
    std::partial_sort(candidates_.begin() + static_cast<std::ptrdiff_t>(sorted),
                      candidates_.begin() + static_cast<std::ptrdiff_t>(end), candidates_.end(),
                      before);
    sorted = end;
    while (kept < sorted && above < wanted) above += candidates_[kept++].weight;
  }
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
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const size_t count = std::min(order.size(), static_cast<size_t>(options_.logprobs));
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
