// SPDX-License-Identifier: Apache-2.0
// trine_cuda_planted TOOL: a kernel with a bug that this tool of compute-sanitizer has to report.
// Ends with 0 whatever happens on the GPU, so that only the tool's report makes it fail.
#include <cuda_runtime.h>

#include <cstdio>
#include <string_view>

#include "simt/planted.cuh"

namespace {

using trine::cuda::Bug;

// Half of a warp waits while the other half goes on: it must not have ended, or nobody waits.
__global__ void part_of_a_block_waits(float* y) {
  if (threadIdx.x < 48) __syncthreads();
  y[threadIdx.x] = 1;
  for (volatile int i = 0; i < 10000; i = i + 1) {
  }
  y[threadIdx.x] += 1;
}

__global__ void copy(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }

}  // namespace

int main(int argc, char** argv) {
  const std::string_view tool = argc == 2 ? argv[1] : "";
  constexpr int kRows = 2, kColumns = 196, kThreads = 64;
  constexpr size_t kBytes = kRows * kColumns * sizeof(float);
  float *x = nullptr, *y = nullptr;
  cudaMalloc(&x, kBytes);
  cudaMalloc(&y, kBytes);
  if (tool != "initcheck") cudaMemset(x, 0, kBytes);
  if (tool == "memcheck") {
    trine::cuda::softmax<Bug::kGlobalRead><<<kRows, kThreads>>>(x, y, kColumns);
  } else if (tool == "racecheck") {
    trine::cuda::softmax<Bug::kMissingBarrier><<<kRows, kThreads>>>(x, y, kColumns);
  } else if (tool == "synccheck") {
    part_of_a_block_waits<<<1, kThreads>>>(y);
  } else if (tool == "initcheck") {
    copy<<<1, kThreads>>>(x, y);
  } else {
    std::fprintf(stderr, "usage: trine_cuda_planted memcheck|racecheck|synccheck|initcheck\n");
    return 2;
  }
  std::printf("%s: %s\n", argv[1], cudaGetErrorString(cudaDeviceSynchronize()));
  cudaFree(x);
  cudaFree(y);
}
