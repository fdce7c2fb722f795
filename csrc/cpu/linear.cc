// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/platform.h"
#include "cpu/ops.h"
#include "weights/convert.h"

#if defined(TRINE_X86)
#include <immintrin.h>
#endif

namespace trine::cpu {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Start of part i when `total` is split into `parts` that differ by one at most.
int64_t part_start(int64_t total, int64_t parts, int64_t i) {
  return total / parts * i + std::min(i, total % parts);
}

// Blocks of y, rows x columns of them; one item of work each. Column blocks are whole pairs of
// panels, the width of the large AVX-512 tile.
struct Split {
  int64_t rows, columns;
};

Split split(const LinearArgs& args, int threads) {
  // As large as the kernel's own blocks: a smaller item costs more to start, since its first
  // weights are not prefetched.
  constexpr int64_t kItemRows = 112, kItemPairs = 12;
  constexpr int64_t kTileRows = 14;
  constexpr int64_t kItemsPerThread = 2;
  // About 2 us of work, ten times what it takes to share it.
  constexpr int64_t kWorthSharing = 1 << 18;
  if (threads == 1 || args.n * args.k * (args.m + 8) < kWorthSharing) return {1, 1};
  const int64_t pairs = ceil_div(args.n, 2 * kPanel);
  const int64_t wanted = threads * kItemsPerThread;
  Split s = {ceil_div(args.m, kItemRows), ceil_div(pairs, kItemPairs)};
  // Columns first: then each thread reads its own part of the weights.
  if (s.rows * s.columns < wanted) s.columns = std::min(pairs, ceil_div(wanted, s.rows));
  if (s.rows * s.columns < wanted) {
    s.rows = std::max(s.rows, std::min(ceil_div(wanted, s.columns), ceil_div(args.m, kTileRows)));
  }
  return s;
}

// Columns of K that are converted and transposed at a time: 16 rows of them fill 4 KiB.
constexpr int64_t kStageK = 64;

// stage[16][kStageK] to packed[k][16]. The packed weights are read much later: streaming stores
// leave the caches alone and spare the memory from being read before it is written.
void store_transposed(const float (&stage)[kPanel][kStageK], int64_t k, float* packed) {
  int64_t i = 0;
#if defined(TRINE_X86)
  for (; i + 4 <= k; i += 4) {
    __m128 v[kPanel];
    for (int64_t r = 0; r < kPanel; r += 4) {
      for (int64_t j = 0; j < 4; ++j) v[r + j] = _mm_load_ps(&stage[r + j][i]);
      _MM_TRANSPOSE4_PS(v[r], v[r + 1], v[r + 2], v[r + 3]);
    }
    for (int64_t j = 0; j < 4; ++j) {
      float* const line = packed + (i + j) * kPanel;
      for (int64_t r = 0; r < kPanel; r += 4) _mm_stream_ps(line + r, v[r + j]);
    }
  }
#endif
  for (; i < k; ++i) {
    for (int64_t r = 0; r < kPanel; ++r) packed[i * kPanel + r] = stage[r][i];
  }
}

}  // namespace

void linear(const LinearArgs& args, const Workers& workers) noexcept {
  if (args.m == 0) return;
  const int64_t pairs = ceil_div(args.n, 2 * kPanel);
  const Split s = split(args, workers.pool->size());
  workers.pool->parallel_for(s.rows * s.columns, [&](int64_t item, int thread) {
    const int64_t i = item / s.columns, j = item % s.columns;
    const int64_t n0 = part_start(pairs, s.columns, j) * 2 * kPanel;
    const int64_t n1 = std::min(part_start(pairs, s.columns, j + 1) * 2 * kPanel, args.n);
    std::byte* const scratch =
        workers.scratch + static_cast<size_t>(thread) * workers.scratch_stride;
    workers.table->linear(args, part_start(args.m, s.rows, i), part_start(args.m, s.rows, i + 1),
                          n0, n1, scratch);
  });
}

int64_t packed_floats(int64_t n, int64_t k) noexcept { return ceil_div(n, kPanel) * kPanel * k; }

void pack_linear(const void* w, DType dtype, int64_t n, int64_t k, float* packed,
                 ThreadPool& pool) noexcept {
  const std::byte* const bytes = static_cast<const std::byte*>(w);
  const int64_t size = static_cast<int64_t>(size_of(dtype));
  pool.parallel_for(ceil_div(n, kPanel), [&](int64_t panel, int) {
    alignas(64) float stage[kPanel][kStageK] = {};
    const int64_t rows = std::min(kPanel, n - panel * kPanel);
    float* const out = packed + panel * k * kPanel;
    for (int64_t k0 = 0; k0 < k; k0 += kStageK) {
      const int64_t run = std::min(kStageK, k - k0);
      for (int64_t r = 0; r < rows; ++r) {
        to_f32(dtype, bytes + ((panel * kPanel + r) * k + k0) * size, stage[r],
               static_cast<size_t>(run));
      }
      store_transposed(stage, run, out + k0 * kPanel);
    }
#if defined(TRINE_X86)
    _mm_sfence();
#endif
  });
}

}  // namespace trine::cpu
