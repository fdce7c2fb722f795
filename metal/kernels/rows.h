// SPDX-License-Identifier: Apache-2.0
// Arguments of everything that works row by row. Matrices are of any type, each on its own;
// arithmetic is float. A row's bits depend on that row alone (pool: on its sequence). Semantics:
// exec/args.h. Indices into buffers (ids, positions, offsets, lengths) are int32.
#pragma once

#include "kernels/args.h"

namespace trine {
namespace metal {

// Kernels: layer_norm, rms_norm, l2_normalize, and these names with _wide above kNormCols columns.
//
// Buffers: 0 x, 1 weight, 2 bias (float, or absent), 3 y, which may be x; 4 these.
struct NormArgs {
  Matrix x, y;
  int64_t weight_first, bias_first;  // floats
  int32_t rows, cols;
  int32_t has_weight, has_bias;  // absent: as if they were 1 and 0
  float eps;
  int32_t unused;
};
static_assert(sizeof(NormArgs) == 2 * 24 + 2 * 8 + 6 * 4, "the same on both sides");
TRINE_CONST int32_t kNormCols = 1024;

// Kernel: embedding.
//
// Buffers: 0 1 2 ids (int32), 3 4 5 tables, 6 y, 7 these; absent from `count` on. A quantised table
// (kernels/quantised.h) is the only one.
struct EmbeddingArgs {
  Matrix tables[3];
  Matrix y;
  int64_t ids_first[3];  // int32s
  int32_t count;
  int32_t rows, cols;
  int32_t table_rows;  // of one that is quantised
};
static_assert(sizeof(EmbeddingArgs) == 4 * 24 + 3 * 8 + 4 * 4, "the same on both sides");

// Kernel: positions.
//
// Buffers: 0 ids, 1 offsets, 2 past (or absent; below 0 counts as 0), 3 y, 4 these.
struct PositionsArgs {
  int64_t ids_first, y_first;  // int32s
  int32_t sequences;
  int32_t padding_idx;
  int32_t has_past;
  int32_t unused;
};
static_assert(sizeof(PositionsArgs) == 2 * 8 + 4 * 4, "the same on both sides");

// Kernels: activation (y = act(a)), scale (y = factor * a), copy_columns (y = a: copies, parts of
// concat, conversions).
//
// Buffers: 0 a, 1 y, which may be a; 2 these.
//
// Kernels: add (y = a + b), gated (y = act(a) * b).
//
// Buffers: 0 a, 1 b, 2 y, 3 these. y may be a or b.
struct MapArgs {
  Matrix a, b, y;
  int32_t rows, cols;
  int32_t activation;
  float factor;
};
static_assert(sizeof(MapArgs) == 3 * 24 + 4 * 4, "the same on both sides");

// Kernels: spread (each sequence's row of x to its tokens' rows of y) and windows (rows
// t - (size - 1) / 2 .. t + size / 2 of t's sequence side by side, zeros beyond its ends).
//
// Buffers: 0 x, 1 offsets, 2 y, 3 these.
struct SpreadArgs {
  Matrix x, y;
  int32_t sequences, tokens;
  int32_t cols;  // of x
  int32_t size;  // windows'
};
static_assert(sizeof(SpreadArgs) == 2 * 24 + 4 * 4, "the same on both sides");

// Kernel: rotary. y[t] = scaling * cos(a_0 ..), then scaling * sin(a_0 ..), a_c = positions[t] *
// frequencies[c]. Frequencies of sequences longer than some length differ: then the host computes
// them (exec/rotary.h), a row for each sequence, and frequencies_ld says how far rows are apart;
// 0: one row for all.
//
// Buffers: 0 positions (int32), 1 frequencies (float), 2 offsets, 3 y, 4 these.
struct RotaryArgs {
  Matrix y;  // [tokens][2 * pairs]
  int64_t positions_first, frequencies_first;
  int32_t sequences, tokens;
  int32_t pairs;
  int32_t frequencies_ld;
  float scaling;
  int32_t unused;
};
static_assert(sizeof(RotaryArgs) == 24 + 2 * 8 + 6 * 4, "the same on both sides");

// Kernel: rope.
//
// Buffers: 0 x, 1 table, 2 y, which may be x; 3 these.
struct RopeArgs {
  Matrix x, table, y;  // table: [rows][turned], cosines, then sines
  int32_t rows;
  int32_t heads, head_dim, turned;
};
static_assert(sizeof(RopeArgs) == 3 * 24 + 4 * 4, "the same on both sides");

// PoolMode of exec/args.h, number for number.
TRINE_CONST int32_t kPoolCls = 0;
TRINE_CONST int32_t kPoolMean = 1;
TRINE_CONST int32_t kPoolMax = 2;
TRINE_CONST int32_t kPoolMeanSqrtLen = 3;
TRINE_CONST int32_t kPoolWeightedMean = 4;
TRINE_CONST int32_t kPoolLastToken = 5;

// Kernel: pool. Row t of a sequence is added to sum t % kPoolWays, counted from the first row that
// is pooled; the sums are added in order.
//
// Buffers: 0 x, 1 offsets, 2 skip [sequences] (int32, or absent), 3 y, 4 these.
struct PoolArgs {
  Matrix x, y;
  int32_t sequences, cols;
  int32_t mode;
  int32_t has_skip;
};
static_assert(sizeof(PoolArgs) == 2 * 24 + 4 * 4, "the same on both sides");
TRINE_CONST int32_t kPoolWays = 32;

}  // namespace metal
}  // namespace trine
