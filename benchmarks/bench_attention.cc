// SPDX-License-Identifier: Apache-2.0
// bench_attention [threads [longest [bfloat16]]]: attention, LayerNorm and GELU on the instruction
// set that TRINE_ISA or the machine picks; median and 95th percentile of each, and the median's
// share of what the machine can do.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <new>
#include <string_view>
#include <vector>

#include "cpu/ops.h"
#include "cpu/peak.h"
#include "cpu/positions.h"

namespace trine {
namespace {

using Clock = std::chrono::steady_clock;

struct Timing {
  double median, p95;  // seconds
};

Timing time(const std::function<void()>& body) {
  constexpr int kMinRuns = 20, kMaxRuns = 5000;
  constexpr std::chrono::milliseconds kBudget{300};
  for (int i = 0; i < 3; ++i) body();
  std::vector<double> seconds;
  const Clock::time_point begin = Clock::now();
  while (int(seconds.size()) < kMinRuns ||
         (Clock::now() - begin < kBudget && int(seconds.size()) < kMaxRuns)) {
    const Clock::time_point start = Clock::now();
    body();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds[seconds.size() * 95 / 100]};
}

std::vector<float> noise(int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  uint32_t state = 1;
  for (float& v : values) {
    state = state * 1664525u + 1013904223u;
    v = float(state >> 8) * 0x1p-23f - 1.0f;
  }
  return values;
}

// Work is in Gflop or GB, `limit` in the same unit per second.
void report(const char* what, const Timing& t, double work, const char* unit, double limit) {
  std::printf("%-34s %9.1f us  p95 %9.1f us  %7.1f %s  %5.1f %%\n", what, t.median * 1e6,
              t.p95 * 1e6, work / t.median, unit, 100.0 * work / t.median / limit);
}

struct Machine {
  cpu::Workers workers;
  double gflops, gbs;
  bool bf16;
  Positions positions;
};

enum class Kind : uint8_t { kPlain, kBias, kDisentangled };

// One sequence of 12 heads of 64, q, k and v side by side, as MPNet-base has it (plain or with its
// bias) and DeBERTa-v3-base (256 buckets of up to 512; the work counted is that of the four
// products, 8 L^2 a column, so what is computed beside them lowers the share).
void bench_attention(const Machine& m, int32_t length, Kind kind) {
  constexpr int32_t kHeads = 12, kDim = 64;
  const int64_t width = kHeads * kDim;
  const std::vector<float> qkv = noise(length * 3 * width),
                           table = noise(kHeads * (2 * int64_t{length} - 1));
  std::vector<float> y(static_cast<size_t>(length * width));
  const int32_t offsets[] = {0, length};
  AttentionArgs args = {};
  args.q = qkv.data(), args.k = qkv.data() + width, args.v = qkv.data() + 2 * width;
  args.ldq = args.ldk = args.ldv = 3 * width;
  args.bias = kind == Kind::kBias ? table.data() : nullptr, args.span = length;
  args.y = y.data(), args.ldy = width;
  args.batch = {offsets, 1};
  args.heads = args.kv_heads = kHeads, args.head_dim = kDim;
  args.scale = 0.125f;
  const Positions& positions = m.positions;
  std::vector<float> panels = noise(2 * kHeads * positions.head);
  for (float& x : panels) {
    if (m.bf16) x = std::bit_cast<float>((std::bit_cast<uint32_t>(x) >> 16) * 0x10001u);
  }
  if (kind == Kind::kDisentangled) {
    args.position_keys = panels.data();
    args.position_queries = panels.data() + kHeads * positions.head;
    args.position_at = positions.at.center();
    args.reach = positions.at.reach;
    args.position_head = positions.head;
    args.position_columns = positions.columns;
  }
  constexpr const char* kNames[] = {"", " bias", " disentangled"};
  char name[64];
  std::snprintf(name, sizeof name, "attention L=%d%s", length, kNames[static_cast<int>(kind)]);
  const double products = kind == Kind::kDisentangled ? 4 : 2;
  report(name, time([&] {
           m.bf16 ? cpu::attention_bf16(args, m.workers) : cpu::attention(args, m.workers);
         }),
         2e-9 * products * length * length * double(width), "GFLOP/s", m.gflops);
}

void bench_layer_norm(const Machine& m, int64_t rows, int64_t cols) {
  const std::vector<float> x = noise(rows * cols), weight = noise(cols), bias = noise(cols);
  std::vector<float> y(x.size());
  const LayerNormArgs args = {x.data(), cols, weight.data(), bias.data(), y.data(),
                              cols,     rows, cols,          1e-5f};
  char name[64];
  std::snprintf(name, sizeof name, "layer_norm %lld x %lld", static_cast<long long>(rows),
                static_cast<long long>(cols));
  report(name, time([&] { cpu::layer_norm(args, m.workers); }), 8e-9 * double(rows * cols),
         "GB/s   ", m.gbs);
}

// Counted as 22 instructions of two flop for each vector: the share is that of the arithmetic
// units.
void bench_gelu(const Machine& m, int64_t rows, int64_t cols) {
  const std::vector<float> x = noise(rows * cols);
  std::vector<float> y(x.size());
  const ActivationArgs args = {x.data(), cols, y.data(), cols, rows, cols, Activation::kGelu};
  char name[64];
  std::snprintf(name, sizeof name, "gelu %lld x %lld", static_cast<long long>(rows),
                static_cast<long long>(cols));
  report(name, time([&] { cpu::activation(args, m.workers); }), 44e-9 * double(rows * cols),
         "Gop/s  ", m.gflops);
}

int run(int threads, int32_t longest, bool bf16) {
  cpu::ThreadPool pool(threads);
  const cpu::KernelTable& table = cpu::select_kernel_table();
  AttentionAttrs attrs;
  attrs.position_buckets = 256;
  attrs.max_relative_positions = 512;
  const Positions positions = cpu::positions_of(attrs, bf16 ? 32 : 64);
  const cpu::AttentionKernel& kernel = bf16 ? table.attention_bf16 : table.attention;
  const size_t stride = (kernel.scratch_bytes(2048, 64, positions.columns) + 63) / 64 * 64;
  auto* scratch =
      static_cast<std::byte*>(::operator new(stride * size_t(pool.size()), std::align_val_t{64}));
  const Machine m = {{&table, &pool, scratch, stride},
                     cpu::peak_gflops(table.isa, pool.size(), bf16 ? DType::kBF16 : DType::kF32),
                     cpu::read_bandwidth_gbs(pool.size()),
                     bf16,
                     positions};
  std::printf("%s, %d threads: %.0f GFLOP/s, %.1f GB/s from memory\n", table.name, pool.size(),
              m.gflops, m.gbs);
  for (const int32_t length : {16, 24, 32, 64, 128, 256, 384, 512, 1024, 2048}) {
    if (length > longest) break;
    for (const Kind kind : {Kind::kPlain, Kind::kBias, Kind::kDisentangled})
      bench_attention(m, length, kind);
  }
  for (const int64_t rows : {16, 128, 8192}) bench_layer_norm(m, rows, 768);
  for (const int64_t rows : {1, 16, 128}) bench_gelu(m, rows, 3072);
  ::operator delete(scratch, std::align_val_t{64});
  return 0;
}

}  // namespace
}  // namespace trine

int main(int argc, char** argv) {
  return trine::run(argc > 1 ? std::atoi(argv[1]) : 1, argc > 2 ? std::atoi(argv[2]) : 2048,
                    argc > 3 && std::string_view(argv[3]) == "bfloat16");
}
