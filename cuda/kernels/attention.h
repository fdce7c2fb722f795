// SPDX-License-Identifier: Apache-2.0
// Launches of attention: asynchronous on the stream, without allocation, fit for capture in a
// graph.
#pragma once

#ifdef TRINE_SIMT
#include "simt/cuda.h"
#else
#include <cuda_runtime_api.h>
#endif

#include <cstdint>

#include "exec/args.h"
#include "kernels/matrix.h"
#include "kernels/ragged.h"

namespace trine::cuda {

// Keys and values of a layer for all sequences, in pages of kTokens tokens that lie anywhere in one
// piece of memory: a sequence grows by a page in its row of `table`, and nothing is moved. Elements
// are of the activations' type. In a page, this layer has at `keys` and at `values`
// [kv_heads][kTokens][head_dim]; what else a page holds (other layers) is the caller's choice.
// Pages may be shared by sequences as long as none of them appends to a shared one.
struct KvPages {
  static constexpr int kTokens = 64;

  void* data = nullptr;     // null: no sequence has a cache
  int64_t page_stride = 0;  // elements from a page to the next
  int64_t keys = 0;         // elements from a page's start
  int64_t values = 0;
  const int32_t* table = nullptr;  // [sequences][table_ld]: page numbers, device memory
  int64_t table_ld = 0;
  const int32_t* past = nullptr;  // [sequences]: tokens before this run; below 0: has no cache
  int32_t max_keys = 0;           // past and new tokens of any sequence are at most so many
  bool all = true;                // every sequence has a cache
};

// As exec/args.h has it; q, k, v, caches and position tables are of one type, y of any. What
// sequences are `span` long at most of is checked before the run, as are ids.
struct AttentionArgs {
  Matrix q, k, v;
  const float* bias = nullptr;  // [heads][2 * span - 1], or null
  int32_t span = 0;
  Matrix y;
  Ragged batch;
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;
  bool causal = false;
  Matrix position_keys, position_queries;  // [rows][heads * head_dim]; data null if none
  const int32_t* position_at = nullptr;    // position_at[d], |d| <= reach: device memory
  int32_t reach = 0;
  Queries queries = Queries::kAll;
  KvPages cache;                // causal only; new rows of k and v are appended
  void* workspace = nullptr;    // attention_workspace(args) bytes, device memory
  int32_t* counters = nullptr;  // attention_counters(args) of them, zero before and after; or null:
                                // decoding takes a launch more
};

inline constexpr int kMaxHeadDim = 256;

// A query's bits depend on its own sequence alone: not on the batch, nor on how much of the
// sequence came in the same run. Tiles of keys begin at multiples of their size from the first
// token. With `causal`, sums are taken over kChunkKeys keys and added up in order, so that a
// single query's chunks can be computed at the same time.
inline constexpr int kChunkKeys = 256;

// Of sizes alone, so that it can be asked before there is memory.
int64_t attention_workspace(const AttentionArgs& args);
int64_t attention_counters(const AttentionArgs& args);

// Whether heads of these sizes fit blocks with so much shared memory, for any batch; `positions`:
// with position tables. attention() would give cudaErrorInvalidValue otherwise.
bool attention_fits(const AttentionArgs& sizes, DType dtype, bool positions, int shared_bytes);

cudaError_t attention(const AttentionArgs& args, cudaStream_t stream);

}  // namespace trine::cuda
