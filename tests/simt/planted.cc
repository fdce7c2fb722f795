// SPDX-License-Identifier: Apache-2.0
// planted BUG SCHEDULE: runs the kernel with that bug and says how it went, in the last line:
//   correct | wrong: NaN | wrong: ... | error: what the emulator reports
// unless a sanitizer ends the process before. `planted --list` names the bugs.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "planted.cuh"

namespace trine {
namespace {

using cuda::Bug;

// Memory of its own, 16-byte aligned, for ASan to guard.
template <class T>
struct Buffer {
  explicit Buffer(size_t n) : data(static_cast<T*>(std::aligned_alloc(16, n * sizeof(T)))) {
    std::memset(static_cast<void*>(data), 0xff, n * sizeof(T));
  }
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T& operator[](size_t i) { return data[i]; }
  T* data;
};

std::string judge(double error, double tolerance) {
  if (std::isnan(error)) return "wrong: NaN";
  return error <= tolerance ? "correct" : "wrong: off by " + std::to_string(error);
}

// max that keeps a NaN.
double worse(double a, double b) { return std::isnan(a) || a > b ? a : b; }

template <Bug bug>
std::string run_softmax() {
  const int rows = 2, n = 196, threads = 64;
  Buffer<float> x(size_t(rows) * n), y(size_t(rows) * n);
  for (int i = 0; i < rows * n; ++i) x[size_t(i)] = float(i * 7919 % 1000) / 100.0f;
  TRINE_LAUNCH((cuda::softmax<bug>), rows, threads, 0, nullptr, x.data, y.data, n);
  double error = 0;
  for (int r = 0; r < rows; ++r) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += std::exp(double(x[size_t(r * n + i)]));
    for (int i = 0; i < n; ++i) {
      const size_t at = size_t(r * n + i);
      error = worse(std::abs(y[at] - std::exp(double(x[at])) / sum), error);
    }
  }
  return judge(error, 1e-6);
}

template <Bug bug>
std::string run_gemm() {
  const int m = 64, n = 128, k = 128;
  Buffer<cuda::bf16> a(size_t(m) * k), b(size_t(n) * k);
  Buffer<float> c(size_t(m) * n);
  for (int i = 0; i < m * k; ++i) a[size_t(i)] = __float2bfloat16(float(i * 37 % 31 - 15));
  for (int i = 0; i < n * k; ++i) b[size_t(i)] = __float2bfloat16(float(i * 53 % 29 - 14));
  TRINE_LAUNCH((cuda::gemm<bug>), dim3(n / 64, m / 64), 128, 0, nullptr, a.data, b.data, c.data, n,
               k);
  double error = 0;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int q = 0; q < k; ++q) {
        sum +=
            double(__bfloat162float(a[size_t(i * k + q)])) * __bfloat162float(b[size_t(j * k + q)]);
      }
      error = worse(std::abs(sum - c[size_t(i * n + j)]), error);
    }
  }
  return judge(error, 0);  // small integers: exact
}

struct Planted {
  const char* name;
  std::string (*run)();
};

const Planted kPlanted[] = {
    {"softmax", run_softmax<Bug::kNone>},
    {"gemm", run_gemm<Bug::kNone>},
    {"missing_barrier", run_softmax<Bug::kMissingBarrier>},
    {"missing_second_barrier", run_softmax<Bug::kMissingSecondBarrier>},
    {"divergent_barrier", run_softmax<Bug::kDivergentBarrier>},
    {"barrier_after_exit", run_softmax<Bug::kBarrierAfterExit>},
    {"partial_shuffle", run_softmax<Bug::kPartialShuffle>},
    {"left_out_lane", run_softmax<Bug::kLeftOutLane>},
    {"uninitialised", run_softmax<Bug::kUninitialised>},
    {"global_read", run_softmax<Bug::kGlobalRead>},
    {"shared_write", run_softmax<Bug::kSharedWrite>},
    {"shared_overrun", run_softmax<Bug::kSharedOverrun>},
    {"blocks_share_output", run_softmax<Bug::kBlocksShareOutput>},
    {"missing_wait", run_gemm<Bug::kMissingWait>},
    {"missing_buffer_barrier", run_gemm<Bug::kMissingBufferBarrier>},
    {"unfinished_copy", run_gemm<Bug::kUnfinishedCopy>},
    {"misaligned_copy", run_gemm<Bug::kMisalignedCopy>},
    {"misaligned_vector", run_softmax<Bug::kMisalignedVector>},
    {"wrong_fragment", run_gemm<Bug::kWrongFragment>},
};

}  // namespace
}  // namespace trine

int main(int argc, char** argv) {
  using namespace trine;
  const std::string name = argc > 1 ? argv[1] : "";
  for (const Planted& planted : kPlanted) {
    if (name == "--list") std::printf("%s\n", planted.name);
    if (name != planted.name) continue;
    try {
      simt::set_schedule(simt::parse_schedule(argc > 2 ? argv[2] : "in-order"));
      std::printf("%s\n", planted.run().c_str());
    } catch (const simt::Error& e) {
      std::printf("error: %s\n", e.what());
    }
    return 0;
  }
  return name == "--list" ? 0 : 2;
}
