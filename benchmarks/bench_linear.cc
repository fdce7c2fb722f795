// SPDX-License-Identifier: Apache-2.0
// bench_linear [threads] [isa]...: linear over the shapes of MPNet and DeBERTa (768 wide), their
// large forms (1024) and a small Llama (2048), on the instruction sets named or all there are.
// Weights are cycled over 256 MiB, as the layers of a model are: they come from memory, not from a
// cache. Prints median and 95th percentile and the median's share of the roofline: the longer of
// flop / peak and bytes of weights / read bandwidth.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "cpu/ops.h"
#include "cpu/peak.h"

namespace trine {
namespace {

using Clock = std::chrono::steady_clock;
using cpu::KernelTable;

constexpr std::align_val_t kLine{64};

struct FreeAligned {
  void operator()(float* p) const { ::operator delete[](p, kLine); }
};
using Floats = std::unique_ptr<float[], FreeAligned>;

Floats noise(int64_t n) {
  Floats values(new (kLine) float[static_cast<size_t>(n)]);
  uint32_t state = 1;
  for (int64_t i = 0; i < n; ++i) {
    state = state * 1664525u + 1013904223u;
    values[static_cast<size_t>(i)] = float(state >> 8) * 0x1p-23f - 1.0f;
  }
  return values;
}

struct Machine {
  cpu::ThreadPool pool;
  double gbs;
};

struct Timing {
  double median, p95;  // seconds
};

template <class Body>
Timing time(const Body& body) {
  constexpr size_t kMinRuns = 15, kMaxRuns = 2000;
  constexpr std::chrono::milliseconds kBudget{150};
  for (int i = 0; i < 3; ++i) body();
  std::vector<double> seconds;
  const Clock::time_point begin = Clock::now();
  while (seconds.size() < kMinRuns ||
         (Clock::now() - begin < kBudget && seconds.size() < kMaxRuns)) {
    const Clock::time_point start = Clock::now();
    body();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds[seconds.size() * 95 / 100]};
}

void bench(const KernelTable& table, Machine& machine, double peak, int64_t n, int64_t k) {
  constexpr int64_t kMaxRows = 512;
  constexpr int64_t kWeightBytes = int64_t{256} << 20;
  const int64_t floats = cpu::packed_floats(n, k);
  const int64_t layers = std::max<int64_t>(1, kWeightBytes / (floats * 4));
  const Floats weights = noise(floats * layers), x = noise(kMaxRows * k), bias = noise(n);
  const Floats y = noise(kMaxRows * n);
  const size_t stride = (table.linear_scratch_bytes(k) + 63) / 64 * 64;
  const Floats scratch = noise(static_cast<int64_t>(stride / 4) * machine.pool.size());
  const cpu::Workers workers = {&table, &machine.pool, reinterpret_cast<std::byte*>(scratch.get()),
                                stride};
  int64_t layer = 0;
  for (const int64_t m : {1, 4, 8, 16, 32, 128, 512}) {
    const Timing t = time([&] {
      const float* w = weights.get() + layer++ % layers * floats;
      cpu::linear({x.get(), k, w, bias.get(), nullptr, 0, y.get(), n, m, n, k, Activation::kNone},
                  workers);
    });
    const double gflop = 2e-9 * double(m * n * k), gb = 4e-9 * double(n * k);
    const double limit = std::max(gflop / peak, gb / machine.gbs);
    std::printf("%-7s %4d x %5d x %5d %9.1f us  p95 %9.1f us %8.1f GFLOP/s %6.1f GB/s %6.1f %%\n",
                table.name, int(m), int(n), int(k), t.median * 1e6, t.p95 * 1e6, gflop / t.median,
                gb / t.median, 100.0 * limit / t.median);
  }
}

bool wanted(const KernelTable& table, int argc, char** argv) {
  if (argc < 3) return true;
  return std::any_of(argv + 2, argv + argc,
                     [&](const char* name) { return std::strcmp(name, table.name) == 0; });
}

}  // namespace
}  // namespace trine

int main(int argc, char** argv) {
  using namespace trine;
  Machine machine{cpu::ThreadPool(argc > 1 ? std::atoi(argv[1]) : 0), 0.0};
  const int threads = machine.pool.size();
  machine.gbs = cpu::read_bandwidth_gbs(threads);
  for (const cpu::Isa isa :
       {cpu::Isa::kAvx512, cpu::Isa::kAvx2, cpu::Isa::kNeon, cpu::Isa::kScalar}) {
    const KernelTable* table = cpu::kernel_table(isa);
    if (table == nullptr || !wanted(*table, argc, argv)) continue;
    const double peak = cpu::peak_gflops(isa, threads);
    std::printf("%s, %d threads: %.1f GFLOP/s, %.1f GB/s\n", table->name, threads, peak,
                machine.gbs);
    constexpr int64_t kShapes[][2] = {{768, 768},   {2304, 768},  {3072, 768},
                                      {768, 3072},  {1024, 1024}, {4096, 1024},
                                      {1024, 4096}, {2048, 2048}, {8192, 2048}};
    for (const auto& [n, k] : kShapes) bench(*table, machine, peak, n, k);
  }
  return 0;
}
