// SPDX-License-Identifier: Apache-2.0
// The emulator itself: indices, schedules, collectives, what launches are refused, and the twins
// that stand for instructions sm_75 doesn't have.
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "cpp/check.h"
#include "kernels/dialect.h"

namespace trine::simt {
namespace {

using cuda::bf16;

TEST(every_thread_runs_once) {
  const Index3 grid(3, 2, 2), block(5, 4, 2);
  for_each_schedule([&](Schedule) {
    std::vector<int> runs(3 * 2 * 2 * 5 * 4 * 2);
    const auto kernel = +[](int* out) {
      const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
      const unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
      ++out[b * blockDim.x * blockDim.y * blockDim.z + t];
    };
    TRINE_LAUNCH(kernel, grid, block, 0, nullptr, runs.data());
    CHECK(std::all_of(runs.begin(), runs.end(), [](int n) { return n == 1; }));
  });
}

void write_order(int* order, int* next) { order[atomicAdd(next, 1)] = int(threadIdx.x); }

TEST(schedules_differ) {
  std::set<std::vector<int>> seen;
  for_each_schedule([&](Schedule) {
    std::vector<int> order(128);
    int next = 0;
    TRINE_LAUNCH(write_order, 1, 128, 0, nullptr, order.data(), &next);
    CHECK_EQ(next, 128);
    seen.insert(order);
  });
  CHECK(seen.size() >= 4);
  CHECK_EQ(parse_schedule("random:7").seed, 7u);
  CHECK_THROWS_WITH(parse_schedule("sideways"), std::invalid_argument, "sideways");
}

// Nothing is printed or lost on the way, whatever the order.
void scan(int* out) {
  TRINE_SHARED(int, sums, 4);
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32);
  int value = int(threadIdx.x) + 1;
  for (int d = 1; d < 32; d *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, value, unsigned(d));
    if (lane >= d) value += other;
  }
  if (lane == 31) sums[warp] = value;
  __syncthreads();
  for (int w = 0; w < warp; ++w) value += sums[w];
  out[threadIdx.x] = value;
}

TEST(shuffles_and_barriers_give_a_scan) {
  for_each_schedule([&](Schedule) {
    std::vector<int> out(128);
    TRINE_LAUNCH(scan, 1, 128, 0, nullptr, out.data());
    for (int i = 0; i < 128; ++i) CHECK_EQ(out[size_t(i)], (i + 1) * (i + 2) / 2);
  });
}

// Blocks add up what they wrote in the one that comes last. Without any fence TSan objects; which
// side of the counter one is on it cannot tell, as blocks run one after the other.
void last_block_adds(int* parts, unsigned* arrived, int* sum) {
  parts[blockIdx.x] = int(blockIdx.x) + 1;
  __threadfence();
  const unsigned before = atomicAdd(arrived, 1u);
  __threadfence();
  if (before != gridDim.x - 1) return;
  for (unsigned i = 0; i < gridDim.x; ++i) *sum += parts[i];
}

TEST(fences_between_blocks) {
  int parts[10] = {}, sum = 0;
  unsigned arrived = 0;
  TRINE_LAUNCH(last_block_adds, 10, 1, 0, nullptr, parts, &arrived, &sum);
  CHECK_EQ(sum, 55);
}

void votes(int* out) {
  const int count = __syncthreads_count(threadIdx.x % 2 == 0);
  const int again = __syncthreads_count(threadIdx.x < 10);
  const int any = __syncthreads_or(threadIdx.x == 3), all = __syncthreads_and(threadIdx.x < 64);
  out[threadIdx.x] = count * 10000 + again * 100 + any * 10 + all;
}

TEST(block_votes) {
  for_each_schedule([&](Schedule) {
    std::vector<int> out(64);
    TRINE_LAUNCH(votes, 1, 64, 0, nullptr, out.data());
    for (const int seen : out) CHECK_EQ(seen, 32 * 10000 + 10 * 100 + 11);
  });
}

void use_dynamic(float* out, int n) {
  TRINE_DYNAMIC_SHARED(float, buffer);
  if (threadIdx.x == 0) {
    out[blockIdx.x] = buffer[n - 1];
    buffer[n - 1] = 1.0f;
  }
}

TEST(launches_that_the_hardware_refuses) {
  float out[2] = {};
  const auto with = [&](Index3 grid, Index3 block, size_t bytes) {
    TRINE_LAUNCH(use_dynamic, grid, block, bytes, nullptr, out, 4);
  };
  CHECK_THROWS_WITH(with(1, 1025, 16), Error, "block of (1025, 1, 1)");
  CHECK_THROWS_WITH(with(0, 32, 16), Error, "grid of (0, 1, 1)");
  CHECK_THROWS_WITH(with(Index3(1, 65536), 32, 16), Error, "grid of (1, 65536, 1)");
  CHECK_THROWS_WITH(with(1, 32, 0), Error, "without dynamic shared memory");
  CHECK_THROWS_WITH(with(1, 32, 48 << 10 | 1), Error, "cudaFuncSetAttribute");
  CHECK_EQ(int(cudaFuncSetAttribute(use_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    228 << 10)),
           int(cudaErrorInvalidValue));
  CHECK_EQ(
      int(cudaFuncSetAttribute(use_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10)),
      int(cudaSuccess));
  with(1, 32, 64 << 10);
  CHECK(std::isnan(out[0]));
  with(2, 32, 64 << 10);  // the second block doesn't inherit what the first one wrote
  CHECK(std::isnan(out[1]));
}

// Random operands, with what mma gives and what its twin by shuffles does.
struct MmaCase {
  float c[32][4], by_shuffles[32][4];
  uint32_t a[32][4], b[32][2];
};

template <bool tf32>
void both_ways(MmaCase* p) {
  const int l = int(threadIdx.x);
  if constexpr (tf32) {
    cuda::mma_m16n8k8_tf32(p->c[l], p->a[l], p->b[l]);
    cuda::mma_m16n8k8_tf32_by_shuffles(p->by_shuffles[l], p->a[l], p->b[l]);
  } else {
    cuda::mma_m16n8k16_bf16(p->c[l], p->a[l], p->b[l]);
    cuda::mma_m16n8k16_bf16_by_shuffles(p->by_shuffles[l], p->a[l], p->b[l]);
  }
}

TEST(twins_of_mma) {
  unsigned seed = 1;
  const auto next = [&] {
    seed = seed * 1664525 + 1013904223;
    return float(int(seed >> 24) - 128);  // exact in all types
  };
  MmaCase p;
  for (int l = 0; l < 32; ++l) {
    for (int i = 0; i < 4; ++i) p.c[l][i] = p.by_shuffles[l][i] = next();
    for (uint32_t& pair : p.a[l]) pair = cuda::pack2_bf16(next(), next());
    for (uint32_t& pair : p.b[l]) pair = cuda::pack2_bf16(next(), next());
  }
  TRINE_LAUNCH(both_ways<false>, 1, 32, 0, nullptr, &p);
  CHECK(std::memcmp(p.c, p.by_shuffles, sizeof p.c) == 0);
  for (int l = 0; l < 32; ++l) {
    for (uint32_t& one : p.a[l]) one = cuda::to_tf32(next());
    for (uint32_t& one : p.b[l]) one = cuda::to_tf32(next());
  }
  TRINE_LAUNCH(both_ways<true>, 1, 32, 0, nullptr, &p);
  CHECK(std::memcmp(p.c, p.by_shuffles, sizeof p.c) == 0);
}

TEST(twins_of_conversions) {
  for (uint64_t bits = 0; bits <= 0xffffffffu; bits += 0x1ffd) {
    const float value = std::bit_cast<float>(uint32_t(bits));
    CHECK_EQ(cuda::bf16_bits(value), uint32_t{float_to_bf16(value)});
    CHECK_EQ(cuda::tf32_bits(value), float_to_tf32(value));
  }
}

}  // namespace
}  // namespace trine::simt
