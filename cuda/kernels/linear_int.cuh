// SPDX-License-Identifier: Apache-2.0
// Operands of linear_mma.cuh that are integers, by mma of bytes, whose sums are exact.
//
// int8: a row of x and a row of w have a scale each, which their sum is multiplied with at the end.
// Since integers can be added in any order, chunks only share out the work.
//
// Groups: 32 of k of a row of w have a scale and a minimum in half, of a row of x a scale s. One
// mma, m16n8k32, is one group, and its integer sum joins the float sum at once, as on the CPU:
//   sum += (integers * scale) * s;  sum += minimum * (s * sum of x's integers)
// in ascending groups within a chunk. The accumulator starts at 1.5 * 2^23 as a float has it, so
// that the integers, 127 * 255 * 32 at most, become a float by a subtraction instead of a
// conversion, of which a multiprocessor does a quarter as many. With four operations of float to an
// element of c, mma waits for them: the bound for many rows is a quarter of that of int8.
//
// Scales of w lie at multiples of 4 bytes, and are copied so.
//
// In shared memory rows of a stage are an odd number of 16-byte units long: 8 rows' units then lie
// in all banks without a swizzle.
#pragma once

#include "kernels/linear.h"
#include "kernels/linear_mma.cuh"

namespace trine::cuda {

template <>
struct Operand<int8_t> {
  using Sum = int32_t;
  static constexpr int kPerStage = kStageBytes, kChunkStages = 4;
  static constexpr int kXBytes = kStageBytes, kWBytes = kStageBytes;
  static constexpr bool kFastActivation = true;

  template <int rows, int cols>
  TRINE_DEV static void multiply(int32_t (&c)[rows][cols][4], uint32_t (&a)[rows][4],
                                 uint32_t (&b)[cols][2]) {
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < cols; ++j) mma_m16n8k32<false>(c[i][j], a[i], b[j]);
    }
  }
};

// What outliers of x have beyond their bytes, times their weights. Neighbouring threads have rows,
// not columns: with outliers of many rows in the same few columns of x, as models have them, they
// read the same few bytes of a row of w. A row without outliers costs the look at it.
template <class Tile>
struct Rest<int8_t, Tile> {
  static constexpr bool kExists = true;
  static constexpr int kQuads = Tile::kCols / 4;
  static_assert(Tile::kRows <= Tile::kThreads);
  const LinearParams& p;
  int row0, col0, rows, cols;
  int32_t first[4];  // products of the thread's first four columns

  // A decode step would wait for memory once more in the end; larger tiles need the registers.
  TRINE_DEV Rest(const LinearParams& params, int first_row, int first_col, int row_count,
                 int col_count)
      : p(params), row0(first_row), col0(first_col), rows(row_count), cols(col_count) {
    const int thread = static_cast<int>(threadIdx.x);
    if constexpr (Tile::kTight) multiply(first, p.x_beside[row0 + thread % rows], thread / rows);
  }

  TRINE_DEV void multiply(int32_t (&products)[4], const int8::Row& x, int quad) const {
    const int8_t* const w = static_cast<const int8_t*>(p.w) + col0 * p.ldw;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      products[c] = 0;
#pragma unroll
      for (int i = 0; i < int8::kOutliers; ++i) {
        const int col = quad * 4 + c;
        if (i < x.outliers && col < cols)
          products[c] += x.outlier[i].rest * w[col * p.ldw + x.outlier[i].at];
      }
    }
  }

  TRINE_DEV void add(int32_t* sums) const {
    const int thread = static_cast<int>(threadIdx.x), row = thread % rows;
    const int step = static_cast<int>(blockDim.x) / rows;
    if (thread >= step * rows) return;
    int quad = thread / rows;
    sums += row * Tile::kLdSums;
    if constexpr (Tile::kTight) {
      if (quad < kQuads) add_four(sums + quad * 4, first);
      // Narrow tiles have a thread for each four sums.
      if constexpr (Tile::kRows * kQuads <= Tile::kThreads) return;
      quad += step;
    }
    const int8::Row x = p.x_beside[row0 + row];
    if (x.outliers == 0) return;
    for (; quad < kQuads; quad += step) {
      int32_t products[4];
      multiply(products, x, quad);
      add_four(sums + quad * 4, products);
    }
  }

  TRINE_DEV static void add_four(int32_t* to, const int32_t (&v)[4]) {
    const int4 so_far = load_four(to);
    store_four(to, {so_far.x + v[0], so_far.y + v[1], so_far.z + v[2], so_far.w + v[3]});
  }
};

template <int bits>
struct Groups {};

template <int bits>
struct Operand<Groups<bits>> {
  using Sum = float;
  static constexpr int kPerStage = kGroupedStage, kChunkStages = 4;
  static constexpr int kXUnits = 10;    // of 16 bytes in memory
  static constexpr int kWUnits = bits;  // likewise, without scales
  static constexpr int kXBytes = (kXUnits + 1) * 16;
  static constexpr int kScales = kWUnits * 16;  // where they are in a row of w
  static constexpr int kWBytes = kScales + kGroupsAtOnce * 4;
  static constexpr bool kFastActivation = true;
};

template <int bits, class Tile, bool kAsync>
struct TileLoader<Groups<bits>, Tile, kAsync> {
  using Format = Operand<Groups<bits>>;
  const LinearParams& p;
  unsigned char* ring;
  int x_rows, rows, cols, thread, units, groups;
  const unsigned char* x;
  const unsigned char* w;
  const unsigned char* scales;

  TRINE_DEV TileLoader(const LinearParams& params, unsigned char* own_ring, int rows_of_x,
                       int first_row, int first_col, int own_thread)
      : p(params), ring(own_ring), x_rows(rows_of_x), thread(own_thread) {
    rows = p.m - first_row < Tile::kRows ? p.m - first_row : Tile::kRows;
    cols = p.n - first_col < Tile::kCols ? p.n - first_col : Tile::kCols;
    units = static_cast<int>(p.ldw / 16), groups = (p.k + 31) / 32;
    x = static_cast<const unsigned char*>(p.x) + first_row * p.ldx;
    w = static_cast<const unsigned char*>(p.w) + first_col * p.ldw;
    scales = static_cast<const unsigned char*>(p.w_scales) + int64_t{first_col} * groups * 4;
  }

  TRINE_DEV unsigned char* stage(int slot) const {
    return ring + slot * stage_bytes<Groups<bits>, Tile>(x_rows);
  }

  // Rows and groups beyond the last are zeros; rows of x that tight tiles have no room for are left
  // out.
  TRINE_DEV void load(int slot, int at) const {
    unsigned char* const x_stage = stage(slot);
    unsigned char* const w_stage = x_stage + x_rows * Format::kXBytes;
    const unsigned char* const x_from = x + at * (Format::kXUnits * 16);
    copy<Tile::kRows, Tile::kTight, 8, 16>(x_stage, Format::kXBytes, x_from, p.ldx, rows, 8);
    copy<Tile::kRows, Tile::kTight, 2, 16>(x_stage + kGroupedStage, Format::kXBytes,
                                           x_from + kGroupedStage, p.ldx, rows, 2);
    copy<Tile::kCols, false, Format::kWUnits, 16>(w_stage, Format::kWBytes,
                                                  w + at * (Format::kWUnits * 16), p.ldw, cols,
                                                  units - at * Format::kWUnits);
    copy<Tile::kCols, false, kGroupsAtOnce, 4>(w_stage + Format::kScales, Format::kWBytes,
                                               scales + at * (kGroupsAtOnce * 4), groups * 4, cols,
                                               groups - at * kGroupsAtOnce);
  }

  // Of `height` rows the first `count`, of `width` units the first `valid`; each thread the same
  // unit of every kStride-th row.
  template <int height, bool tight, int width, int bytes>
  TRINE_DEV void copy(unsigned char* to, int to_ld, const unsigned char* from, int64_t from_ld,
                      int count, int valid) const {
    constexpr int kStride = Tile::kThreads / width;
    const int row = thread / width, unit = thread % width;
    to += row * to_ld + unit * bytes;
    from += row * from_ld + unit * bytes;
#pragma unroll
    for (int r = 0; r < height; r += kStride, to += kStride * to_ld, from += kStride * from_ld) {
      if (height % kStride != 0 && r + row >= height) break;
      if (tight && r + row >= count) break;
      const bool inside = unit < valid && r + row < count;
      if constexpr (bytes == 16) {
        cp_async16_zfill(to, from, inside);
      } else {
        cp_async4_zfill(to, from, inside);
      }
    }
  }
};

template <int bits, class Tile>
struct WarpTile<Groups<bits>, Tile> : WarpPlace<Tile> {
  using Format = Operand<Groups<bits>>;
  using WarpPlace<Tile>::kI, WarpPlace<Tile>::kJ;
  static_assert(kJ == 1 || kJ == 4);
  int a_offset[kI], s_offset[kI][2], b_offset, w_offset;

  TRINE_DEV WarpTile(int warp, int lane, int x_rows, int rows) : WarpPlace<Tile>(warp, rows) {
#pragma unroll
    for (int i = 0; i < kI; ++i) {
      a_offset[i] = this->x_row(i * 16 + (lane & 15)) * Format::kXBytes + (lane >> 4) * 16;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        s_offset[i][half] =
            this->x_row(i * 16 + half * 8 + lane / 4) * Format::kXBytes + kGroupedStage;
      }
    }
    const int w = x_rows * Format::kXBytes + this->col0 * Format::kWBytes;
    if constexpr (bits == 4) {
      b_offset = w + (kJ == 1 ? lane & 7 : lane) * Format::kWBytes;
    } else {
      const int col = (lane & 7) + (kJ > 1 ? (lane >> 4) * 8 : 0);
      b_offset = w + col * Format::kWBytes + (lane >> 3 & 1) * 16;
    }
    w_offset = w + lane % 4 * 2 * Format::kWBytes + Format::kScales;
  }

  // Of 4 bits, a lane's word of a column's group has its numbers of both halves of k.
  TRINE_DEV void load_b(uint32_t (&b)[kJ][2], const unsigned char* at) const {
    if constexpr (bits == 4) {
      uint32_t words[kJ];
      if constexpr (kJ == 1) {
        ldmatrix_x1(words, at);
      } else {
        ldmatrix_x4(words, at);
      }
#pragma unroll
      for (int j = 0; j < kJ; ++j) {
        b[j][0] = words[j] & 0x0f0f0f0fu, b[j][1] = words[j] >> 4 & 0x0f0f0f0fu;
      }
    } else if constexpr (kJ == 1) {
      ldmatrix_x2(b[0], at);
    } else {
#pragma unroll
      for (int j = 0; j < kJ; j += 2) {
        uint32_t two[4];
        ldmatrix_x4(two, at + j * 8 * Format::kWBytes);
        b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
      }
    }
  }

  template <class Between>
  TRINE_DEV void multiply(float (&c)[kI][kJ][4], const unsigned char* stage,
                          const Between& between) const {
// All four at once would take more registers than there are.
#pragma unroll 2
    for (int group = 0; group < kGroupsAtOnce; ++group) {
      uint32_t a[kI][4], b[kJ][2];
#pragma unroll
      for (int i = 0; i < kI; ++i) ldmatrix_x4(a[i], stage + a_offset[i] + group * 32);
      load_b(b, stage + b_offset + group * bits * 4);
      float2 s[kI][2];  // of x: the scale, and it times the sum
#pragma unroll
      for (int i = 0; i < kI; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          s[i][half] = *reinterpret_cast<const float2*>(stage + s_offset[i][half] + group * 8);
        }
      }
#pragma unroll
      for (int j = 0; j < kJ; ++j) {
        float scale[2], minimum[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const uint32_t pair = *reinterpret_cast<const uint32_t*>(
              stage + w_offset + (j * 8 + r) * Format::kWBytes + group * 4);
          scale[r] = half_to_float(static_cast<uint16_t>(pair & 0xffffu));
          minimum[r] = half_to_float(static_cast<uint16_t>(pair >> 16));
        }
#pragma unroll
        for (int i = 0; i < kI; ++i) add_group(c[i][j], a[i], b[j], scale, minimum, s[i]);
      }
      if (group == 0) between();
    }
  }

  TRINE_DEV static void add_group(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                  const float (&scale)[2], const float (&minimum)[2],
                                  const float2 (&s)[2]) {
    constexpr int32_t kStart = 0x4b400000;  // 1.5 * 2^23
    int32_t sums[4] = {kStart, kStart, kStart, kStart};
    mma_m16n8k32<true>(sums, a, b);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float integers = __fadd_rn(__int_as_float(sums[r]), -0x1.8p23f);
      c[r] = fmaf(__fmul_rn(integers, scale[r % 2]), s[r / 2].x, c[r]);
      c[r] = fmaf(minimum[r % 2], s[r / 2].y, c[r]);
    }
  }
};

}  // namespace trine::cuda
