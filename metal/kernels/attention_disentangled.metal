// SPDX-License-Identifier: Apache-2.0
// Attention with DeBERTa's position tables (docs/disentangled-attention.md): to each score come
// q_i . PK[p] and k_j . PQ[p], p being the row of the tables that the distance j - i leads to.
//
// For a tile of queries and keys the distances lie in a range of as many as both together, and
// their rows lie in a row of the tables, since from one distance to the next p stays or falls by
// one. These rows pass through threadgroup memory, a block of kTile at a time: the threadgroup
// multiplies its keys with PQ's, each simdgroup its queries with PK's, and each score picks its two
// terms by row. Nothing depends on how rows of the tables are cut into blocks: a term is a sum over
// the columns of one key or query and one row.
//
// Bound by matrix products: with 32 queries, 16 keys and 64 columns, three of the tables' for one
// of the keys'.
#include "kernels/attention_parts.h"

using namespace trine::metal;

// 32 KiB of threadgroup memory hold queries, keys or values, a block of a table, both kinds of
// terms and scores.
template <int kD>
struct DisentangledSizes {
  TRINE_CONST int kTile = kD <= 128 ? 16 : 8;
  TRINE_CONST int kSimds = kD <= 64 ? 4 : kD <= 128 ? 2 : 1;
  TRINE_CONST int kRows = 8 * kSimds;
  // Of rows of a table, those of a tile's distances: as many, or fewer.
  TRINE_CONST int kBlocks = (kRows + kTile - 1 + kTile - 1) / kTile;
  TRINE_CONST int kLdTerms = kBlocks * kTile + 4;
};

// The tables' row for a distance.
inline int row_at(device const int32_t* position_at, int reach, int distance) {
  return position_at[clamp(distance, -reach, reach) + reach];
}

template <class T, int kD>
kernel void disentangled(device const char* q [[buffer(0)]], device const char* k [[buffer(1)]],
                         device const char* v [[buffer(2)]], device char* y [[buffer(3)]],
                         device const int32_t* offsets [[buffer(4)]],
                         device const char* position_keys [[buffer(5)]],
                         device const char* position_queries [[buffer(6)]],
                         device const int32_t* position_at [[buffer(7)]],
                         constant DisentangledArgs& args [[buffer(8)]], TRINE_THREAD) {
  const int kTile = DisentangledSizes<kD>::kTile, kRows = DisentangledSizes<kD>::kRows,
            kThreads = 4 * kRows;
  const int kLdTerms = DisentangledSizes<kD>::kLdTerms;
  const int32_t kDType = TypeOf<T>::kDType;
  TRINE_SHARED(float4, query_memory, DisentangledSizes<kD>::kRows * padded(kD) / 4);
  TRINE_SHARED(float4, key_memory, DisentangledSizes<kD>::kTile * padded(kD) / 4);
  TRINE_SHARED(float4, table_memory, DisentangledSizes<kD>::kTile * padded(kD) / 4);
  TRINE_SHARED(float, key_terms, DisentangledSizes<kD>::kTile* DisentangledSizes<kD>::kLdTerms);
  TRINE_SHARED(float, query_terms, DisentangledSizes<kD>::kRows* DisentangledSizes<kD>::kLdTerms);
  TRINE_SHARED(float4, score_memory,
               DisentangledSizes<kD>::kRows * padded(DisentangledSizes<kD>::kTile) / 4);
  threadgroup float* const queries = (threadgroup float*)query_memory;
  threadgroup float* const tile = (threadgroup float*)key_memory;
  threadgroup float* const table = (threadgroup float*)table_memory;
  threadgroup float* const own_queries = queries + int(simd) * 8 * padded(kD);
  threadgroup float* const own_terms = query_terms + int(simd) * 8 * kLdTerms;
  threadgroup float* const scores =
      (threadgroup float*)score_memory + int(simd) * 8 * padded(kTile);

  const int dim = args.head_dim, head = int(group.x), b = int(group.z);
  const int kv_head = head / (args.heads / args.kv_heads);
  const int first = offsets[b], length = offsets[b + 1] - first;
  const int first_row = int(group.y) * kRows;
  const bool all = args.queries == kAllQueries;
  const int rows = all ? length : length > 0 ? 1 : 0;
  if (!all && length == 0) {
    for (int c = int(thread_id); c < dim; c += kThreads)
      store1(y, args.y.dtype, args.y.first + int64_t(b) * args.y.ld + head * dim + c, 0.0f);
  }
  if (first_row >= rows) return;
  // Rows that don't exist are taken for tokens that follow.
  const int first_token = token_of(args.queries, first_row, length);
  const int own_row = int(simd) * 8 + int(lane) / 4, token = first_token + own_row;

  const bool whole = dim % 4 == 0;
  for (int i = int(thread_id); i < kRows * (kD / 4); i += kThreads) {
    const int row = first_row + i / (kD / 4);
    const int64_t at = args.q.first + (all ? int64_t(first) + row : b) * args.q.ld + head * dim;
    copy_quad(queries + i / (kD / 4) * padded(kD), q, kDType, whole && args.q.vectors != 0, at,
              row < rows ? dim : 0, i % (kD / 4));
  }
  Row<kD> state;
  clear(state);

  for (int key0 = 0; key0 < length; key0 += kTile) {
    threadgroup_barrier(mem_flags::mem_threadgroup);  // values have been read
    for (int i = int(thread_id); i < kTile * (kD / 4); i += kThreads) {
      const int key = key0 + i / (kD / 4);
      copy_quad(tile + i / (kD / 4) * padded(kD), k, kDType, whole && args.k.vectors != 0,
                args.k.first + int64_t(first + key) * args.k.ld + kv_head * dim,
                key < length ? dim : 0, i % (kD / 4));
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    multiply_transposed<kD, DisentangledSizes<kD>::kTile>(scores, padded(kTile), own_queries, tile);

    const int low = row_at(position_at, args.reach, key0 + kTile - 1 - first_token);
    const int count = row_at(position_at, args.reach, key0 - (first_token + kRows - 1)) - low + 1;
    for (int block = 0; block < count; block += kTile) {
      if (args.has_position_queries != 0) {
        for (int i = int(thread_id); i < kTile * (kD / 4); i += kThreads) {
          const int row = block + i / (kD / 4);
          copy_quad(table + i / (kD / 4) * padded(kD), position_queries, kDType,
                    whole && args.position_queries.vectors != 0,
                    args.position_queries.first + int64_t(low + row) * args.position_queries.ld +
                        head * dim,
                    row < count ? dim : 0, i % (kD / 4));
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (int i = int(simd) * 8; i < kTile; i += kRows)
          multiply_transposed<kD, DisentangledSizes<kD>::kTile>(
              key_terms + i * kLdTerms + block, kLdTerms, tile + i * padded(kD), table);
        threadgroup_barrier(mem_flags::mem_threadgroup);  // the block has been read
      }
      if (args.has_position_keys != 0) {
        for (int i = int(thread_id); i < kTile * (kD / 4); i += kThreads) {
          const int row = block + i / (kD / 4);
          copy_quad(
              table + i / (kD / 4) * padded(kD), position_keys, kDType,
              whole && args.position_keys.vectors != 0,
              args.position_keys.first + int64_t(low + row) * args.position_keys.ld + head * dim,
              row < count ? dim : 0, i % (kD / 4));
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        multiply_transposed<kD, DisentangledSizes<kD>::kTile>(own_terms + block, kLdTerms,
                                                              own_queries, table);
        threadgroup_barrier(mem_flags::mem_threadgroup);
      }
    }
    // Without tables keys have still to be read to the end.
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = int(thread_id); i < kTile * (kD / 4); i += kThreads) {
      const int key = key0 + i / (kD / 4);
      copy_quad(tile + i / (kD / 4) * padded(kD), v, kDType, whole && args.v.vectors != 0,
                args.v.first + int64_t(first + key) * args.v.ld + kv_head * dim,
                key < length ? dim : 0, i % (kD / 4));
    }

    float s[DisentangledSizes<kD>::kTile / 4];
    const int own = int(lane) % 4 * (kTile / 4);
#pragma unroll
    for (int i = 0; i < kTile / 4; ++i) {
      const int key = key0 + own + i;
      const int at = row_at(position_at, args.reach, key - token) - low;
      s[i] = scores[int(lane) / 4 * padded(kTile) + own + i];
      if (args.has_position_queries != 0) s[i] += key_terms[(own + i) * kLdTerms + at];
      if (args.has_position_keys != 0) s[i] += own_terms[int(lane) / 4 * kLdTerms + at];
      s[i] = key < length ? s[i] * (args.scale * kLog2E) : -INFINITY;
    }
    const float shrink = soften<kD, DisentangledSizes<kD>::kTile>(state, s, scores, lane);
    threadgroup_barrier(mem_flags::mem_threadgroup);  // values and exponentials are there
    add_values<kD, DisentangledSizes<kD>::kTile>(state, shrink, scores, tile, lane);
  }

  if (first_row + own_row >= rows) return;
  store_row<kD, DisentangledSizes<kD>::kTile>(
      state, 1.0f / state.sum, y, args.y.dtype, whole && args.y.vectors != 0,
      args.y.first + (all ? int64_t(first) + first_row + own_row : b) * args.y.ld + head * dim, dim,
      lane);
}

#define TRINE_DISENTANGLED(name, T)                                         \
  TRINE_KERNEL(attention_disentangled_##name##_d64, disentangled<T, 64>);   \
  TRINE_KERNEL(attention_disentangled_##name##_d128, disentangled<T, 128>); \
  TRINE_KERNEL(attention_disentangled_##name##_d256, disentangled<T, 256>)
TRINE_DISENTANGLED(f32, float);
TRINE_DISENTANGLED(f16, half);
TRINE_DISENTANGLED(bf16, ushort);
