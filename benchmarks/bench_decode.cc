// SPDX-License-Identifier: Apache-2.0
// bench_decode [threads [bfloat16]]: what a step of generation spends its time on: attention over
// caches (in float32 or bfloat16) and linears of few rows in every dtype, both bound by memory, and
// the table of rope's angles. Median, and its share of the bandwidth that a plain read of memory
// reaches; the bandwidth is measured again beside each shape, since it drifts.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "cpu/ops.h"
#include "cpu/peak.h"
#include "exec/host.h"

namespace trine {
namespace {

using Clock = std::chrono::steady_clock;

double median(const std::function<void()>& body) {
  constexpr std::chrono::milliseconds kBudget{300};
  body();
  std::vector<double> seconds;
  const Clock::time_point begin = Clock::now();
  while (seconds.size() < 5 || Clock::now() - begin < kBudget) {
    const Clock::time_point start = Clock::now();
    body();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

struct Floats {
  explicit Floats(int64_t n) : memory(host::alloc(size_t(n) * sizeof(float))) {
    uint32_t state = 1;
    for (int64_t i = 0; i < n; ++i) {
      state = state * 1664525u + 1013904223u;
      data()[i] = float(state >> 8) * 0x1p-23f - 1.0f;
    }
  }
  float* data() { return reinterpret_cast<float*>(memory.get()); }
  std::shared_ptr<std::byte> memory;
};

void report(const char* what, double seconds, double bytes, double limit) {
  std::printf("%-44s %9.1f us %7.1f GB/s %5.1f %%\n", what, seconds * 1e6, bytes / seconds * 1e-9,
              100 * bytes / seconds * 1e-9 / limit);
}

// One new token of one sequence, layer after layer, so that no cache of the processor helps.
void attention(const cpu::Workers& workers, int32_t heads, int32_t kv_heads, int32_t dim,
               int32_t past, bool bf16, double limit) {
  const int64_t per_token = int64_t{kv_heads} * dim * (bf16 ? 1 : 2), capacity = past + 16;
  const auto layers = int32_t(std::max<int64_t>(1, (int64_t{64} << 20) / (per_token * past)));
  std::vector<int64_t> begin;
  for (int32_t i = 0; i < layers; ++i) begin.push_back(i * per_token);
  Floats cache(capacity * per_token * layers), rows(4 * heads * dim), y(heads * dim);
  const KvView view = {cache.data(), begin.data(), capacity, past};
  const int32_t offsets[] = {0, 1};
  AttentionArgs args = {};
  args.q = args.k = args.v = rows.data(), args.ldq = args.ldk = args.ldv = heads * dim;
  args.y = y.data(), args.ldy = heads * dim, args.batch = {offsets, 1};
  args.heads = heads, args.kv_heads = kv_heads, args.head_dim = dim;
  args.scale = 1 / std::sqrt(float(dim)), args.causal = true, args.caches = &view;
  const double seconds = median([&] {
    for (args.cache = 0; args.cache < layers; ++args.cache)
      bf16 ? cpu::attention_bf16(args, workers) : cpu::attention(args, workers);
  });
  char what[80];
  std::snprintf(what, sizeof what, "attention %d/%d heads of %d, past %d", heads, kv_heads, dim,
                past);
  report(what, seconds / layers, double(per_token * past) * 4, limit);
}

struct Format {
  const char* name;
  double bits;  // of a weight, with all that belongs to it
  void (*drive)(const LinearArgs&, const cpu::Workers&) noexcept;
};
template <GroupForm kForm>
constexpr Format groups(const char* name) {
  return {name, 8.0 * double(group_bytes(kForm)) / kGroup,
          [](const LinearArgs& args, const cpu::Workers& workers) noexcept {
            cpu::linear_groups(args, kForm, workers);
          }};
}
constexpr Format kFormats[] = {{"float32", 32, cpu::linear},
                               {"bfloat16", 16, cpu::linear_bf16},
                               groups<GroupForm::kInt8>("int4, 8 bits"),
                               groups<GroupForm::kQ8_0>("int4, Q8_0"),
                               groups<GroupForm::kQ6_K>("int4, Q6_K"),
                               groups<GroupForm::kInt4>("int4"),
                               groups<GroupForm::kQ4_0>("int4, Q4_0")};

// Whatever bits: no kernel's speed depends on them, as long as none is denormal or NaN.
void linear(const cpu::Workers& workers, const Format& format, int64_t m, int64_t n, int64_t k) {
  const auto bytes = int64_t(double(n * k) * format.bits / 8);
  const int64_t copies = std::max<int64_t>(1, (int64_t{256} << 20) / bytes);
  Floats x(m * k), y(m * n);
  const auto memory = host::alloc(size_t(bytes * copies));
  std::byte* const w = memory.get();
  std::fill_n(reinterpret_cast<uint32_t*>(w), bytes * copies / 4, 0x34123412u);
  LinearArgs args = {};
  args.x = x.data(), args.ldx = k, args.y = y.data(), args.ldy = n;
  args.m = m, args.n = n, args.k = k;
  const double seconds = median([&] {
    for (int64_t i = 0; i < copies; ++i) {
      args.w = w + i * bytes;
      format.drive(args, workers);
    }
  });
  char what[80];
  std::snprintf(what, sizeof what, "linear %d x %d x %d in %s", int(m), int(n), int(k),
                format.name);
  report(what, seconds / double(copies), double(bytes),
         cpu::read_bandwidth_gbs(workers.pool->size()));
}

void rotary(const cpu::Workers& workers) {
  constexpr int64_t kTokens = 512, kPairs = 64;
  std::vector<int32_t> positions(kTokens);
  for (int64_t i = 0; i < kTokens; ++i) positions[size_t(i)] = int32_t(i);
  const int32_t offsets[] = {0, kTokens};
  Floats inv_freq(kPairs), y(kTokens * 2 * kPairs);
  RotaryArgs args = {};
  args.positions = positions.data(), args.inv_freq = inv_freq.data(), args.y = y.data();
  args.ldy = 2 * kPairs, args.rows = kTokens, args.pairs = kPairs, args.batch = {offsets, 1};
  args.scaling = 1;
  const double seconds = median([&] { cpu::rotary(args, workers); });
  std::printf("rotary: %.2f ns a pair\n", seconds * 1e9 / double(kTokens * kPairs));
}

}  // namespace
}  // namespace trine

int main(int argc, char** argv) {
  using namespace trine;
  cpu::ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 1);
  const cpu::KernelTable& table = cpu::select_kernel_table();
  constexpr int64_t kDepth = 8192;
  const bool bf16 = argc > 2 && std::string_view(argv[2]) == "bfloat16";
  size_t stride = std::max(table.attention.scratch_bytes(kDepth, 128, 0),
                           table.attention_bf16.scratch_bytes(kDepth, 128, 0));
  for (const cpu::LinearKernel* kernel : {&table.linear, &table.linear_bf16, &table.linear_int8}) {
    stride = std::max(stride, kernel->scratch_bytes(kDepth));
  }
  for (const cpu::LinearKernel& kernel : table.linear_groups)
    stride = std::max(stride, kernel.scratch_bytes(kDepth));
  stride = (stride + 63) / 64 * 64;
  const auto scratch = host::alloc(stride * size_t(pool.size()));
  int64_t floats = 0;
  for (const cpu::LinearKernel& kernel : table.linear_groups)
    floats = std::max(floats, cpu::prepared_floats(kernel, 16, kDepth));
  const auto prepared = host::alloc(size_t(floats) * sizeof(float));
  const cpu::Workers workers = {&table, &pool, scratch.get(), stride,
                                reinterpret_cast<float*>(prepared.get())};
  const double limit = cpu::read_bandwidth_gbs(pool.size());
  std::printf("%s, %d threads, %.1f GB/s\n", table.name, pool.size(), limit);
  for (const int32_t past : {128, 1024, 4096}) {
    attention(workers, 32, 8, 128, past, bf16, limit);
    attention(workers, 32, 32, 128, past, bf16, limit);
    attention(workers, 9, 3, 64, past, bf16, limit);
    attention(workers, 16, 2, 64, past, bf16, limit);
  }
  for (const Format& format : kFormats) {
    for (const int64_t m : {1, 2, 4, 8, 16}) {
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{49152, 576},
                                 {3072, 576},
                                 {576, 1536},
                                 {2048, 2048},
                                 {2048, 8192}}) {
        linear(workers, format, m, n, k);
      }
    }
  }
  rotary(workers);
}
