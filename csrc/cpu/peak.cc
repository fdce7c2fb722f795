// SPDX-License-Identifier: Apache-2.0
#include "cpu/peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "base/platform.h"
#include "cpu/features.h"
#include "cpu/thread_pool.h"
#include "exec/host.h"

#if defined(TRINE_X86)
#include <immintrin.h>

#include "cpu/simd/tiles.h"
#elif defined(TRINE_ARM64)
#include <arm_neon.h>
#endif

namespace trine::cpu {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Independent sums: more than any processor's latency x units, few enough for 16 registers.
constexpr int kChains = 12;
constexpr int kTileRounds = 16;  // rounds that four multiplications of tiles stand for

// Each loop does `rounds` FMA on kChains vectors; the result must be used. The chains differ, or
// compilers compute one.
using FmaLoop = float (*)(int64_t rounds);

struct FmaTest {
  FmaLoop loop;
  double lanes;  // multiplications of an instruction
};

float scalar_loop(int64_t rounds) {
  constexpr int kLanes = 4;
  volatile float factor = 0.999f;
  const float f = factor;
  float sums[kChains * kLanes];
  for (int i = 0; i < kChains * kLanes; ++i) sums[i] = static_cast<float>(i);
  for (int64_t round = 0; round < rounds; ++round) {
    for (int i = 0; i < kChains * kLanes; ++i) sums[i] = sums[i] * f + f;
  }
  return *std::max_element(sums, sums + kChains * kLanes);
}

#if defined(TRINE_X86)
TRINE_TARGET("avx2,fma") float avx2_loop(int64_t rounds) {
  volatile float factor = 0.999f;
  const __m256 f = _mm256_set1_ps(factor);
  __m256 sums[kChains];
  TRINE_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round) {
    TRINE_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(sums[i], f, f);
  }
  TRINE_UNROLL for (int i = 1; i < kChains; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}

TRINE_TARGET("avx512f") float avx512_loop(int64_t rounds) {
  volatile float factor = 0.999f;
  const __m512 f = _mm512_set1_ps(factor);
  __m512 sums[kChains];
  TRINE_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round) {
    TRINE_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(sums[i], f, f);
  }
  TRINE_UNROLL for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

TRINE_TARGET("avx512f,avx512bf16") float avx512_bf16_loop(int64_t rounds) {
  volatile float factor = 0.999f;
  __m512 both = _mm512_set1_ps(factor);
  TRINE_OPAQUE(both);
  const auto f = TRINE_BIT_CAST(__m512bh, both);
  __m512 sums[kChains];
  TRINE_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round) {
    TRINE_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], f, f);
  }
  TRINE_UNROLL for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

// The sums of integers are the chains: `multiply` adds products to one.
#define TRINE_INT8_LOOP(name, features, Type, set, multiply, first_lane)                    \
  TRINE_TARGET(features) float name(int64_t rounds) {                                       \
    volatile int factor = 0x01020304;                                                       \
    const Type f = set(factor);                                                             \
    Type sums[kChains];                                                                     \
    TRINE_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = set(i);                        \
    for (int64_t round = 0; round < rounds; ++round) {                                      \
      TRINE_UNROLL for (int i = 0; i < kChains; ++i) sums[i] = multiply(sums[i], f, f);     \
    }                                                                                       \
    TRINE_UNROLL for (int i = 1; i < kChains; ++i) sums[0] = multiply(sums[0], sums[i], f); \
    return static_cast<float>(first_lane(sums[0]));                                         \
  }

// As the kernels do it where there is no dot product of bytes.
#define TRINE_MADD_256(sum, x, w) _mm256_add_epi32(sum, _mm256_madd_epi16(x, w))
#define TRINE_MADD_512(sum, x, w) _mm512_add_epi32(sum, _mm512_madd_epi16(x, w))
#define TRINE_FIRST_256(v) _mm256_cvtsi256_si32(v)
#define TRINE_FIRST_512(v) _mm512_cvtsi512_si32(v)
TRINE_INT8_LOOP(avx2_int8_loop, "avx2", __m256i, _mm256_set1_epi32, TRINE_MADD_256, TRINE_FIRST_256)
TRINE_INT8_LOOP(avx_vnni_loop, "avx2,avxvnni", __m256i, _mm256_set1_epi32, _mm256_dpbusd_avx_epi32,
                TRINE_FIRST_256)
TRINE_INT8_LOOP(avx512_int8_loop, "avx512f,avx512bw", __m512i, _mm512_set1_epi32, TRINE_MADD_512,
                TRINE_FIRST_512)
TRINE_INT8_LOOP(avx512_vnni_loop, "avx512f,avx512vnni", __m512i, _mm512_set1_epi32,
                _mm512_dpbusd_epi32, TRINE_FIRST_512)

// A multiplication of tiles is 16 x 16 x 32; four sums hide its latency.
TRINE_TARGET("amx-tile,amx-bf16") float amx_loop(int64_t rounds) {
  TileConfigure();
  for (int64_t round = 0; round < rounds; round += kTileRounds) {
    TileMultiply(0, 4, 6);
    TileMultiply(1, 4, 7);
    TileMultiply(2, 5, 6);
    TileMultiply(3, 5, 7);
  }
  alignas(64) float sums[16][16];
  TileStore(0, sums, sizeof sums[0]);
  TileRelease();
  return sums[0][0];
}

// In int8 it is 16 x 16 x 64.
TRINE_TARGET("amx-tile,amx-int8") float amx_int8_loop(int64_t rounds) {
  TileConfigure();
  for (int64_t round = 0; round < rounds; round += kTileRounds) {
    TileMultiplyBytes(0, 4, 6);
    TileMultiplyBytes(1, 4, 7);
    TileMultiplyBytes(2, 5, 6);
    TileMultiplyBytes(3, 5, 7);
  }
  alignas(64) int32_t sums[16][16];
  TileStore(0, sums, sizeof sums[0]);
  TileRelease();
  return static_cast<float>(sums[0][0]);
}
#elif defined(TRINE_ARM64)
float neon_loop(int64_t rounds) {
  constexpr int kArmChains = 2 * kChains;  // four units of latency four
  volatile float factor = 0.999f;
  const float32x4_t f = vdupq_n_f32(factor);
  float32x4_t sums[kArmChains];
  TRINE_UNROLL for (int i = 0; i < kArmChains; ++i) sums[i] = vdupq_n_f32(static_cast<float>(i));
  for (int64_t round = 0; round < rounds / 2; ++round) {
    TRINE_UNROLL for (int i = 0; i < kArmChains; ++i) sums[i] = vfmaq_f32(f, sums[i], f);
  }
  TRINE_UNROLL for (int i = 1; i < kArmChains; ++i) sums[0] = vaddq_f32(sums[0], sums[i]);
  return vgetq_lane_f32(sums[0], 0);
}
#endif

#if defined(TRINE_X86)
// Of integers, where the instruction set has something for them.
FmaTest int8_test(Isa isa) {
  if (isa == Isa::kAmx && features().amx_int8)
    return {amx_int8_loop, 4.0 * 16 * 16 * 64 / kChains / kTileRounds};
  if (isa == Isa::kAvx2) return {avx2_int8_loop, 16};
  if (isa == Isa::kAvxVnni) return {avx_vnni_loop, 32};
  const bool has_vnni = isa != Isa::kAvx512 && features().avx512_vnni;
  return has_vnni ? FmaTest{avx512_vnni_loop, 64} : FmaTest{avx512_int8_loop, 32};
}
#endif

FmaTest fma_test(Isa isa, [[maybe_unused]] DType dtype) {
#if defined(TRINE_X86)
  if (is_quantised(dtype) && isa != Isa::kScalar) return int8_test(isa);
#endif
  switch (isa) {
#if defined(TRINE_X86)
    case Isa::kAvx2:
    case Isa::kAvxVnni:
      return {avx2_loop, 8};
    case Isa::kAvx512Bf16:
      if (dtype == DType::kBF16) return {avx512_bf16_loop, 32};
      return {avx512_loop, 16};
    case Isa::kAmx:
      // As many operations as a round of the others counts.
      if (dtype == DType::kBF16) return {amx_loop, 4.0 * 16 * 16 * 32 / kChains / kTileRounds};
      return {avx512_loop, 16};
    case Isa::kAvx512:
    case Isa::kAvx512Vnni:
      return {avx512_loop, 16};
#elif defined(TRINE_ARM64)
    case Isa::kNeon:
    case Isa::kNeonDot:
      return {neon_loop, 4};
#endif
    default:
      return {scalar_loop, 4};
  }
}

// Runs body(thread) on all threads of the pool at the same time.
template <class Body>
void on_all_threads(ThreadPool& pool, const Body& body) {
  std::atomic<int> arrived{0};
  pool.parallel_for(pool.size(), [&](int64_t item, int) {
    arrived.fetch_add(1);
    while (arrived.load() < pool.size()) std::this_thread::yield();
    body(item);
  });
}

// One word of each line: memory sends whole lines, and adding up all of their words takes longer
// than that.
uint64_t sum_lines(const uint64_t* words, size_t n) {
  constexpr size_t kLine = 64 / sizeof(uint64_t);
  uint64_t sum = 0;
  for (size_t i = 0; i < n; i += kLine) sum += words[i];
  return sum;
}

}  // namespace

double peak_gflops(Isa isa, int threads, DType dtype) {
  if (kernel_table(isa) == nullptr) return 0.0;
  const FmaTest test = fma_test(isa, dtype);
  constexpr int kRepeats = 5;
  constexpr double kRepeatSeconds = 4e-3;
  // As many rounds as take kRepeatSeconds at one round in 6 cycles of 4 GHz; the fastest repeat
  // counts.
  constexpr int64_t kRounds = static_cast<int64_t>(kRepeatSeconds * 4e9 / 6);
  ThreadPool pool(threads);
  std::vector<double> best(static_cast<size_t>(pool.size()), 0.0);
  on_all_threads(pool, [&](int64_t i) {
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      const Clock::time_point start = Clock::now();
      volatile float result = test.loop(kRounds);
      (void)result;
      const double flop = 2.0 * kChains * test.lanes * static_cast<double>(kRounds);
      best[static_cast<size_t>(i)] =
          std::max(best[static_cast<size_t>(i)], flop / seconds_since(start) / 1e9);
    }
  });
  double sum = 0.0;
  for (const double gflops : best) sum += gflops;
  return sum;
}

double read_bandwidth_gbs(int threads) {
  constexpr size_t kBytes = size_t{256} << 20;
  constexpr int kRepeats = 4;
  ThreadPool pool(threads);
  const size_t share = kBytes / sizeof(uint64_t) / static_cast<size_t>(pool.size());
  const std::shared_ptr<std::byte> memory = host::alloc(kBytes);
  auto* const words = reinterpret_cast<uint64_t*>(memory.get());
  // Each thread first writes what it reads later: pages that were never written all lie in one
  // place.
  on_all_threads(pool, [&](int64_t i) {
    uint64_t* const mine = words + static_cast<size_t>(i) * share;
    for (size_t j = 0; j < share; ++j) mine[j] = j;
  });
  double best = 0.0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const Clock::time_point start = Clock::now();
    on_all_threads(pool, [&](int64_t i) {
      volatile uint64_t result = sum_lines(words + static_cast<size_t>(i) * share, share);
      (void)result;
    });
    const size_t bytes = share * static_cast<size_t>(pool.size()) * sizeof(uint64_t);
    best = std::max(best, static_cast<double>(bytes) / seconds_since(start) / 1e9);
  }
  return best;
}

}  // namespace trine::cpu
