// SPDX-License-Identifier: Apache-2.0
// linear by mma.sync, for sm_80 and later (the dialect has twins for sm_75): one kernel for bf16
// and float, and for quantised operands (linear_int.cuh), for large tiles of many rows and for
// small ones that read weights as fast as they come.
//
// The order of a sum: K is cut into chunks of at most 512 bf16 or 256 float, of equal size but for
// the last, a function of K alone. Within a chunk mma accumulates from zero in ascending k, 16 or 8
// at a time; the chunks' sums are added to the bias in ascending order in float32. So chunks can
// run in different warps, which is what makes few rows fast (a chain of mma waits for 30 cycles at
// each link, and one warp cannot keep enough loads in flight), and any tile gives the same bits.
// Tensor cores cut sums off instead of rounding them: short chains also keep that bias small.
//
// float is 3xTF32: x = high + low with 11 bits each, x w = high high + high low + low high. What is
// dropped is 2^-22 of a product. (Idea: CUTLASS's example 28.)
//
// A block has `groups` groups of warps; each has a ring of stages of its own, filled by cp.async,
// and takes every groups-th chunk. A stage is 128 bytes (64 bf16, 32 float) of each row of x and w.
// Its 16-byte units are swizzled, unit u of row r at u ^ (r % 8): copies and ldmatrix, which reads
// the same unit of 8 rows, then touch all banks. A step of mma is 32 bytes for both types, and
// ldmatrix hands out 4-byte words, so that the fragments of m16n8k16 and of m16n8k8 come from the
// same addresses.
#pragma once

#include "kernels/linear_tile.cuh"

namespace trine::cuda {

inline constexpr int kStageBytes = 128;  // of a row of bf16, float or int8

template <>
struct Operand<bf16> {
  using Sum = float;
  static constexpr int kXBytes = kStageBytes, kWBytes = kStageBytes;
  static constexpr bool kFastActivation = true;
  static constexpr int kPerStage = 64;
  static constexpr int kChunkStages = 8;  // at most

  // c[i][j] += a[i] b[j] for 32 bytes of k.
  template <int rows, int cols>
  TRINE_DEV static void multiply(float (&c)[rows][cols][4], uint32_t (&a)[rows][4],
                                 uint32_t (&b)[cols][2]) {
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < cols; ++j) mma_m16n8k16_bf16(c[i][j], a[i], b[j]);
    }
  }
  TRINE_DEV static bf16 narrow(float x) { return __float2bfloat16(x); }
};

template <>
struct Operand<float> {
  using Sum = float;
  static constexpr int kXBytes = kStageBytes, kWBytes = kStageBytes;
  static constexpr bool kFastActivation = false;
  static constexpr int kPerStage = 32;
  static constexpr int kChunkStages = 8;

  TRINE_DEV static void split(uint32_t& bits, uint32_t& low) {
    const float value = __uint_as_float(bits);
    bits = to_tf32(value);
    low = to_tf32(value - __uint_as_float(bits));
  }

  // Small products first. Of one sum's three mma the next starts when others were issued.
  template <int rows, int cols>
  TRINE_DEV static void multiply(float (&c)[rows][cols][4], uint32_t (&a)[rows][4],
                                 uint32_t (&b)[cols][2]) {
    uint32_t low_a[rows][4], low_b[cols][2];
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int r = 0; r < 4; ++r) split(a[i][r], low_a[i][r]);
    }
#pragma unroll
    for (int j = 0; j < cols; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) split(b[j][r], low_b[j][r]);
    }
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < cols; ++j) mma_m16n8k8_tf32(c[i][j], low_a[i], b[j]);
    }
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < cols; ++j) mma_m16n8k8_tf32(c[i][j], a[i], low_b[j]);
    }
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < cols; ++j) mma_m16n8k8_tf32(c[i][j], a[i], b[j]);
    }
  }
  TRINE_DEV static float narrow(float x) { return x; }
};

// Where unit `unit` of row `row` lies in a stage.
TRINE_DEV int swizzled(int row, int unit) { return row * kStageBytes + ((unit ^ (row & 7)) << 4); }

// Blocks in the order of their number go down bands of 8 tiles, so that those which run at the same
// time share rows of x and of w in L2.
struct TilePlace {
  int row, col;
};
TRINE_DEV TilePlace tile_place(int block, int tile_rows, int tile_cols) {
  constexpr int kBand = 8;
  const int band = block / (kBand * tile_cols), first = band * kBand;
  const int height = tile_rows - first < kBand ? tile_rows - first : kBand;
  const int within = block - band * kBand * tile_cols;
  return {first + within % height, within / height};
}

// The threads of a group that share a ring: a warp of its own needs no barrier of the block.
template <class Tile>
TRINE_DEV void sync_group() {
  if constexpr (Tile::kWarps == 1) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

// One group's view of the product: its ring and the rows of x and w that its threads copy, each
// thread the same unit of every kStride-th row. Rows beyond the last are zeros, so that no branch
// stands between copies; tight tiles leave those of x out.
// kAsync: x has T's type and whole 16-byte units; else elements are read and converted one by one.
template <class T, class Tile, bool kAsync>
struct TileLoader {
  static constexpr int kPerUnit = 16 / static_cast<int>(sizeof(T));
  static constexpr int kUnits = kStageBytes / 16, kStride = Tile::kThreads / kUnits;
  const LinearParams& p;
  unsigned char* ring;
  int x_rows, row0, rows, cols, row, unit, offset;
  const unsigned char* x;
  const unsigned char* w;
  int64_t x_step, w_step;

  TRINE_DEV TileLoader(const LinearParams& params, unsigned char* own_ring, int rows_of_x,
                       int first_row, int first_col, int thread)
      : p(params), ring(own_ring), x_rows(rows_of_x), row0(first_row) {
    rows = p.m - first_row < Tile::kRows ? p.m - first_row : Tile::kRows;
    cols = p.n - first_col < Tile::kCols ? p.n - first_col : Tile::kCols;
    row = thread / kUnits, unit = thread % kUnits, offset = swizzled(row, unit);
    constexpr int kSize = static_cast<int>(sizeof(T));
    x = static_cast<const unsigned char*>(p.x) + (first_row + row) * p.ldx * kSize + unit * 16;
    w = static_cast<const unsigned char*>(p.w) + (first_col + row) * p.ldw * kSize + unit * 16;
    x_step = kStride * p.ldx * kSize, w_step = kStride * p.ldw * kSize;
  }

  TRINE_DEV unsigned char* stage(int slot) const {
    return ring + slot * stage_bytes<T, Tile>(x_rows);
  }

  // Row `r` below this thread's first, a multiple of kStride: either one of 8, which the swizzle
  // doesn't see, or of 4 below rows 0 .. 3.
  TRINE_DEV int offset_of(int r) const {
    static_assert(kStride % 8 == 0 || kStride == 4);
    return (offset ^ (r % 8 * 16)) + r * kStageBytes;
  }

  // Stage `at` of K into slot `slot`, with zeros beyond K.
  TRINE_DEV void load(int slot, int at) const {
    unsigned char* x_stage = stage(slot);
    unsigned char* w_stage = x_stage + x_rows * kStageBytes;
    const int k = at * Operand<T>::kPerStage + unit * kPerUnit;
    const bool inside = k < p.k;
    const unsigned char* from = x + static_cast<int64_t>(at) * kStageBytes;
#pragma unroll
    for (int r = 0; r < Tile::kRows; r += kStride, from += x_step) {
      if (Tile::kTight && r + row >= rows) break;
      if constexpr (kAsync) {
        cp_async16_zfill(x_stage + offset_of(r), from, inside && r + row < rows);
      } else if (r + row < rows) {
        copy_elements(x_stage + offset_of(r), row0 + r + row, k);
      }
    }
    from = w + static_cast<int64_t>(at) * kStageBytes;
#pragma unroll
    for (int r = 0; r < Tile::kCols; r += kStride, from += w_step) {
      if (Tile::kCols % kStride != 0 && r + row >= Tile::kCols) break;
      cp_async16_zfill(w_stage + offset_of(r), from, inside && r + row < cols);
    }
  }

  TRINE_DEV void copy_elements(unsigned char* to, int at_row, int k) const {
    T* elements = reinterpret_cast<T*>(to);
#pragma unroll
    for (int i = 0; i < kPerUnit; ++i) {
      const float value =
          k + i < p.k ? load_element(p.x, at_row * p.ldx + k + i, p.x_is_bf16) : 0.0f;
      elements[i] = Operand<T>::narrow(value);
    }
  }
};

// A warp's fragments of one stage.
template <class T, class Tile>
struct WarpTile : WarpPlace<Tile> {
  using WarpPlace<Tile>::kI, WarpPlace<Tile>::kJ;
  using Sum = typename Operand<T>::Sum;
  int a_offset[kI], a_swizzle[kI], b_offset, b_swizzle, a_unit, b_unit;

  TRINE_DEV WarpTile(int warp, int lane, int x_rows, int rows) : WarpPlace<Tile>(warp, rows) {
#pragma unroll
    for (int i = 0; i < kI; ++i) {
      const int row = this->x_row(i * 16 + (lane & 15));
      a_offset[i] = row * kStageBytes, a_swizzle[i] = row & 7;
    }
    a_unit = lane >> 4;
    const int col = this->col0 + (lane & 7) + (Tile::kWarpCols > 8 ? (lane >> 4) * 8 : 0);
    b_offset = (x_rows + col) * kStageBytes, b_swizzle = col & 7;
    b_unit = (lane >> 3) & 1;
  }

  // `between` is called when the first products are under way: copies are issued in their shadow.
  template <class Between>
  TRINE_DEV void multiply(Sum (&c)[kI][kJ][4], const unsigned char* stage,
                          const Between& between) const {
#pragma unroll
    for (int step = 0; step < kStageBytes / 32; ++step) {
      uint32_t a[kI][4], b[kJ][2];
#pragma unroll
      for (int i = 0; i < kI; ++i) {
        ldmatrix_x4(a[i], stage + a_offset[i] + (((2 * step + a_unit) ^ a_swizzle[i]) << 4));
      }
      const unsigned char* b_row = stage + b_offset + (((2 * step + b_unit) ^ b_swizzle) << 4);
      if constexpr (kJ == 1) {
        ldmatrix_x2(b[0], b_row);
      } else {
#pragma unroll
        for (int j = 0; j < kJ; j += 2) {
          uint32_t two[4];
          ldmatrix_x4(two, b_row + j * 8 * kStageBytes);
          b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
        }
      }
      Operand<T>::multiply(c, a, b);
      if (step == 0) between();
    }
  }
};

template <class T, class Tile, bool kAsync>
TRINE_DEV void run_linear(const LinearParams& p) {
  TRINE_DYNAMIC_SHARED(unsigned char, shared);
  const int groups = Tile::kSplit ? static_cast<int>(blockDim.x) / Tile::kThreads : 1;
  const int group = Tile::kSplit ? static_cast<int>(threadIdx.x) / Tile::kThreads : 0;
  const int thread = static_cast<int>(threadIdx.x) % Tile::kThreads;
  const int warp = thread / 32, lane = thread % 32;

  const TilePlace place =
      tile_place(static_cast<int>(blockIdx.x), (p.m + Tile::kRows - 1) / Tile::kRows,
                 (p.n + Tile::kCols - 1) / Tile::kCols);
  const int row0 = place.row * Tile::kRows, col0 = place.col * Tile::kCols;

  const int x_rows = Tile::kTight ? p.x_rows : Tile::kRows;
  const int ring_bytes = Tile::kStages * stage_bytes<T, Tile>(x_rows);
  using Sum = typename Operand<T>::Sum;
  Sum* sums = reinterpret_cast<Sum*>(shared + (Tile::kSplit ? groups * ring_bytes : 0));
  const TileLoader<T, Tile, kAsync> loader(p, shared + group * ring_bytes, x_rows, row0, col0,
                                           thread);
  const WarpTile<T, Tile> tile(warp, lane, x_rows, loader.rows);

  // Iteration i is stage i % chunk of the group's chunk i / chunk; of the last chunks some may be
  // short or missing.
  const int stages = (p.k + Operand<T>::kPerStage - 1) / Operand<T>::kPerStage;
  const int rounds = (p.chunks + groups - 1) / groups;
  int load_chunk = group, load_stage = 0;
  const auto load_next = [&](int slot) {
    const int at = load_chunk * p.chunk + load_stage;
    if (at < stages && load_chunk < p.chunks) loader.load(slot, at);
    cp_async_commit();
    if (++load_stage == p.chunk) load_stage = 0, load_chunk += groups;
  };
  TRINE_UNROLL_COPIES
  for (int s = 0; s < Tile::kStages - 1; ++s) load_next(s);

  Sum c[WarpTile<T, Tile>::kI][WarpTile<T, Tile>::kJ][4];
  Sum sum[Tile::kSplit ? 1 : WarpTile<T, Tile>::kI][Tile::kSplit ? 1 : WarpTile<T, Tile>::kJ][4];
  if constexpr (!Tile::kSplit) {
    if constexpr (std::is_same_v<Sum, float>) {
      start_from_bias(sum, p, col0 + tile.col0 + lane % 4 * 2);
    } else {
      clear(sum);
    }
  }
  const Finisher<T, Tile> finisher(p, row0, col0, loader.rows);
  const Rest<T, Tile> rest(p, row0, col0, loader.rows, loader.cols);
  int slot = 0;
  for (int round = 0; round < rounds; ++round) {
    const int chunk = round * groups + group;
    clear(c);
    for (int s = 0; s < p.chunk; ++s) {
      cp_async_wait<Tile::kStages - 2>();
      sync_group<Tile>();
      const auto load = [&] { load_next(slot == 0 ? Tile::kStages - 1 : slot - 1); };
      if (chunk * p.chunk + s < stages) {
        tile.multiply(c, loader.stage(slot), load);
      } else {
        load();
      }
      slot = slot + 1 == Tile::kStages ? 0 : slot + 1;
    }
    if constexpr (Tile::kSplit) {
      const int left = p.chunks - round * groups, parts = left < groups ? left : groups;
      if (group < parts) tile.put(c, sums + group * (Tile::kSumsBytes / 4), lane);
      __syncthreads();
      if (Rest<T, Tile>::kExists && round + 1 == rounds) {
        rest.add(sums);
        __syncthreads();
      }
      finisher.fold(sums, sums + groups * (Tile::kSumsBytes / 4), parts, round == 0,
                    round + 1 == rounds);
      if (round + 1 < rounds) __syncthreads();
    } else {
      add(sum, c);
    }
  }
  if constexpr (!Tile::kSplit) {
    cp_async_wait<0>();
    __syncthreads();  // the sums take the ring's place
    tile.put(sum, sums, lane);
    __syncthreads();
    if constexpr (Rest<T, Tile>::kExists) {
      rest.add(sums);
      __syncthreads();
    }
    finisher.fold(sums, nullptr, 1, true, true);
  }
}

template <class T, class Tile, bool kAsync>
TRINE_GLOBAL void __launch_bounds__(Tile::kThreads* Tile::kMaxGroups, 1)
    linear_mma(const LinearParams p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  // mma by shuffles is a lot of code: larger tiles take ptxas minutes.
  if constexpr (!Tile::kTight && (std::is_same_v<T, float> || std::is_same_v<T, bf16>)) {
    __trap();
  } else
#endif
    run_linear<T, Tile, kAsync>(p);
}

}  // namespace trine::cuda
