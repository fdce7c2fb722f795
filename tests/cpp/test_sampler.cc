// SPDX-License-Identifier: Apache-2.0
// The sampler's sieves against plain loops over all tokens, in double.
#include "exec/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "kernel_testing.h"

namespace trine::test {
namespace {

using Row = std::vector<float>;

// Ids in the order that they are drawn in, with their weights.
struct Kept {
  std::vector<int32_t> ids;
  std::vector<double> weights;
};

Kept keep(const Row& logits, const Sampling& o) {
  std::vector<int32_t> best(logits.size());
  std::iota(best.begin(), best.end(), 0);
  std::stable_sort(best.begin(), best.end(),
                   [&](int32_t a, int32_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
  const double top = double{logits[size_t(best[0])]};
  const auto weight = [&](int32_t id) {
    return std::exp((double{logits[size_t(id)]} - top) / double{o.temperature});
  };
  size_t count = best.size();
  if (o.top_k > 0 && size_t(o.top_k) < count) {
    const float least = logits[size_t(best[size_t(o.top_k) - 1])];
    count = size_t(o.top_k);
    while (count < best.size() && logits[size_t(best[count])] == least) ++count;
  }
  best.resize(count);
  if (o.top_p < 1) {
    double total = 0, above = 0;
    for (int32_t id : best) total += weight(id);
    count = 0;
    while (count < best.size() && above < double(o.top_p) * total) above += weight(best[count++]);
    best.resize(count);
  } else {
    std::sort(best.begin(), best.end());
  }
  Kept out;
  for (int32_t id : best) {
    if (o.min_p > 0 && weight(id) < double(o.min_p) && weight(id) < 1) continue;
    out.ids.push_back(id);
    out.weights.push_back(weight(id));
  }
  return out;
}

// Where among them the draw falls.
int64_t draw(const Kept& kept, double place) {
  double left = place * std::accumulate(kept.weights.begin(), kept.weights.end(), 0.0);
  for (size_t i = 0; i < kept.ids.size(); ++i) {
    left -= kept.weights[i];
    if (left < 0) return int64_t(i);
  }
  return int64_t(kept.ids.size()) - 1;
}

}  // namespace

TEST(sampler_draws_as_plain_loops_do) {
  const std::vector<Sampling> options = {
      {.temperature = 1},
      {.temperature = 0.2f},
      {.temperature = 3},
      {.temperature = 1e-38f},
      {.temperature = 0.8f, .top_k = 1},
      {.temperature = 0.8f, .top_k = 40},
      {.temperature = 0.8f, .top_k = 5000},
      {.temperature = 1, .top_p = 0.01f},
      {.temperature = 1, .top_p = 0.9f},
      {.temperature = 2, .top_p = 0.9999f},
      {.temperature = 1, .min_p = 0.05f},
      {.temperature = 1, .min_p = 1e-6f},
      {.temperature = 1.3f, .top_k = 50, .top_p = 0.9f, .min_p = 0.02f},
      {.temperature = 1.3f, .top_p = 0.95f, .min_p = 0.02f},
  };
  Random random(7);
  int drawn = 0, other = 0;
  for (const size_t size : {1, 2, 15, 16, 17, 63, 64, 65, 1000, 5003, 49152}) {
    for (const float spread : {0.0f, 1.0f, 8.0f, 200.0f}) {
      Row row(size);
      // A grid, so that there are ties.
      for (float& x : row) x = spread * std::round(random.uniform(-1, 1) * 512) / 512;
      for (Sampling o : options) {
        o.seed = uint64_t(drawn);
        Sampler sampler(o);
        const Kept kept = keep(row, o);
        for (int64_t n = 0; n < 8; ++n, ++drawn) {
          Row copy = row;
          Sample out;
          CHECK(sampler.pick(copy, n, out));
          const auto at = std::find(kept.ids.begin(), kept.ids.end(), out.token);
          CHECK(at != kept.ids.end());
          // Weights are floats: at a border the neighbour may be drawn, and among tens of thousands
          // of flat ones the next but one.
          const int64_t off = at - kept.ids.begin() - draw(kept, uniform(o.seed, uint64_t(n)));
          CHECK(std::abs(off) <= 2);
          other += off != 0 && kept.ids.size() < 1000;
        }
      }
    }
  }
  CHECK(drawn > 4000);
  CHECK(other <= 4);
}

// With a temperature of log2(e) and whole logits all weights are powers of two and all sums exact,
// so that nothing but the order decides.
TEST(sampler_sorts_as_a_stable_sort_does) {
  Random random(10);
  uint64_t seed = 0;
  for (const size_t size : {2, 3, 255, 256, 257, 5000, 128256}) {
    for (const float depth : {0.0f, 1.0f, 12.0f}) {
      Row row(size);
      for (float& x : row) x = std::round(random.uniform(-depth, 0));  // 0 and -0 are equal
      row[size / 2] = 0;
      std::vector<size_t> order(size);
      std::iota(order.begin(), order.end(), size_t{0});
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return row[a] > row[b]; });
      const auto weight = [&](size_t id) { return std::ldexp(1.0, int(row[id])); };
      double all = 0;
      for (size_t id : order) all += weight(id);
      for (const float top_p : {0.001f, 0.5f, 0.9f, 0.9999f}) {
        double total = 0;
        size_t kept = 0;
        while (kept < size && total < double{top_p} * all) total += weight(order[kept++]);
        for (int64_t n = 0; n < 6; ++n) {
          double left = uniform(++seed, uint64_t(n)) * total;
          size_t at = 0;
          while ((left -= weight(order[at])) >= 0) ++at;
          Row copy = row;
          Sample out;
          CHECK(Sampler({.temperature = 1.44269504f, .top_p = top_p, .seed = seed})
                    .pick(copy, n, out));
          CHECK_EQ(size_t(out.token), order[at]);
          CHECK(at < kept);
        }
      }
    }
  }
}

TEST(sampler_never_draws_what_cannot_be) {
  Row row(200, -INFINITY);
  row[150] = -5;
  row[151] = -6;
  for (const Sampling& o : std::vector<Sampling>{{.temperature = 5},
                                                 {.temperature = 5, .top_k = 7},
                                                 {.temperature = 5, .top_p = 0.99f},
                                                 {.temperature = 5, .min_p = 0.001f}}) {
    int second = 0;
    for (int64_t n = 0; n < 200; ++n) {
      Row copy = row;
      Sample out;
      CHECK(Sampler(o).pick(copy, n, out));
      CHECK(out.token == 150 || out.token == 151);
      second += out.token == 151;
    }
    CHECK(second > 50);
  }
}

TEST(sampler_finds_the_largest_and_what_is_no_number) {
  Random random(8);
  for (size_t size = 1; size <= 70; ++size) {
    Row row(size);
    for (float& x : row) x = std::round(random.uniform(-4, 4));
    const auto first = std::max_element(row.begin(), row.end()) - row.begin();
    Sample out;
    CHECK(Sampler({}).pick(row, 0, out));
    CHECK_EQ(int64_t(out.token), int64_t(first));
    for (size_t at = 0; at < size; ++at) {
      Row spoilt = row;
      spoilt[at] = NAN;
      CHECK(!Sampler({}).pick(spoilt, 0, out));
    }
  }
}

TEST(sampler_reports_the_likeliest) {
  Random random(9);
  for (const size_t size : {1, 3, 64, 100, 5000}) {
    Row row(size);
    for (float& x : row) x = std::round(random.uniform(-40, 40)) / 8;
    std::vector<int32_t> order(size);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return row[size_t(a)] > row[size_t(b)]; });
    for (const int32_t wanted : {0, 1, 5, 64, 6000}) {
      Row copy = row;
      Sample out;
      CHECK(Sampler({.logprobs = wanted}).pick(copy, 0, out));
      CHECK_EQ(out.top.size(), std::min(size, size_t(wanted)));
      for (size_t i = 0; i < out.top.size(); ++i) CHECK_EQ(out.top[i].first, order[i]);
    }
  }
}

}  // namespace trine::test
