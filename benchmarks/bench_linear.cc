// SPDX-License-Identifier: Apache-2.0
// bench_linear [threads] [isa, dtype or NxK]...: linear over the shapes of MPNet and DeBERTa (768
// wide), their large forms (1024) and a small Llama (2048), on the instruction sets named or all
// there are, in the dtypes (float32, bfloat16, int8) named or all.
// Weights are cycled over 256 MiB, as the layers of a model are: they come from memory, not from a
// cache. Prints median and 95th percentile and the median's share of the roofline: the longer of
// flop / peak and bytes of weights / read bandwidth, which is measured again before each shape.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cpu/ops.h"
#include "cpu/peak.h"
#include "exec/host.h"
#include "weights/convert.h"

namespace trine {
namespace {

using Clock = std::chrono::steady_clock;
using cpu::KernelTable;

using Floats = std::shared_ptr<float[]>;

Floats noise(int64_t n) {
  const std::shared_ptr<std::byte> memory = host::alloc(static_cast<size_t>(n) * sizeof(float));
  const Floats values(memory, reinterpret_cast<float*>(memory.get()));
  uint32_t state = 1;
  for (int64_t i = 0; i < n; ++i) {
    state = state * 1664525u + 1013904223u;
    values[static_cast<size_t>(i)] = float(state >> 8) * 0x1p-23f - 1.0f;
  }
  return values;
}

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

// Bytes of packed weights, filled up to whole floats.
int64_t packed_bytes(DType dtype, int64_t n, int64_t k) {
  if (dtype == DType::kI8) return cpu::packed_int8(n, k);
  return dtype == DType::kBF16 ? cpu::packed_bf16(n, k) * 2 : cpu::packed_floats(n, k) * 4;
}

const cpu::LinearKernel& kernel_of(const KernelTable& table, DType dtype) {
  if (dtype == DType::kI8) return table.linear_int8;
  return dtype == DType::kBF16 ? table.linear_bf16 : table.linear;
}

void bench(const KernelTable& table, DType dtype, cpu::ThreadPool& pool, double peak, int64_t n,
           int64_t k) {
  constexpr int64_t kMaxRows = 4096;
  constexpr int64_t kWeightBytes = int64_t{256} << 20;
  // Of weights, in floats: any pattern will do, and these are numbers as bf16, too.
  const int64_t floats = packed_bytes(dtype, n, k) / 4;
  const int64_t layers = std::max<int64_t>(1, kWeightBytes / (floats * 4));
  const Floats weights = noise(floats * layers), x = noise(kMaxRows * k), bias = noise(n);
  if (dtype != DType::kF32) {
    auto* const halves = reinterpret_cast<uint16_t*>(weights.get());
    for (int64_t i = 0; i < 2 * floats * layers; ++i)
      halves[i] = f32_to_bf16(float(uint32_t(i) * 2654435761u >> 8) * 0x1p-23f - 1.0f);
  }
  const Floats y = noise(kMaxRows * n);
  const cpu::LinearKernel& kernel = kernel_of(table, dtype);
  const size_t stride = (kernel.scratch_bytes(k) + 63) / 64 * 64;
  const Floats scratch = noise(static_cast<int64_t>(stride / 4) * pool.size());
  const bool prepares = kernel.prepare != nullptr;
  const Floats rows = noise(prepares ? cpu::prepared_floats(kernel, kMaxRows, k) : 1);
  const cpu::Workers workers = {&table, &pool, reinterpret_cast<std::byte*>(scratch.get()), stride,
                                rows.get()};
  const auto run = dtype == DType::kI8     ? cpu::linear_int8
                   : dtype == DType::kBF16 ? cpu::linear_bf16
                                           : cpu::linear;
  const double gbs = cpu::read_bandwidth_gbs(pool.size());  // it drifts
  int64_t layer = 0;
  for (const int64_t m : {1, 4, 8, 16, 32, 64, 128, 512, 4096}) {
    const Timing t = time([&] {
      const float* w = weights.get() + layer++ % layers * floats;
      const LinearArgs args = {x.get(), k, w, bias.get(), nullptr, 0,
                               y.get(), n, m, n,          k,       Activation::kNone};
      run(args, workers);
    });
    const double gflop = 2e-9 * double(m * n * k), gb = 1e-9 * double(packed_bytes(dtype, n, k));
    const double limit = std::max(gflop / peak, gb / gbs);
    std::printf(
        "%-11s %-8s %4d x %5d x %5d %9.1f us  p95 %9.1f us %8.1f GFLOP/s %6.1f GB/s "
        "%6.1f %%\n",
        table.name, model_name(dtype).data(), int(m), int(n), int(k), t.median * 1e6, t.p95 * 1e6,
        gflop / t.median, gb / t.median, 100.0 * limit / t.median);
  }
}

// Whether this one of `all` was asked for, or none of them.
bool wanted(std::string_view name, const std::vector<std::string>& all, int argc, char** argv) {
  bool any = false;
  for (int i = 2; i < argc; ++i) {
    if (name == argv[i]) return true;
    any |= std::find(all.begin(), all.end(), argv[i]) != all.end();
  }
  return !any;
}

const KernelTable* find_table(std::string_view name) {
  for (const cpu::Isa isa : cpu::kIsas) {
    const KernelTable* table = cpu::kernel_table(isa);
    if (table != nullptr && name == table->name) return table;
  }
  return nullptr;
}

}  // namespace
}  // namespace trine

int main(int argc, char** argv) {
  using namespace trine;
  cpu::ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 0);
  const int threads = pool.size();
  std::vector<std::string> isas, shapes;
  for (const cpu::Isa isa : cpu::kIsas) {
    if (const KernelTable* table = cpu::kernel_table(isa)) isas.emplace_back(table->name);
  }
  constexpr int64_t kShapes[][2] = {{768, 768},   {2304, 768},  {3072, 768},
                                    {768, 3072},  {1024, 1024}, {4096, 1024},
                                    {1024, 4096}, {2048, 2048}, {8192, 2048}};
  const auto shown = [](const int64_t (&s)[2]) {
    return std::to_string(s[0]) + "x" + std::to_string(s[1]);
  };
  for (const auto& shape : kShapes) shapes.push_back(shown(shape));
  for (const std::string& isa_name : isas) {
    if (!wanted(isa_name, isas, argc, argv)) continue;
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
      if (!wanted(model_name(dtype), {"float32", "bfloat16", "int8"}, argc, argv)) continue;
      const KernelTable* table = find_table(isa_name);
      const double peak = cpu::peak_gflops(table->isa, threads, dtype);
      std::printf("%s, %s, %d threads: %.1f GFLOP/s\n", table->name, model_name(dtype).data(),
                  threads, peak);
      for (const auto& shape : kShapes) {
        if (wanted(shown(shape), shapes, argc, argv))
          bench(*table, dtype, pool, peak, shape[0], shape[1]);
      }
    }
  }
  return 0;
}
