// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/args.h"

namespace trine {
namespace metal {

TRINE_CONST int32_t kMaxHeadDim = 256;
TRINE_CONST int32_t kPageTokens = 64;
// Keys whose exponentials are summed up from zero before they join those before them: a query's
// bits depend on its own sequence alone, in whatever pieces it came. Starts are multiples of it.
TRINE_CONST int32_t kChunkKeys = 256;

// Queries of exec/args.h, number for number: which tokens of a sequence ask.
TRINE_CONST int32_t kAllQueries = 0;
TRINE_CONST int32_t kFirstQuery = 1;
TRINE_CONST int32_t kLastQuery = 2;

// Which sequences a launch is for; the others are left alone.
TRINE_CONST int32_t kAnyLength = 0;
TRINE_CONST int32_t kShort = 1;  // with a cache and few new tokens: attention_is_short
TRINE_CONST int32_t kLong = 2;   // the rest
// Rows, a row being a head of the group of a key head, of what is short. One token always is.
TRINE_CONST int32_t kShortRows = 8;

// Keys and values of all sequences in pages of kPageTokens tokens, in one buffer. Elements are of
// the operands' type. Of a page, this layer has at `keys` and `values`
// [kv_heads][kPageTokens][head_dim].
struct Pages {
  int64_t first;        // elements from the buffer's start to page 0
  int64_t page_stride;  // elements from a page to the next
  int64_t keys, values;
  int32_t table_ld;  // of table[sequences][table_ld]: page numbers, 0 or more
  int32_t cached;    // 0: no sequence has a cache, and pages, table and past are absent
};
static_assert(sizeof(Pages) == 40, "the same on both sides");

// y = softmax(scale * q k^T + bias[head][j - i + span - 1]) v over the keys of the query's
// sequence (j <= i when causal). q, k and v are of the type in the kernel's name, y of any.
// past[b] < 0: sequence b has no cache, and its keys are rows of k and v. Else its new rows must
// have been appended (append_kv), and all its keys are read from the pages.
//
// Kernels: attention_{f32,f16,bf16}_d{64,128,256}_{few,many}: the size of heads is rounded up to
// the next one; `few` has 8 rows a threadgroup, `many` 32 (16 with d256), with the same bits.
//
// Buffers: 0 q, 1 k, 2 v, 3 y, 4 offsets [sequences + 1] (int32), 5 bias [heads][2 * span - 1]
// (float, or absent), 6 pages, 7 table, 8 past [sequences] (int32), 9 partial (float:
// attention_workspace bytes, or absent), 10 these.
struct AttentionArgs {
  Matrix q, k, v, y;
  Pages pages;
  int64_t bias_first;  // floats
  int32_t sequences, heads, kv_heads, head_dim;
  float scale;
  int32_t causal;
  int32_t queries;
  int32_t span;       // 0: no bias
  int32_t part;       // kAnyLength, kShort or kLong
  int32_t row_tiles;  // of the longest sequence that the launch is for
  // 1: a threadgroup goes through all keys. More (of kShort alone): a threadgroup for each chunk,
  // which writes to `partial`, and attention_join after it.
  int32_t chunks;
  int32_t partial_rows;  // rows of a (sequence, key head) in `partial`
};
static_assert(sizeof(AttentionArgs) == 4 * 24 + 40 + 8 + 12 * 4, "the same on both sides");

// Joins the chunks of a split attention.
//
// Kernel: attention_join. Takes the AttentionArgs and buffers of the launch before it; y is
// written.

// DeBERTa's: scores are scale * (q_i . k_j + q_i . position_keys[p] + k_j . position_queries[p])
// with p = position_at[j - i], from one distance to the next the same or one less. No mask, no
// cache, no bias. Tables: [rows][heads * head_dim], of the operands' type.
//
// Kernels: attention_disentangled_{f32,f16,bf16}_d{64,128,256}
//
// Buffers: 0 q, 1 k, 2 v, 3 y, 4 offsets, 5 position_keys (or absent), 6 position_queries (or
// absent), 7 position_at [2 * reach + 1] (int32, of distances -reach .. reach), 8 these.
struct DisentangledArgs {
  Matrix q, k, v, y, position_keys, position_queries;
  int32_t sequences, heads, kv_heads, head_dim;
  float scale;
  int32_t queries;
  int32_t reach;  // farther distances are as this one
  int32_t row_tiles;
  int32_t has_position_keys, has_position_queries;
};
static_assert(sizeof(DisentangledArgs) == 6 * 24 + 10 * 4, "the same on both sides");

// New rows of k and v into the pages of the sequences that have a cache. k and v are of any type,
// pages of the one in the kernel's name.
//
// Kernels: append_kv_{f32,f16,bf16}
//
// Buffers: 0 k, 1 v, 2 pages, 3 offsets, 4 table, 5 past, 6 these.
struct AppendKvArgs {
  Matrix k, v;
  Pages pages;
  int32_t sequences, tokens, kv_heads, head_dim;
};
static_assert(sizeof(AppendKvArgs) == 2 * 24 + 40 + 4 * 4, "the same on both sides");

}  // namespace metal
}  // namespace trine
