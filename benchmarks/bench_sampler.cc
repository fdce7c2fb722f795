// SPDX-License-Identifier: Apache-2.0
// bench_sampler: microseconds of the processor to pick one token from a row of 128256 logits, for
// rows as random weights give them (flat) and as trained ones do (peaked). Median and quartiles.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <vector>

#include "exec/sampler.h"

namespace trine {
namespace {

double seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::vector<float> row(size_t size, float spread, bool peaked) {
  std::vector<float> out(size);
  uint32_t state = 1;
  for (float& x : out) {
    state = state * 1664525u + 1013904223u;
    const float u = static_cast<float>(state >> 8) * 0x1p-24f;
    // Trained models' logits fall about as the logarithm of the rank.
    x = peaked ? -spread * std::log(u + 1e-7f) : spread * (u - 0.5f);
  }
  return out;
}

void time(const char* name, const std::vector<float>& logits, const Sampling& options) {
  Sampler sampler(options);
  std::vector<double> found;
  std::vector<float> copy;
  for (int64_t n = 0; n < 41; ++n) {
    copy = logits;
    Sample out;
    const double begin = seconds();
    sampler.pick(copy, n, out);
    found.push_back(1e6 * (seconds() - begin));
  }
  std::sort(found.begin(), found.end());
  std::printf("%-28s %9.1f us (%.1f to %.1f)\n", name, found[20], found[10], found[30]);
}

}  // namespace
}  // namespace trine

int main() {
  using trine::Sampling;
  const std::vector<float> flat = trine::row(128256, 1, false),
                           peaked = trine::row(128256, 1, true);
  trine::time("greedy", flat, {});
  trine::time("temperature, flat", flat, {.temperature = 1});
  trine::time("top_p 0.9, flat", flat, {.temperature = 1, .top_p = 0.9f});
  trine::time("top_p 0.9, peaked", peaked, {.temperature = 0.5f, .top_p = 0.9f});
  trine::time("top_k 50, flat", flat, {.temperature = 1, .top_k = 50});
  trine::time("top_k 50, top_p 0.9, peaked", peaked,
              {.temperature = 1, .top_k = 50, .top_p = 0.9f});
  trine::time("min_p 0.05, flat", flat, {.temperature = 1, .min_p = 0.05f});
  trine::time("greedy, logprobs 5", flat, {.logprobs = 5});
  return 0;
}
