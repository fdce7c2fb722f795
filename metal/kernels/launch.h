// SPDX-License-Identifier: Apache-2.0
// For the host: which kernel, how many threadgroups and threads. Plain functions of sizes; nothing
// here allocates.
//
// The source of a library is metal/kernels/<source>.metal with every #include "..." replaced by the
// file it names below metal/, once; <...> and #pragma once stay. A library's functions need nothing
// of another's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "base/dtype.h"
#include "exec/args.h"
#include "kernels/attention.h"
#include "kernels/linear.h"
#include "kernels/rows.h"

namespace trine::metal {

static_assert(int(DType::kF32) == kF32 && int(DType::kF16) == kF16 && int(DType::kBF16) == kBF16);
static_assert(int(DType::kI8) == kI8 && int(trine::kInt4Groups) == kInt4Groups &&
              int(trine::kQ8Groups) == kQ8Groups);
static_assert(int(Activation::kGelu) == kGelu && int(Activation::kQuickGelu) == kQuickGelu);
static_assert(int(Queries::kFirst) == kFirstQuery && int(Queries::kLast) == kLastQuery);
static_assert(int(PoolMode::kCls) == kPoolCls && int(PoolMode::kLastToken) == kPoolLastToken);

// ---- Names

// X(name, source): metal/kernels/<source>.metal has it. Of variants by type: f32, f16, bf16 in this
// order.
#define TRINE_METAL_KERNELS(X)                                \
  X(linear_f32_8x16, linear)                                  \
  X(linear_f32_32x32, linear)                                 \
  X(linear_f32_64x64, linear)                                 \
  X(linear_f16_8x16, linear)                                  \
  X(linear_f16_32x32, linear)                                 \
  X(linear_f16_64x64, linear)                                 \
  X(linear_bf16_8x16, linear)                                 \
  X(linear_bf16_32x32, linear)                                \
  X(linear_bf16_64x64, linear)                                \
  X(linear_i8_8x16, linear)                                   \
  X(linear_i8_32x32, linear)                                  \
  X(linear_i8_64x64, linear)                                  \
  X(linear_q4_8x16, linear)                                   \
  X(linear_q4_32x32, linear)                                  \
  X(linear_q4_64x64, linear)                                  \
  X(linear_q8_8x16, linear)                                   \
  X(linear_q8_32x32, linear)                                  \
  X(linear_q8_64x64, linear)                                  \
  X(attention_f32_d64_few, attention)                         \
  X(attention_f32_d64_many, attention)                        \
  X(attention_f32_d128_few, attention)                        \
  X(attention_f32_d128_many, attention)                       \
  X(attention_f32_d256_few, attention)                        \
  X(attention_f32_d256_many, attention)                       \
  X(attention_f16_d64_few, attention)                         \
  X(attention_f16_d64_many, attention)                        \
  X(attention_f16_d128_few, attention)                        \
  X(attention_f16_d128_many, attention)                       \
  X(attention_f16_d256_few, attention)                        \
  X(attention_f16_d256_many, attention)                       \
  X(attention_bf16_d64_few, attention)                        \
  X(attention_bf16_d64_many, attention)                       \
  X(attention_bf16_d128_few, attention)                       \
  X(attention_bf16_d128_many, attention)                      \
  X(attention_bf16_d256_few, attention)                       \
  X(attention_bf16_d256_many, attention)                      \
  X(attention_join, attention)                                \
  X(append_kv_f32, attention)                                 \
  X(append_kv_f16, attention)                                 \
  X(append_kv_bf16, attention)                                \
  X(attention_disentangled_f32_d64, attention_disentangled)   \
  X(attention_disentangled_f32_d128, attention_disentangled)  \
  X(attention_disentangled_f32_d256, attention_disentangled)  \
  X(attention_disentangled_f16_d64, attention_disentangled)   \
  X(attention_disentangled_f16_d128, attention_disentangled)  \
  X(attention_disentangled_f16_d256, attention_disentangled)  \
  X(attention_disentangled_bf16_d64, attention_disentangled)  \
  X(attention_disentangled_bf16_d128, attention_disentangled) \
  X(attention_disentangled_bf16_d256, attention_disentangled) \
  X(layer_norm, rows)                                         \
  X(layer_norm_wide, rows)                                    \
  X(rms_norm, rows)                                           \
  X(rms_norm_wide, rows)                                      \
  X(l2_normalize, rows)                                       \
  X(l2_normalize_wide, rows)                                  \
  X(embedding, rows)                                          \
  X(positions, rows)                                          \
  X(activation, rows)                                         \
  X(scale, rows)                                              \
  X(copy_columns, rows)                                       \
  X(add, rows)                                                \
  X(gated, rows)                                              \
  X(spread, rows)                                             \
  X(windows, rows)                                            \
  X(rotary, rows)                                             \
  X(rope, rows)                                               \
  X(pool, rows)

enum class Kernel : int32_t {
#define TRINE_METAL_KERNEL(name, source) name,
  TRINE_METAL_KERNELS(TRINE_METAL_KERNEL)
#undef TRINE_METAL_KERNEL
};

struct KernelName {
  const char* name;    // for newFunctionWithName
  const char* source;  // the file, without .metal
};
inline constexpr KernelName kKernelNames[] = {
#define TRINE_METAL_KERNEL(name, source) {#name, #source},
    TRINE_METAL_KERNELS(TRINE_METAL_KERNEL)
#undef TRINE_METAL_KERNEL
};
inline constexpr int32_t kKernels = static_cast<int32_t>(std::size(kKernelNames));

constexpr Kernel operator+(Kernel kernel, int32_t by) {
  return static_cast<Kernel>(static_cast<int32_t>(kernel) + by);
}
constexpr const KernelName& name_of(Kernel kernel) {
  return kKernelNames[static_cast<int32_t>(kernel)];
}

// A dispatch. Nothing is to be done where a size is 0.
struct Launch {
  Kernel kernel{};
  uint32_t threadgroups[3] = {0, 1, 1};
  uint32_t threads = 0;  // of a threadgroup, in x

  constexpr bool empty() const {
    return threadgroups[0] == 0 || threadgroups[1] == 0 || threadgroups[2] == 0;
  }
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr uint32_t groups_of(int64_t items, int64_t per_group) {
  return static_cast<uint32_t>(ceil_div(items, per_group));
}

// `first` counts from an address that is a multiple of 16.
constexpr Matrix matrix(int64_t first, int64_t ld, DType dtype) {
  return {first, static_cast<int32_t>(ld), static_cast<int32_t>(dtype),
          first % 4 == 0 && ld % 4 == 0 ? 1 : 0, 0};
}

// ---- linear

// Elements from one row of packed weights to the next: rows are converted to the type, and filled
// up with zeros, by the host.
constexpr int64_t linear_ldw(int64_t k) { return ceil_div(k, 8) * 8; }

// How weights lie, in the order of the kernels; linear.h says what they are.
enum class LinearWeights : int32_t { kF32, kF16, kBF16, kI8, kQ4, kQ8 };
constexpr LinearWeights linear_weights(DType dtype) {
  switch (dtype) {
    case DType::kI8:
      return LinearWeights::kI8;
    case trine::kInt4Groups:
      return LinearWeights::kQ4;
    case trine::kQ8Groups:
      return LinearWeights::kQ8;
    default:
      static_assert(int(LinearWeights::kBF16) == kBF16);
      return static_cast<LinearWeights>(dtype);
  }
}

// Of k alone: sets chunk and chunks.
constexpr void linear_chunks(LinearArgs& args) {
  const int64_t stages = ceil_div(args.k, kStageK), most = kChunkK / kStageK;
  const int64_t chunk = stages == 0 ? 1 : ceil_div(stages, ceil_div(stages, most));
  args.chunk = static_cast<int32_t>(chunk * kStageK);
  args.chunks = static_cast<int32_t>(ceil_div(stages, chunk));
}

// All give the same bits.
enum class LinearTile : int32_t { k8x16, k32x32, k64x64 };

constexpr LinearTile linear_tile(const LinearArgs& args) {
  return args.m <= 8                                               ? LinearTile::k8x16
         : args.m <= 32 || int64_t{args.m} * args.n < 64 * 64 * 64 ? LinearTile::k32x32
                                                                   : LinearTile::k64x64;
}

constexpr Launch linear_launch(LinearTile tile, const LinearArgs& args, LinearWeights weights) {
  const int32_t t = static_cast<int32_t>(tile);
  const int64_t rows = t == 0 ? 8 : t == 1 ? 32 : 64, cols = t == 0 ? 16 : rows;
  const int64_t rounds = ceil_div(args.chunks, kLinearGroups);
  const int64_t groups = rounds == 0 ? 1 : ceil_div(args.chunks, rounds);
  return {Kernel::linear_f32_8x16 + (static_cast<int32_t>(weights) * 3 + t),
          {groups_of(args.m, rows), groups_of(args.n, cols), 1},
          static_cast<uint32_t>(t == 0 ? 32 * groups : 128)};
}
constexpr Launch linear_launch(const LinearArgs& args, LinearWeights weights) {
  return linear_launch(linear_tile(args), args, weights);
}
constexpr Launch linear_launch(const LinearArgs& args, DType w_dtype) {
  return linear_launch(args, linear_weights(w_dtype));
}

// ---- attention

// What launches depend on besides the args.
struct AttentionBatch {
  int32_t max_length = 0;  // new tokens of any sequence, at most
  int32_t max_keys = 0;    // past and new tokens of any sequence, at most
  bool all_cached = false;
};

constexpr bool attention_is_short(int32_t length, int32_t group) {
  return length == 1 || length * group <= kShortRows;
}

// Launches in order, each with its args. append_kv goes before them.
struct AttentionLaunches {
  struct One {
    Launch launch;
    AttentionArgs args;
  };
  One launches[3];
  int32_t count = 0;
};

// Index of a size of heads among 64, 128, 256.
constexpr int32_t attention_size(int32_t head_dim) {
  return head_dim <= 64 ? 0 : head_dim <= 128 ? 1 : 2;
}

// Rows of short sequences in `partial`, and chunks of the longest.
constexpr int32_t attention_partial_rows(const AttentionArgs& a, int32_t max_length) {
  const int32_t group = a.heads / a.kv_heads;
  if (a.queries != kAllQueries) return group;
  return group * std::min(max_length, std::max(1, kShortRows / group));
}
constexpr int32_t attention_chunks(int32_t max_keys) {
  return static_cast<int32_t>(ceil_div(max_keys, kChunkKeys));
}

// Bytes of `partial`; 0: none is needed.
constexpr int64_t attention_workspace(const AttentionArgs& a, const AttentionBatch& batch) {
  const int64_t chunks = attention_chunks(batch.max_keys);
  if (a.pages.cached == 0 || chunks <= 1) return 0;
  return int64_t{a.sequences} * a.kv_heads * attention_partial_rows(a, batch.max_length) * chunks *
         (a.head_dim + 2) * 4;
}

constexpr AttentionLaunches::One attention_launch(AttentionArgs a, DType dtype, int32_t part,
                                                  int32_t rows, int32_t chunks, bool few) {
  const int32_t size = attention_size(a.head_dim);
  const int32_t per_group = few ? 8 : size == 2 ? 16 : 32;
  a.part = part;
  a.chunks = chunks;
  a.row_tiles = static_cast<int32_t>(ceil_div(rows, per_group));
  const Kernel kernel = Kernel::attention_f32_d64_few +
                        ((static_cast<int32_t>(dtype) * 3 + size) * 2 + (few ? 0 : 1));
  return {{kernel,
           {static_cast<uint32_t>(a.kv_heads * chunks), static_cast<uint32_t>(a.row_tiles),
            static_cast<uint32_t>(a.sequences)},
           static_cast<uint32_t>(per_group * 4)},
          a};
}

// `part`, `row_tiles`, `chunks` and `partial_rows` of args are set here.
constexpr AttentionLaunches attention_launches(AttentionArgs a, DType dtype,
                                               const AttentionBatch& batch) {
  AttentionLaunches all{};
  const int32_t group = a.heads / a.kv_heads;
  const int32_t asked = (a.queries == kAllQueries ? batch.max_length : 1) * group;
  const auto add = [&](const AttentionLaunches::One& one) { all.launches[all.count++] = one; };
  if (a.pages.cached == 0) {
    add(attention_launch(a, dtype, kAnyLength, asked, 1, asked <= 8));
    return all;
  }
  const bool longest_is_short = attention_is_short(batch.max_length, group);
  if (a.sequences > 1 || (batch.all_cached && longest_is_short)) {
    a.partial_rows = attention_partial_rows(a, batch.max_length);
    const int32_t chunks = std::max(1, attention_chunks(batch.max_keys));
    add(attention_launch(a, dtype, kShort, a.partial_rows, chunks, true));
    if (chunks > 1) {
      AttentionArgs join = all.launches[0].args;
      add({{Kernel::attention_join,
            {groups_of(a.partial_rows, 4), static_cast<uint32_t>(a.kv_heads),
             static_cast<uint32_t>(a.sequences)},
            128},
           join});
    }
  }
  if (!(batch.all_cached && longest_is_short))
    add(attention_launch(a, dtype, kLong, asked, 1, asked <= 8));
  return all;
}

// Sets row_tiles. max_length: tokens of the longest sequence.
constexpr Launch disentangled_launch(DisentangledArgs& a, DType dtype, int32_t max_length) {
  const int32_t size = attention_size(a.head_dim), rows = 32 >> size;
  a.row_tiles = static_cast<int32_t>(ceil_div(a.queries == kAllQueries ? max_length : 1, rows));
  return {Kernel::attention_disentangled_f32_d64 + (static_cast<int32_t>(dtype) * 3 + size),
          {static_cast<uint32_t>(a.heads), static_cast<uint32_t>(a.row_tiles),
           static_cast<uint32_t>(a.sequences)},
          static_cast<uint32_t>(rows * 4)};
}

constexpr Launch append_kv_launch(const AppendKvArgs& a, DType pages_dtype) {
  return {Kernel::append_kv_f32 + static_cast<int32_t>(pages_dtype),
          {groups_of(int64_t{a.tokens} * a.kv_heads * ceil_div(a.head_dim, 4), 256), 1, 1},
          256};
}

// ---- rows

// A thread four columns.
constexpr Launch quads_launch(Kernel kernel, int64_t rows, int64_t cols) {
  return {kernel, {groups_of(rows * ceil_div(cols, 4), 256), 1, 1}, 256};
}

// kernel: layer_norm, rms_norm or l2_normalize.
constexpr Launch norm_launch(Kernel kernel, const NormArgs& a) {
  if (a.cols > kNormCols) return {kernel + 1, {static_cast<uint32_t>(a.rows), 1, 1}, 256};
  return {kernel, {groups_of(a.cols == 0 ? 0 : a.rows, 4), 1, 1}, 128};
}
constexpr Launch embedding_launch(const EmbeddingArgs& a) {
  return quads_launch(Kernel::embedding, a.rows, a.cols);
}
constexpr Launch positions_launch(const PositionsArgs& a) {
  return {Kernel::positions, {static_cast<uint32_t>(a.sequences), 1, 1}, 32};
}
// kernel: activation, scale, copy_columns, add or gated.
constexpr Launch map_launch(Kernel kernel, const MapArgs& a) {
  return quads_launch(kernel, a.rows, a.cols);
}
constexpr Launch spread_launch(const SpreadArgs& a) {
  return quads_launch(Kernel::spread, a.tokens, a.cols);
}
constexpr Launch windows_launch(const SpreadArgs& a) {
  return quads_launch(Kernel::windows, a.tokens, int64_t{a.cols} * a.size);
}
constexpr Launch rotary_launch(const RotaryArgs& a) {
  return {Kernel::rotary, {groups_of(int64_t{a.tokens} * a.pairs, 256), 1, 1}, 256};
}
constexpr Launch rope_launch(const RopeArgs& a) {
  const int64_t half = a.turned / 2;
  const int64_t items = ceil_div(half, 4) + ceil_div(a.head_dim - 2 * half, 4);
  return {Kernel::rope, {groups_of(int64_t{a.rows} * a.heads * items, 256), 1, 1}, 256};
}
constexpr Launch pool_launch(const PoolArgs& a) {
  return {Kernel::pool,
          {groups_of(ceil_div(a.cols, 4), 8), static_cast<uint32_t>(a.sequences), 1},
          8 * kPoolWays};
}

}  // namespace trine::metal
