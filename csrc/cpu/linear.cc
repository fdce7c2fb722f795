// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "base/platform.h"
#include "cpu/ops.h"
#include "exec/int8.h"
#include "weights/convert.h"

#if defined(TRINE_X86)
#include <immintrin.h>
#endif

namespace trine::cpu {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

// Kernels that take x prepared read whole tiles of AMX.
constexpr int64_t kRowsAhead = 16;

// Start of part i when `total` is split into `parts` that differ by one at most.
int64_t part_start(int64_t total, int64_t parts, int64_t i) {
  return total / parts * i + std::min(i, total % parts);
}

// Blocks of y, rows x columns of them; one item of work each. Column blocks are whole pairs of
// panels, the width of the large AVX-512 tile.
struct Split {
  int64_t rows, columns;
};

Split split(const LinearKernel& kernel, const LinearArgs& args, int threads) {
  // As large as the kernel's own blocks: a smaller item costs more to start, since its first
  // weights are not prefetched.
  constexpr int64_t kItemRows = 112, kItemPairs = 12;
  const int64_t item_rows = kernel.item_rows != nullptr ? kernel.item_rows(args.k) : kItemRows;
  constexpr int64_t kTileRows = 14;
  constexpr int64_t kItemsPerThread = 2;
  // About 2 us of work, ten times what it takes to share it.
  constexpr int64_t kWorthSharing = 1 << 18;
  if (threads == 1 || args.n * args.k * (args.m + 8) < kWorthSharing) return {1, 1};
  const int64_t pairs = ceil_div(args.n, 2 * kPanel);
  const int64_t wanted = threads * kItemsPerThread;
  Split s = {ceil_div(args.m, item_rows), ceil_div(pairs, kItemPairs)};
  // Columns first: then each thread reads its own part of the weights.
  if (s.rows * s.columns < wanted) s.columns = std::min(pairs, ceil_div(wanted, s.rows));
  if (s.rows * s.columns < wanted) {
    s.rows = std::max(s.rows, std::min(ceil_div(wanted, s.columns), ceil_div(args.m, kTileRows)));
  }
  return s;
}

// Words of 4 bytes of a row, a float or a pair of bf16, that are made and transposed at a time: 16
// rows of them fill 4 KiB, or 16 KiB for types whose blocks are as long as that.
constexpr int64_t kStage = 64, kMaxStage = 256;
using Stage = float[kPanel][kMaxStage];

// stage[16][kMaxStage] to packed[words][16]. The packed weights are read much later: streaming
// stores leave the caches alone and spare the memory from being read before it is written.
void store_transposed(const Stage& stage, int64_t words, float* packed) {
  int64_t i = 0;
#if defined(TRINE_X86)
  for (; i + 4 <= words; i += 4) {
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
  for (; i < words; ++i) {
    for (int64_t r = 0; r < kPanel; ++r) packed[i * kPanel + r] = stage[r][i];
  }
}

// Packs [N, K] into panels of `lines` words a column. fill(words, row, k0, k): elements [k0, k0 +
// k) of a row as words, where kElements of them make one; whole blocks of `dtype`.
template <int64_t kElements, class Fill>
void pack_panels(DType dtype, int64_t n, int64_t k, int64_t lines, float* packed, ThreadPool& pool,
                 const Fill& fill) {
  const int64_t step = std::max(kStage, block_of(dtype) / kElements);
  pool.parallel_for(ceil_div(n, kPanel), [&](int64_t panel, int) {
    alignas(64) Stage stage = {};
    const int64_t rows = std::min(kPanel, n - panel * kPanel);
    float* const out = packed + panel * lines * kPanel;
    for (int64_t l0 = 0; l0 < lines; l0 += step) {
      const int64_t words = std::min(step, lines - l0), k0 = l0 * kElements;
      for (int64_t r = 0; r < rows; ++r) {
        fill(stage[r], panel * kPanel + r, k0, std::min(k - k0, words * kElements));
      }
      store_transposed(stage, words, out + l0 * kPanel);
    }
#if defined(TRINE_X86)
    _mm_sfence();
#endif
  });
}

void share_out(const LinearKernel& kernel, const LinearArgs& args,
               const Workers& workers) noexcept {
  const int64_t pairs = ceil_div(args.n, 2 * kPanel);
  const Split s = split(kernel, args, workers.pool->size());
  const int64_t step = kernel.row_step != nullptr ? kernel.row_step(args.m) : 1;
  const int64_t row_steps = ceil_div(args.m, step);
  const auto row = [&](int64_t i) {
    return std::min(part_start(row_steps, s.rows, i) * step, args.m);
  };
  workers.pool->parallel_for(s.rows * s.columns, [&](int64_t item, int thread) {
    const int64_t i = item / s.columns, j = item % s.columns;
    const int64_t n0 = part_start(pairs, s.columns, j) * 2 * kPanel;
    const int64_t n1 = std::min(part_start(pairs, s.columns, j + 1) * 2 * kPanel, args.n);
    std::byte* const scratch =
        workers.scratch + static_cast<size_t>(thread) * workers.scratch_stride;
    kernel.run(args, row(i), row(i + 1), n0, n1, scratch);
  });
}

void drive(const LinearKernel& kernel, const LinearArgs& args, const Workers& workers) noexcept {
  if (args.m == 0) return;
  if (kernel.prepare == nullptr) return share_out(kernel, args, workers);
  // Rows that one thread prepares in about 2 us.
  constexpr int64_t kPiece = 32768;
  LinearArgs prepared = args;
  prepared.ldx = kernel.row_words(args.k);
  float* const rows = workers.prepared;
  auto* const beside =
      reinterpret_cast<QuantisedRow*>(rows + round_up(args.m, kRowsAhead) * prepared.ldx);
  const int64_t step = std::max<int64_t>(1, kPiece / args.k);
  const int64_t pieces = ceil_div(args.m, step);
  if (pieces < 3) {
    kernel.prepare(args, 0, args.m, rows, beside);
  } else {
    workers.pool->parallel_for(pieces, [&](int64_t item, int) {
      kernel.prepare(args, item * step, std::min(args.m, (item + 1) * step), rows, beside);
    });
  }
  prepared.x = rows;
  prepared.x_rows = beside;
  share_out(kernel, prepared, workers);
}

}  // namespace

void linear(const LinearArgs& args, const Workers& workers) noexcept {
  drive(workers.table->linear, args, workers);
}

void linear_bf16(const LinearArgs& args, const Workers& workers) noexcept {
  drive(workers.table->linear_bf16, args, workers);
}

void linear_int8(const LinearArgs& args, const Workers& workers) noexcept {
  drive(workers.table->linear_int8, args, workers);
}

int64_t prepared_floats(const LinearKernel& kernel, int64_t rows, int64_t k) noexcept {
  constexpr int64_t kBeside = sizeof(QuantisedRow) / sizeof(float);
  return round_up(rows, kRowsAhead) * (kernel.row_words(k) + kBeside);
}

void linear_groups(const LinearArgs& args, GroupForm form, const Workers& workers) noexcept {
  drive(workers.table->linear_groups[static_cast<size_t>(form)], args, workers);
}

int64_t packed_floats(int64_t n, int64_t k) noexcept { return ceil_div(n, kPanel) * kPanel * k; }

int64_t packed_bf16(int64_t n, int64_t k) noexcept {
  return ceil_div(n, kPanel) * kPanel * ceil_div(k, kBF16Depth) * kBF16Depth;
}

void pack_linear(const void* w, DType dtype, int64_t n, int64_t k, float* packed,
                 ThreadPool& pool) noexcept {
  const auto* const bytes = static_cast<const std::byte*>(w);
  pack_panels<1>(
      dtype, n, k, k, packed, pool, [&](float* words, int64_t row, int64_t k0, int64_t count) {
        to_f32(dtype, bytes + bytes_of(dtype, row * k + k0), words, static_cast<size_t>(count));
      });
}

void pack_linear_bf16(const void* w, DType dtype, int64_t n, int64_t k, uint16_t* packed,
                      ThreadPool& pool) noexcept {
  const auto* const bytes = static_cast<const std::byte*>(w);
  const int64_t lines = ceil_div(k, kBF16Depth) * kBF16Depth / 2;
  pack_panels<2>(dtype, n, k, lines, reinterpret_cast<float*>(packed), pool,
                 [&](float* words, int64_t row, int64_t k0, int64_t count) {
                   // K ends before the last line does: what is behind it in the stage may be old.
                   float floats[kMaxStage];
                   uint16_t halves[kMaxStage] = {};
                   const auto have = static_cast<size_t>(std::max<int64_t>(count, 0));
                   to_f32(dtype, bytes + bytes_of(dtype, row * k + k0), floats, have);
                   for (size_t i = 0; i < have; ++i) halves[i] = f32_to_bf16(floats[i]);
                   std::memcpy(words, halves, sizeof halves);
                 });
}

int64_t packed_int8(int64_t n, int64_t k) noexcept {
  return ceil_div(n, kPanel) * kPanel * (round_up(k, kInt8Depth) + 2 * int64_t{sizeof(float)});
}

void pack_linear_int8(const void* w, DType dtype, int64_t n, int64_t k, int8_t* packed,
                      ThreadPool& pool) noexcept {
  const auto* const bytes = static_cast<const std::byte*>(w);
  const int64_t depth = round_up(k, kInt8Depth), panel_bytes = packed_int8(1, k);
  pool.parallel_for(ceil_div(n, kPanel), [&](int64_t panel, int) {
    int8_t* const out = packed + panel * panel_bytes;
    std::memset(out, 0, static_cast<size_t>(depth * kPanel));
    float scales[kPanel] = {};
    int32_t sums[kPanel] = {};
    const int64_t rows = std::min(kPanel, n - panel * kPanel);
    for (int64_t r = 0; r < rows; ++r) {
      float stage[kMaxStage];
      const auto for_each_piece = [&](auto body) {
        for (int64_t k0 = 0; k0 < k; k0 += kMaxStage) {
          const int64_t count = std::min(kMaxStage, k - k0);
          const int64_t first = (panel * kPanel + r) * k + k0;
          to_f32(dtype, bytes + bytes_of(dtype, first), stage, static_cast<size_t>(count));
          body(k0, count);
        }
      };
      float largest = 0.0f;
      for_each_piece(
          [&](int64_t, int64_t count) { largest = int8::largest(stage, count, largest); });
      const int8::Scale scale = int8::scale_of(largest);
      scales[r] = scale.scale;
      for_each_piece([&](int64_t k0, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
          const int32_t q = int8::quantised(stage[i], scale.inverse);
          sums[r] += q;
          out[((k0 + i) / 4 * kPanel + r) * 4 + (k0 + i) % 4] = static_cast<int8_t>(q);
        }
      });
      sums[r] *= 128;
    }
    std::memcpy(out + depth * kPanel, scales, sizeof scales);
    std::memcpy(out + depth * kPanel + static_cast<int64_t>(sizeof scales), sums, sizeof sums);
  });
}

}  // namespace trine::cpu
