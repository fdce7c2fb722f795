// SPDX-License-Identifier: Apache-2.0
// planted KERNEL SCHEDULE: runs a kernel of Metal on whole numbers, whose sums are exact, and says
// how it went, in the last line:
//   correct | wrong: NaN | wrong: ... | error: what the emulator reports
// unless a sanitizer ends the process before. Linked with a copy of the kernel that has a bug.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/launch.h"
#include "simt/metal_registry.h"

namespace trine {
namespace {

using simt::MetalBinding;

// Memory of its own, for ASan to guard; full of NaN.
struct Buffer {
  explicit Buffer(size_t n)
      : data(static_cast<float*>(std::aligned_alloc(16, (n * 4 + 15) / 16 * 16))), size(n) {
    std::memset(static_cast<void*>(data), 0xff, n * 4);
  }
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void fill(int step) {
    for (size_t i = 0; i < size; ++i) data[i] = float(int(i * size_t(step) % 31) - 15);
  }
  MetalBinding binding() const { return {data, size * 4}; }
  float* data;
  size_t size;
};

template <class Args>
void run(const metal::Launch& l, std::vector<MetalBinding> bindings, Args args) {
  bindings.push_back({&args, sizeof args});
  simt::run_metal_kernel(*simt::find_metal_kernel(metal::name_of(l.kernel).name), bindings,
                         {l.threadgroups[0], l.threadgroups[1], l.threadgroups[2]}, l.threads);
}

std::string judge(const std::vector<double>& want, const Buffer& got) {
  double error = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(got.data[i])) return "wrong: NaN";
    error = std::max(error, std::abs(want[i] - double(got.data[i])));
  }
  return error == 0 ? "correct" : "wrong: off by " + std::to_string(error);
}

std::string run_linear(metal::LinearTile tile) {
  const int m = 40, n = 36, k = 600;
  Buffer x(m * k), w(n * k), y(m * n);
  x.fill(37);
  w.fill(53);
  metal::LinearArgs args = {};
  args.x = metal::matrix(0, k, DType::kF32);
  args.y = metal::matrix(0, n, DType::kF32);
  args.ldw = k, args.m = m, args.n = n, args.k = k;
  metal::linear_chunks(args);
  run(metal::linear_launch(tile, args, metal::LinearWeights::kF32),
      {x.binding(), w.binding(), x.binding(), x.binding(), y.binding()}, args);
  std::vector<double> want(m * n, 0.0);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      for (int c = 0; c < k; ++c)
        want[size_t(i * n + j)] += double(x.data[i * k + c]) * double(w.data[j * k + c]);
    }
  }
  return judge(want, y);
}

std::string run_pool() {
  const int tokens = 50, cols = 40;
  Buffer x(tokens * cols), y(2 * cols);
  x.fill(41);
  alignas(16) int32_t offsets[] = {0, 34, 50};
  metal::PoolArgs args = {};
  args.x = args.y = metal::matrix(0, cols, DType::kF32);
  args.sequences = 2, args.cols = cols, args.mode = metal::kPoolMax;
  const MetalBinding at = {offsets, sizeof offsets};
  run(metal::pool_launch(args), {x.binding(), at, at, y.binding()}, args);
  std::vector<double> want(2 * cols, -INFINITY);
  for (int b = 0; b < 2; ++b) {
    for (int t = offsets[b]; t < offsets[b + 1]; ++t) {
      for (int c = 0; c < cols; ++c) {
        double& largest = want[size_t(b * cols + c)];
        largest = std::max(largest, double(x.data[t * cols + c]));
      }
    }
  }
  return judge(want, y);
}

std::string run_named(const std::string& name) {
  if (name == "pool") return run_pool();
  if (name == "linear_split") return run_linear(metal::LinearTile::k8x16);
  if (name == "linear") return run_linear(metal::LinearTile::k64x64);
  return "error: no such kernel";
}

}  // namespace
}  // namespace trine

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  using namespace trine;
  try {
    simt::set_schedule(simt::parse_schedule(argv[2]));
    std::printf("%s\n", run_named(argv[1]).c_str());
  } catch (const simt::Error& e) {
    std::printf("error: %s\n", e.what());
  }
  return 0;
}
