// SPDX-License-Identifier: Apache-2.0
// linear_bench [--all] [--quick] [csv file]: times of linear for the matrices of the three
// families, by CUDA graphs of many launches between events, the median of several. Weights rotate
// through more than L2 holds. Prints what linear chooses, or with --all every tile.
// Integers have bits of floats as their numbers and scales: only times mean something. Theirs
// include the launch that rounds x. Shares are of what an H100 was measured at: 798 TFLOP/s in a
// large bf16 product of cuBLAS, a third of half of that for 3xTF32, 3.0 TB/s in a copy.
#include <cuda_bf16.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/linear.h"

namespace trine::cuda {
namespace {

constexpr double kTflopsBf16 = 798.0, kTflopsFloat = kTflopsBf16 / 6, kGbs = 3000.0;
constexpr const char* kTileNames[] = {"16x8",    "16x32", "32x32", "64x64",
                                      "128x128", "h64",   "h128",  "h192"};
constexpr int64_t kShapes[][2] = {{768, 768},   {768, 2304},  {768, 3072},
                                  {3072, 768},  {576, 1536},  {2048, 2048},
                                  {2048, 8192}, {8192, 2048}, {2048, 128256}};
constexpr int64_t kRows[] = {1, 4, 16, 64, 128, 256, 512, 1024, 4096, 16384};

void check(cudaError_t error, int line) {
  if (error == cudaSuccess) return;
  std::printf("line %d: %s\n", line, cudaGetErrorString(error));
  std::exit(1);
}
#define CHECK(call) check(call, __LINE__)

__global__ void fill(__nv_bfloat16* narrow, float* wide, int64_t n, unsigned seed, float scale) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    unsigned h = static_cast<unsigned>(i) * 2654435761u + seed;
    h ^= h >> 15, h *= 0x85ebca6bu, h ^= h >> 13, h *= 0xc2b2ae35u, h ^= h >> 16;
    const float sum = static_cast<float>(h & 0xffff) + static_cast<float>(h >> 16) - 65535.0f;
    const float value = sum * (scale / 26755.0f);
    if (narrow != nullptr) {
      narrow[i] = __float2bfloat16(value);
    } else {
      wide[i] = value;
    }
  }
}

void* random_matrix(int64_t n, DType dtype, unsigned seed, float scale) {
  void* data = nullptr;
  CHECK(cudaMalloc(&data, static_cast<size_t>(n) * size_of(dtype)));
  fill<<<1024, 256>>>(dtype == DType::kBF16 ? static_cast<__nv_bfloat16*>(data) : nullptr,
                      static_cast<float*>(data), n, seed, scale);
  CHECK(cudaGetLastError());
  return data;
}

struct Options {
  bool all = false, quick = false;
  std::FILE* csv = nullptr;
};

// Microseconds of one launch.
double time_of(LinearTile tile, const LinearArgs& first, int copies, bool quick) {
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  const auto once = [&](int i) {
    LinearArgs args = first;
    const int64_t bytes = gpu::is_quantised_form(first.w_dtype)
                              ? gpu::quantised_bytes(first.w_dtype, first.n, first.k)
                              : first.n * first.ldw * static_cast<int64_t>(size_of(first.w_dtype));
    args.w = static_cast<const char*>(first.w) + i % copies * bytes;
    CHECK(linear(tile, args, stream));
  };
  float ms = 0;
  once(0);
  CHECK(cudaEventRecord(begin, stream));
  once(1);
  CHECK(cudaEventRecord(end, stream));
  CHECK(cudaEventSynchronize(end));
  CHECK(cudaEventElapsedTime(&ms, begin, end));
  const double target = quick ? 1.0 : 3.0;
  const int launches = std::clamp(static_cast<int>(target / std::max(ms, 1e-3f)), 1, 400);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) once(i);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&exec, graph, 0));
  std::vector<double> times;
  for (int repeat = 0; repeat < (ms > 20 ? 2 : 5); ++repeat) {
    CHECK(cudaEventRecord(begin, stream));
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaEventRecord(end, stream));
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    times.push_back(double{ms} * 1e3 / launches);
  }
  std::sort(times.begin(), times.end());
  CHECK(cudaGraphExecDestroy(exec));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
  CHECK(cudaStreamDestroy(stream));
  return times[(times.size() - 1) / 2];
}

void bench(int64_t k, int64_t n, Activation activation, DType dtype, const Options& options) {
  // Weights in integers stand beside float, as in models.
  const bool integers = gpu::is_quantised_form(dtype);
  const DType values = integers ? DType::kF32 : dtype;
  const size_t size = size_of(values);
  const int64_t largest = kRows[std::size(kRows) - 1];
  const int64_t bytes_w = integers ? gpu::quantised_bytes(dtype, n, k) : n * k * int64_t(size);
  const int copies = static_cast<int>(std::clamp<int64_t>((int64_t{200} << 20) / bytes_w, 1, 200));
  void* x = random_matrix(largest * k, values, 1, 1.0f);
  void* w = random_matrix(bytes_w * copies / int64_t(size) + 1, values, 2, 0.03f);
  void* y = random_matrix(largest * n, values, 3, 1.0f);
  void* workspace = nullptr;
  CHECK(cudaMalloc(&workspace, static_cast<size_t>(linear_workspace(dtype, largest, k)) + 1));
  float* bias = static_cast<float*>(random_matrix(n, DType::kF32, 4, 1.0f));
  for (const int64_t m : kRows) {
    if (options.quick && n > 100000 && m > 512) continue;
    if (dtype != DType::kBF16 && double(m) * double(n) * double(k) > 1e12) continue;
    LinearArgs args;
    args.x = {x, k, values}, args.y = {y, n, values};
    args.w = w, args.ldw = integers ? gpu::quantised_ldw(dtype, k) : k, args.w_dtype = dtype;
    args.workspace = workspace;
    args.bias = bias, args.m = m, args.n = n, args.k = k;
    args.activation = activation;
    const LinearTile chosen = linear_tile(args);
    double best = 0.0, own = 0.0;
    std::string line;
    for (int t = 0; t < kLinearTiles; ++t) {
      const LinearTile tile = static_cast<LinearTile>(t);
      const bool hopeless =
          (t < 2 && m > 64) || (t == 2 && m > 1024) || (t == 3 && m > 4096) || (t >= 4 && m < 64);
      if (tile != chosen && (!options.all || hopeless)) continue;
      if (!linear_runs(tile, args)) continue;
      const double us = time_of(tile, args, copies, options.quick);
      if (options.csv != nullptr) {
        std::fprintf(options.csv, "%s%s,%lld,%lld,%lld,%s,%.3f\n", name_of(dtype).data(),
                     activation == Activation::kNone ? "" : "+GELU", static_cast<long long>(m),
                     static_cast<long long>(k), static_cast<long long>(n), kTileNames[t], us);
      }
      char text[64];
      std::snprintf(text, sizeof(text), " %s%s %.2f", kTileNames[t], tile == chosen ? "*" : "", us);
      line += text;
      if (best == 0.0 || us < best) best = us;
      if (tile == chosen) own = us;
    }
    const double tflops = 2.0 * double(m) * double(n) * double(k) / own * 1e-6;
    const double gbs = (double(bytes_w) + double(m * (n + k)) * double(size)) / own * 1e-3;
    const double limit = integers                ? 2 * kTflopsBf16
                         : dtype == DType::kBF16 ? kTflopsBf16
                                                 : kTflopsFloat;
    std::printf("%-4s %6lld x %5lld x %6lld %9.2f us %6.1f TFLOP/s %5.0f GB/s %3.0f%% |%s\n",
                name_of(dtype).data(), static_cast<long long>(m), static_cast<long long>(k),
                static_cast<long long>(n), own, tflops, gbs,
                100.0 * std::max(tflops / limit, gbs / kGbs), line.c_str());
  }
  for (void* data : {x, w, y, workspace, static_cast<void*>(bias)}) CHECK(cudaFree(data));
}

}  // namespace
}  // namespace trine::cuda

int main(int argc, char** argv) {
  using namespace trine;
  cuda::Options options;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--all") == 0) {
      options.all = true;
    } else if (std::strcmp(argv[i], "--quick") == 0) {
      options.quick = true;
    } else {
      options.csv = std::fopen(argv[i], "w");
    }
  }
  for (const DType dtype : {DType::kBF16, DType::kF32, DType::kI8, kInt4Groups, kQ8Groups}) {
    for (const auto& [k, n] : cuda::kShapes) {
      cuda::bench(k, n, Activation::kNone, dtype, options);
    }
    std::printf("with GELU:\n");
    cuda::bench(768, 3072, Activation::kGelu, dtype, options);
  }
  if (options.csv != nullptr) std::fclose(options.csv);
}
