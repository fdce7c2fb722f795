// SPDX-License-Identifier: Apache-2.0
// What each op's kernel is called with: plain pointers, sizes and strides. `ref/<op>.cc` and
// `cpu/kernels/<op>-inl.h` take the same struct, so that a test can hand one set of arguments to
// both. Strides are in elements. A kernel writes its output and nothing else; outputs never overlap
// inputs unless a comment says so.
#pragma once

#include <cstdint>
#include <optional>

#include "base/dtype.h"

namespace trine {

enum class Activation : uint8_t {
  kNone,
  kGelu,
  kGeluTanh,
  kRelu,
  kTanh,
  kSigmoid,
  kSilu,
  kQuickGelu
};

enum class PoolMode : uint8_t { kCls, kMean, kMax, kMeanSqrtLen, kWeightedMean, kLastToken };

// Which tokens of a sequence ask: all, or one, whose row of q and y is then the sequence's.
enum class Queries : uint8_t { kAll, kFirst, kLast };

// A ragged batch: sequence b owns rows offsets[b] .. offsets[b + 1] of every per-token array.
struct Ragged {
  const int32_t* offsets;  // [sequences + 1], offsets[0] == 0
  int32_t sequences;
};

// Keys and values of one sequence's earlier tokens, for all layers (exec/kv_cache.h). Of a layer
// before which the others take `begin` floats a token, for H key heads of dim columns:
//   keys   at data + capacity * begin:              [H][capacity / 16][dim][16]
//   values at data + capacity * (begin + H * dim):  [H][ceil(dim / 16)][capacity][16]
// so that a step reads them as panels, front to back, without packing them again. In bf16 a float
// of `data` holds a pair: of a key's neighbouring coordinates, of a column's neighbouring values.
//   keys   at data + capacity * begin:  [H][capacity / 16][ceil(dim / 2)][16]
//   values behind them:                 [H][ceil(dim / 16)][capacity / 2][16]
struct KvView {
  float* data = nullptr;           // null, and `device` too: this sequence has no cache
  const int64_t* begin = nullptr;  // [layers]
  int64_t capacity = 0;            // tokens, a multiple of 16
  int32_t past = 0;                // tokens in it before this run; their positions come first
  const void* device = nullptr;    // on devices whose attention reads something else than `data`
};

// What operands of weights in groups say they are: integers of some size, a type for each form. (A
// file of safetensors has to hold them, so no type of our own would do.)
inline constexpr DType kInt4Groups = DType::kU8, kQ8Groups = DType::kU16;
constexpr DType dtype_of(GroupForm form) noexcept {
  constexpr DType kDTypes[] = {kInt4Groups, DType::kI16, DType::kU32, DType::kI64, kQ8Groups};
  return kDTypes[static_cast<size_t>(form)];
}
constexpr std::optional<GroupForm> group_form_of(DType operand) noexcept {
  for (const GroupForm form : kGroupForms) {
    if (dtype_of(form) == operand) return form;
  }
  return std::nullopt;
}

namespace cpu {
struct QuantisedRow;
}

// y[M, N] = act(x[M, K] . w[N, K]^T + bias[N]) + residual[M, N]
// The sum over K runs in ascending k with one accumulator per element (fused multiply-add where the
// ISA has it), for every M, every blocking and every thread count: this is what makes results
// independent of the batch.
// `linear_bf16` takes the same with weights in bf16, and rounds x to bf16 before it multiplies;
// sums and all that follows stay in fp32.
// `linear_int8` takes weights as int8 with a scale for each column of y, and each row of x times
// its own scale rounded to int8, but for two outliers (exec/int8.h). Their products are summed as
// integers, so exactly.
// `linear_groups` takes weights in groups of 32 of K (weights/groups.h), and rounds x
// in the same groups to integers of -127 .. 127 times a float, the largest magnitude / 127. Sums
// within a group are exact; they are added up in ascending order.
struct LinearArgs {
  const float* x;
  int64_t ldx;
  // ref: row-major [N][K] of float, bf16 or groups, of int8 as exec/int8.h has it; cpu: packed
  // panels, see cpu/kernel_table.h
  const void* w;
  const float* bias;      // [N], or null; the cpu backend pads it with zeros to a multiple of 16
  const float* residual;  // row stride ldr, or null; may be the same memory as y
  int64_t ldr;
  float* y;
  int64_t ldy;
  int64_t m, n, k;
  Activation activation;
  // cpu, where a kernel takes x prepared: x is what its `prepare` has made, and these are what rows
  // in int8 have beside them.
  const cpu::QuantisedRow* x_rows = nullptr;
};

// Columns [h * head_dim, (h + 1) * head_dim) of q, k, v and y belong to head h (k and v: head h *
// kv_heads / heads). y = softmax(scale * q k^T + bias[h][j - i + span - 1]) v over the keys j of
// the query's own sequence (j <= i when causal). `bias` is indexed by distance alone, so no L x L
// table exists; sequences are at most `span` long when it is given.
// Disentangled attention adds scale * (q_i . position_keys[d] + k_j . position_queries[d]) for the
// distance d = j - i, either table alone or both. `position_at` says where a distance is in them:
// ref: a row of [rows][heads * head_dim]; cpu: a column of panels (cpu/positions.h).
// `attention_bf16` takes the same, rounds q, k, v, the tables and exp(score - largest of the row)
// to bf16 before it multiplies, and keeps keys and values so in caches; scores, the sum of the
// exponentials (not rounded) and the sums of products stay in fp32.
struct AttentionArgs {
  const float* q;
  const float* k;
  const float* v;
  int64_t ldq, ldk, ldv;
  const float* bias;  // [heads][2 * span - 1], or null
  int32_t span;
  float* y;
  int64_t ldy;
  Ragged batch;
  int32_t heads, kv_heads, head_dim;
  float scale;
  bool causal;
  const float* position_keys;     // or null
  const float* position_queries;  // or null
  const int32_t* position_at;     // position_at[d]: see exec/distances.h
  int32_t reach;                  // distances d >= reach are as reach, d <= -reach as -reach
  int64_t position_head;          // cpu: floats from one head's panels to the next's
  int32_t position_columns;       // cpu: columns of all panels of a head, padding excluded
  Queries queries;                // of one token: a sequence without tokens gives zeros
  // With caches (causal only): the sequence's rows of k and v are appended to layer `cache` of its
  // own, and its queries see what was in there before, too. Room was checked before the run.
  const KvView* caches = nullptr;  // [sequences], or null
  int32_t cache = -1;
};

// y[t] = rows t - (size - 1) / 2 .. t + size / 2 of x side by side, within t's sequence; zeros
// beyond its ends.
struct WindowsArgs {
  const float* x;
  int64_t ldx;
  float* y;
  int64_t ldy;
  int64_t cols;
  int32_t size;
  Ragged batch;
};

// y[o][s * in + i] = w[o][i - first input of o's group][s]; zeros outside of the group.
struct ConvWeightArgs {
  const float* w;  // [outputs][inputs / groups][size]
  int64_t outputs, inputs, size, groups;
  float* y;
  int64_t ldy;
};

// y[i] = (x[i] - mean) / sqrt(variance + eps) * weight + bias, each row on its own; variance is the
// population's, taken after the mean is removed. y may be x.
struct LayerNormArgs {
  const float* x;
  int64_t ldx;
  const float* weight;  // [cols], or null for 1
  const float* bias;    // [cols], or null for 0
  float* y;
  int64_t ldy;
  int64_t rows, cols;
  float eps;
};

// y[i] = x[i] / sqrt(mean of x[i]^2 + eps) * weight, each row on its own. y may be x.
struct RmsNormArgs {
  const float* x;
  int64_t ldx;
  const float* weight;  // [cols]
  float* y;
  int64_t ldy;
  int64_t rows, cols;
  float eps;
};

// y[t] = scaling * cos(a_0 ..), then scaling * sin(a_0 ..), for the angles a_c = positions[t] *
// frequency_c, rounded to float as torch rounds them (at 1e5 that is more than what they are
// worth, but models were trained so). exec/rotary.h has the frequencies of a sequence.
struct RotaryArgs {
  static constexpr int64_t kMaxPairs = 512;
  const int32_t* positions;
  const float* inv_freq;       // [pairs]
  const float* long_inv_freq;  // [pairs], or null
  float* y;
  int64_t ldy;
  int64_t rows, pairs;
  Ragged batch;
  const int32_t* lengths;  // of the whole sequences; null: as many as they have rows
  float scaling;
  int32_t original_length;  // 0: inv_freq whatever the length
  float base, factor;       // of dynamic frequencies
};

// Of each head, columns c and c + turned / 2 < turned, times (cos, sin) of the table's row: y[c] =
// x[c] cos - x[c + turned / 2] sin, y[c + turned / 2] = x[c + turned / 2] cos + x[c] sin. The other
// columns are copied. y may be x.
struct RopeArgs {
  const float* x;
  int64_t ldx;
  const float* table;  // cosines, then sines
  int64_t ldt;
  float* y;
  int64_t ldy;
  int64_t rows;
  int64_t heads, head_dim, turned;
};

// y[i] = act(gate[i]) * up[i]; y may be gate or up.
struct GatedArgs {
  const float* gate;
  const float* up;
  int64_t ldg, ldu;
  float* y;
  int64_t ldy;
  int64_t rows, cols;
  Activation activation;
};

// y[i] = factor * x[i]; y may be x.
struct ScaleArgs {
  const float* x;
  int64_t ldx;
  float* y;
  int64_t ldy;
  int64_t rows, cols;
  float factor;
};

// y[i] = sum over t of table_t[ids_t[i]], t < count, added in this order. Tables stay in the
// checkpoint's dtype (F32, F16 or BF16) and place; their rows need not be aligned. A table that is
// alone may be a linear's weight instead, as linear_int8 (I8) or linear_groups reads it.
// Ids were checked before the run.
struct EmbeddingArgs {
  static constexpr int kMaxTables = 3;
  const int32_t* ids[kMaxTables];
  const void* tables[kMaxTables];
  DType dtypes[kMaxTables];
  int32_t count;
  float* y;
  int64_t ldy;
  int64_t rows, cols;
};

// y[i] = act(x[i]); y may be x.
struct ActivationArgs {
  const float* x;
  int64_t ldx;
  float* y;
  int64_t ldy;
  int64_t rows, cols;
  Activation activation;
};

// y[i] = a[i] + b[i]; y may be a or b.
struct AddArgs {
  const float* a;
  const float* b;
  int64_t lda, ldb;
  float* y;
  int64_t ldy;
  int64_t rows, cols;
};

// One row for each sequence, from its rows [offsets[b] + skip[b], offsets[b + 1]) (skip null: 0; a
// sequence with no row left gives zeros). kMean: sum / count; kMeanSqrtLen: sum / sqrt(count);
// kWeightedMean: sum of (t + 1) x_t / sum of (t + 1), t counted from the start of the sequence;
// kMax: the largest; kCls: the first of these rows (the sequence's first if none is left);
// kLastToken: the last row. Sums run in ascending t, one float accumulator per column.
struct PoolArgs {
  const float* x;
  int64_t ldx;
  const int32_t* skip;  // [sequences], or null
  float* y;
  int64_t ldy;
  int64_t cols;
  Ragged batch;
  PoolMode mode;
};

// y[i] = x[i] / max(||x[i]||, eps); y may be x.
struct L2NormalizeArgs {
  const float* x;
  int64_t ldx;
  float* y;
  int64_t ldy;
  int64_t rows, cols;
  float eps;
};

// y[h][d + span - 1] = table[bucket(d)][h] for the distances d = j - i of a key j from a query i,
// |d| < span. Half of the buckets are for d > 0. Distances below half of a side's buckets have a
// bucket each; beyond, buckets grow logarithmically up to max_distance, and everything farther
// shares the last one. The logarithm is taken in float, as transformers does (modeling_mpnet.py,
// relative_position_bucket), since the borders depend on its rounding.
struct RelativeBiasArgs {
  const float* table;  // [buckets][heads]
  int64_t buckets, heads;
  int32_t max_distance, span;
  float* y;  // [heads][2 * span - 1], row stride ldy
  int64_t ldy;
};

}  // namespace trine
