// SPDX-License-Identifier: Apache-2.0
// Tiles of linear_mma.cuh, and what becomes of their sums.
#pragma once

#include <type_traits>

#include "kernels/linear_epilogue.cuh"

namespace trine::cuda {

// Of the type of w: Sum, what products are added up in; kPerStage, elements of k in a stage, and
// kChunkStages, the most stages of a chunk; kXBytes and kWBytes of a row of x and of w in a stage.
template <class T>
struct Operand;

// Rows and columns of a block's tile, of a warp's, and the depth of the ring. Tiles that one group
// of warps works at keep their sums in registers; the others add through shared memory.
template <int rows, int cols, int warp_rows, int warp_cols, int stages, int max_groups>
struct MmaTile {
  static constexpr int kRows = rows, kCols = cols;
  static constexpr int kWarpRows = warp_rows, kWarpCols = warp_cols;
  static constexpr int kStages = stages;
  static constexpr int kMaxGroups = max_groups;
  static constexpr bool kSplit = max_groups > 1;
  static constexpr int kWarps = rows / warp_rows * (cols / warp_cols);
  static constexpr int kThreads = kWarps * 32;  // of a group
  // Tight tiles have room for the rows of x that there are.
  static constexpr bool kTight = rows == 16;
  static constexpr int x_rows(int64_t m) { return kTight && m < rows ? static_cast<int>(m) : rows; }
  // Floats from one row of sums to the next: 8 more than a multiple of 32 keeps the two-column
  // stores of a warp, 8 rows by 4 threads, off each other's banks.
  static constexpr int kLdSums = cols % 32 == 8 ? cols : cols + 8;
  static constexpr int kSumsBytes = rows * kLdSums * 4;

  // Groups' rings, groups' sums, and the running sum where chunks take several rounds.
  template <class T>
  static constexpr int shared_bytes(int groups, int chunks, int64_t m) {
    const int ring = stages * (x_rows(m) * Operand<T>::kXBytes + cols * Operand<T>::kWBytes);
    if (!kSplit) return ring > kSumsBytes ? ring : kSumsBytes;
    return groups * (ring + kSumsBytes) + (chunks > groups ? kSumsBytes : 0);
  }
};

TRINE_DEV void store_two(float* at, float a, float b) {
  *reinterpret_cast<float2*>(at) = make_float2(a, b);
}
TRINE_DEV void store_two(int32_t* at, int32_t a, int32_t b) {
  *reinterpret_cast<int2*>(at) = make_int2(a, b);
}
TRINE_DEV void store_four(float* at, const float (&v)[4]) {
  *reinterpret_cast<float4*>(at) = make_float4(v[0], v[1], v[2], v[3]);
}
TRINE_DEV void store_four(int32_t* at, const int32_t (&v)[4]) {
  *reinterpret_cast<int4*>(at) = make_int4(v[0], v[1], v[2], v[3]);
}
TRINE_DEV float4 load_four(const float* at) { return *reinterpret_cast<const float4*>(at); }
TRINE_DEV int4 load_four(const int32_t* at) { return *reinterpret_cast<const int4*>(at); }

// Of shared memory, with so many rows of x.
template <class T, class Tile>
TRINE_DEV int stage_bytes(int x_rows) {
  return x_rows * Operand<T>::kXBytes + Tile::kCols * Operand<T>::kWBytes;
}

// A warp's part of the tile.
template <class Tile>
struct WarpPlace {
  static constexpr int kI = Tile::kWarpRows / 16, kJ = Tile::kWarpCols / 8;
  int row0, col0, rows;

  TRINE_DEV WarpPlace(int warp, int row_count) : rows(row_count) {
    constexpr int kDown = Tile::kRows / Tile::kWarpRows;
    row0 = warp % kDown * Tile::kWarpRows, col0 = warp / kDown * Tile::kWarpCols;
  }

  // A row of x in the stage. In tight tiles those beyond the last are not there: the last one
  // stands in, and what comes of it is not stored.
  TRINE_DEV int x_row(int within) const {
    const int row = row0 + within;
    return !Tile::kTight || row < rows ? row : rows - 1;
  }

  // Sums to [rows][kLdSums] in shared memory.
  template <class Sum>
  TRINE_DEV void put(const Sum (&c)[kI][kJ][4], Sum* sums, int lane) const {
    const int row = row0 + lane / 4, col = col0 + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kI; ++i) {
#pragma unroll
      for (int j = 0; j < kJ; ++j) {
        Sum* at = sums + (row + i * 16) * Tile::kLdSums + col + j * 8;
        store_two(at, c[i][j][0], c[i][j][1]);
        store_two(at + 8 * Tile::kLdSums, c[i][j][2], c[i][j][3]);
      }
    }
  }
};

template <class Sum, int rows, int cols>
TRINE_DEV void clear(Sum (&c)[rows][cols][4]) {
#pragma unroll
  for (int i = 0; i < rows; ++i) {
#pragma unroll
    for (int j = 0; j < cols; ++j) {
#pragma unroll
      for (int r = 0; r < 4; ++r) c[i][j][r] = 0;
    }
  }
}

// Sums of unsplit tiles start from the bias, which split ones meet in Finisher.
template <int rows, int cols>
TRINE_DEV void start_from_bias(float (&sum)[rows][cols][4], const LinearParams& p, int col0) {
#pragma unroll
  for (int j = 0; j < cols; ++j) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int col = col0 + j * 8 + r;
      const float bias = p.bias != nullptr && col < p.n ? p.bias[col] : 0.0f;
#pragma unroll
      for (int i = 0; i < rows; ++i) sum[i][j][r] = sum[i][j][r + 2] = bias;
    }
  }
}

template <class Sum, int rows, int cols>
TRINE_DEV void add(Sum (&sum)[rows][cols][4], const Sum (&c)[rows][cols][4]) {
#pragma unroll
  for (int i = 0; i < rows; ++i) {
#pragma unroll
    for (int j = 0; j < cols; ++j) {
#pragma unroll
      for (int r = 0; r < 4; ++r) sum[i][j][r] += c[i][j][r];
    }
  }
}

// What is added to a tile's sums in shared memory when the last products are in them.
template <class T, class Tile>
struct Rest {
  static constexpr bool kExists = false;
  TRINE_DEV Rest(const LinearParams&, int, int, int, int) {}
  template <class Sum>
  TRINE_DEV void add(Sum*) const {}
};

// What a thread does with the sums of a block's tile: four columns, the same ones in each row that
// it has. Bias and the first residual are fetched before the sums are there.
template <class T, class Tile>
struct Finisher {
  using Sum = typename Operand<T>::Sum;
  static constexpr int kQuads = Tile::kCols / 4;
  static constexpr bool kScales = std::is_same_v<Sum, int32_t>;  // sums are integers
  const LinearParams& p;
  int row0, rows, row, col, quad;
  float bias[4], residual[4], scales[4];

  TRINE_DEV Finisher(const LinearParams& params, int first_row, int first_col, int row_count)
      : p(params), row0(first_row), rows(row_count) {
    static_assert(Tile::kThreads % kQuads == 0);
    row = static_cast<int>(threadIdx.x) / kQuads, quad = static_cast<int>(threadIdx.x) % kQuads;
    col = first_col + quad * 4;
    for (int i = 0; i < 4; ++i) bias[i] = residual[i] = scales[i] = 0.0f;
    if (col >= p.n || row >= rows) return;
    if constexpr (Tile::kSplit || kScales) load_bias4(bias, p, col);
    if constexpr (kScales) {
      load4(scales, p.w_scales, col, false, p.n % 4 == 0, p.n - col);
    }
    load_residual4(residual, p, row0 + row, col);
  }

  // Adds `parts` chunks' sums to what was added so far, in order; the last round also makes y.
  TRINE_DEV void fold(const Sum* sums, Sum* total, int parts, bool first, bool last) const {
    const int step = static_cast<int>(blockDim.x) / kQuads;
    for (int r = row; r < rows; r += step) {
      const int at = r * Tile::kLdSums + quad * 4;
      Sum v[4] = {};
      if (!first) {
        const auto t = load_four(total + at);
        v[0] = t.x, v[1] = t.y, v[2] = t.z, v[3] = t.w;
      } else if constexpr (!kScales) {
        for (int i = 0; i < 4; ++i) v[i] = bias[i];
      }
      for (int part = 0; part < parts; ++part) {
        const auto t = load_four(sums + part * (Tile::kSumsBytes / 4) + at);
        v[0] += t.x, v[1] += t.y, v[2] += t.z, v[3] += t.w;
      }
      if (!last) {
        store_four(total + at, v);
      } else if (col < p.n) {
        finish(v, r);
      }
    }
  }

  TRINE_DEV void finish(const Sum (&sums)[4], int r) const {
    float v[4], own[4];
    if constexpr (kScales) {  // in the CPU's order, without fused multiply-adds
      const float scale = p.x_beside[row0 + r].scale;
      for (int i = 0; i < 4; ++i) {
        v[i] = __fmul_rn(__fmul_rn(__int2float_rn(sums[i]), scales[i]), scale);
        v[i] = __fadd_rn(v[i], bias[i]);
      }
    } else {
      for (int i = 0; i < 4; ++i) v[i] = sums[i];
    }
    for (int i = 0; i < 4; ++i) own[i] = residual[i];
    if (r != row) load_residual4(own, p, row0 + r, col);
    finish4<Operand<T>::kFastActivation>(p, row0 + r, col, v, own);
  }
};

}  // namespace trine::cuda
