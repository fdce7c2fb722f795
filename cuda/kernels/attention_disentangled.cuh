// SPDX-License-Identifier: Apache-2.0
// Attention with DeBERTa's position tables (docs/disentangled-attention.md): to each score come
// q_i . PK[p] and k_j . PQ[p], p being the row of the tables that the distance j - i leads to.
//
// For a tile of queries and keys, the distances lie in a range of as many as both together, and
// their rows lie in a row of the tables, since from one distance to the next p stays or falls by
// one. So these rows are copied into shared memory, first PQ's and then PK's; the block multiplies
// its keys with PQ's, each warp its queries with PK's, and each score picks its two terms by row.
// Both kinds of terms lie in the same place, one after the other: that is what lets three blocks
// of 64 queries, 64 keys and 64 columns of bfloat16 share a multiprocessor.
// Nothing depends on how rows of the tables are cut into tiles: a term is a sum over the columns of
// one key or query and one row.
#pragma once

#include "kernels/attention_launch.h"

namespace trine::cuda::attend {

template <class T, int kD, int kWarps>
struct DisentangledShape {
  using S = Shape<T, kD>;
  static constexpr int kRows = 16 * kWarps, kTile = S::kTile;
  static constexpr int kSpan = kRows + kTile - 1;  // distances of a tile, rows of a table at most
  static constexpr int kOfWarp = 15 + kTile;       // distances of a warp's rows
  // Row strides of the terms: where rows are 1 to 1 with distances, the lanes of a warp read
  // banks 8 t + g of key terms, and few of query terms twice.
  static constexpr int kLdKeyTerms = (kSpan + 15) / 16 * 16 + 5;
  static constexpr int kLdQueryTerms = (kOfWarp + 15) / 16 * 16 + 8;
  static constexpr int kPart = kTile * S::kLd;  // elements of K or V
  static constexpr int kSize = static_cast<int>(sizeof(T));
  static constexpr int kQueryBytes = kRows * S::kLd * kSize;
  static constexpr int kTableBytes = kSpan * S::kLd * kSize;
  static constexpr int kKeyTermBytes = (kTile * kLdKeyTerms * 4 + 15) / 16 * 16;
  static constexpr int kQueryTermBytes = kRows * kLdQueryTerms * 4;
  static constexpr int kTermBytes =
      kKeyTermBytes > kQueryTermBytes ? kKeyTermBytes : kQueryTermBytes;
  // Queries that are held in registers lie in the place of the terms before.
  static constexpr int kFirstBytes = S::kHeldQueries
                                         ? (kQueryBytes > kTermBytes ? kQueryBytes : kTermBytes)
                                         : kQueryBytes + kTermBytes;
  static constexpr int kSharedBytes = kFirstBytes + 2 * kPart * kSize + kTableBytes;
};

// Rows first .. first + 15 of a table of `count` rows as load_b has them; those that don't exist
// are the last one.
template <class T, int kD>
TRINE_DEV void load_b_of(Fragment<T, 2> (&b)[2], const T* table, int first, int count, int k) {
  using S = Shape<T, kD>;
  const int lane = lane_of();
  const int row = min(first + lane % 8 + lane / 16 * 8, count - 1);
  uint32_t raw[4];
  ldmatrix_x4(raw, table + row * S::kLd + k * S::kStep + lane / 8 % 2 * (S::kStep / 2));
#pragma unroll
  for (int i = 0; i < 4; ++i) b[i / 2].set(i % 2, raw[i]);
}

// terms[i][r] = rows of `a` (16 of them) * rows first + r of the table, r < count
template <class T, int kD, class Get>
TRINE_DEV void multiply_table(float* terms, int ld, const Get& a, const T* table, int first,
                              int table_rows, int count) {
  using S = Shape<T, kD>;
  const int lane = lane_of();
#pragma unroll 1
  for (int r = 0; r < count; r += 16) {
    float c[2][4] = {};
#pragma unroll
    for (int k = 0; k < S::kSteps; ++k) {
      Fragment<T, 2> b[2];
      load_b_of<T, kD>(b, table, first + r, table_rows, k);
      const Fragment<T, 4> rows = a(k);
      multiply(c[0], rows, b[0]);
      multiply(c[1], rows, b[1]);
      // Halves of floats take registers: no loads ahead of this.
      if constexpr (sizeof(T) == 4) __syncwarp();
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      float* const to = terms + lane / 4 * ld + r + 8 * n + lane % 4 * 2;
      to[0] = c[n][0], to[1] = c[n][1];
      to[8 * ld] = c[n][2], to[8 * ld + 1] = c[n][3];
    }
  }
}

template <class T, int kD, int kWarps>
TRINE_GLOBAL void __launch_bounds__(kWarps * 32, kD == 64 && kWarps == 4 && sizeof(T) == 2 ? 3 : 1)
    disentangled_rows(Params p) {
  using S = Shape<T, kD>;
  using D = DisentangledShape<T, kD, kWarps>;
  using BlockCopy = Copy<T, kD, kWarps * 32>;
  constexpr int kTile = S::kTile, kRows = D::kRows;
  TRINE_DYNAMIC_SHARED(unsigned char, shared);
  const int lane = lane_of(), warp = static_cast<int>(threadIdx.x) / 32;

  int block = static_cast<int>(blockIdx.x);
  const int head = block % p.heads;
  block /= p.heads;
  const int first_row = block % p.tiles * kRows;
  const Sequence seq(p, block / p.tiles);
  const int kv_head = head / (p.heads / p.kv_heads);
  if (p.queries != Queries::kAll && seq.length == 0) {
    if (first_row > 0) return;
    for (int c = static_cast<int>(threadIdx.x) * 2; c < p.head_dim; c += 2 * kWarps * 32)
      store_pair(p, seq.b, head * p.head_dim + c, (head + 1) * p.head_dim, 0.0f, 0.0f);
    return;
  }
  if (first_row >= seq.asked) return;
  const int first_token = seq.token(p, first_row);

  T* const q_tile = reinterpret_cast<T*>(shared);
  float* const terms = reinterpret_cast<float*>(shared + (S::kHeldQueries ? 0 : D::kQueryBytes));
  float* const own_terms = terms + warp * 16 * D::kLdQueryTerms;
  T* const k_tile = reinterpret_cast<T*>(shared + D::kFirstBytes);
  T* const v_tile = k_tile + D::kPart;
  T* const table = v_tile + D::kPart;
  const Keys<T> keys(p, seq.b, kv_head, seq.first, -1, seq.keys);
  const bool by_key = p.position_queries != nullptr, by_query = p.position_keys != nullptr;

  // The table's row for a distance.
  const auto row_at = [&](int distance) {
    return p.position_at[min(max(distance, -p.reach), p.reach)];
  };
  // The first and the number of the rows for a tile's keys and `rows` queries from `token` on.
  const auto rows_at = [&](int tile, int token, int rows, int& first, int& count) {
    first = row_at(tile * kTile + kTile - 1 - token);
    count = row_at(tile * kTile - (token + rows - 1)) - first + 1;
  };
  const auto copy_table = [&](const void* from, int64_t ld, int first, int count) {
    const T* const rows = static_cast<const T*>(from) + first * ld + head * p.head_dim;
    if (p.vectors) {
      BlockCopy::template rows<D::kSpan>(table, rows, ld, count, p);
    } else {
      BlockCopy::picked(table, count, p, [&](int i) { return rows + i * ld; });
    }
  };
  // Each in a group of its own.
  const auto copy_part = [&](int tile, int part) {
    if (tile * kTile < seq.keys)
      keys.template copy<kD, kWarps * 32>(part == 0 ? k_tile : v_tile, tile, part, part + 1, p);
    cp_async_commit();
  };
  const auto copy_key_table = [&](int tile) {
    if (by_key && tile * kTile < seq.keys) {
      int first, count;
      rows_at(tile, first_token, kRows, first, count);
      copy_table(p.position_queries, p.ld_queries, first, count);
    }
    cp_async_commit();
  };

  BlockCopy::picked(q_tile, kRows, p, [&](int i) {
    const int row = first_row + i;
    return row < seq.asked
               ? static_cast<const T*>(p.q) + seq.matrix_row(p, row) * p.ldq + head * p.head_dim
               : nullptr;
  });
  copy_part(0, 0);
  copy_key_table(0);
  cp_async_wait<0>();
  __syncthreads();
  QueryRows<T, kD, 1> queries(q_tile + warp * 16 * S::kLd);
  queries.load();
  Rows<T, kD, 1> state;
  state.clear();

  const int tiles = (seq.keys + kTile - 1) / kTile, own_token = first_token + 16 * warp;
  for (int tile = 0; tile < tiles; ++tile) {
    cp_async_wait<0>();
    __syncthreads();  // K and PQ are there, and V's, the terms' and, at first, Q's place is free
    copy_part(tile, 1);
    int first, count;
    rows_at(tile, first_token, kRows, first, count);
    // Rows of the tables for this lane's scores, as kBias has biases; below, in elements of terms.
    constexpr int kNear = kTile / 8 + 1;
    int near[kNear][2];
    const int from = tile * kTile + lane % 4 * 2;  // this lane's first key
#pragma unroll
    for (int n = 0; n < kNear; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) near[n][c] = row_at(from - own_token - lane / 4 - 8 + 8 * n + c);
    }
    if (by_key) {
      for (int i = 16 * warp; i < kTile; i += 16 * kWarps) {
        uint32_t raw[S::kHeldQueries ? S::kSteps : 1][4];
        if constexpr (S::kHeldQueries) {
#pragma unroll
          for (int k = 0; k < S::kSteps; ++k) load_a<T, kD>(raw[k], k_tile, i, k);
        }
        multiply_table<T, kD>(
            terms + i * D::kLdKeyTerms, D::kLdKeyTerms,
            [&](int k) {
              if constexpr (!S::kHeldQueries) load_a<T, kD>(raw[0], k_tile, i, k);
              Fragment<T, 4> a;
#pragma unroll
              for (int e = 0; e < 4; ++e) a.set(e, raw[S::kHeldQueries ? k : 0][e]);
              return a;
            },
            table, 0, count, count);
      }
    }
    float s[1][kTile / 8][4];
    queries.scores(s, k_tile);
    __syncthreads();  // key terms are there; K and PQ have been read
    if (by_query) copy_table(p.position_keys, p.ld_keys, first, count);
    cp_async_commit();
    copy_part(tile + 1, 0);
    int own_first, own_count;
    rows_at(tile, own_token, 16, own_first, own_count);
    // Term of key 8 n + c at terms[.. + 8 n + c], of query 8 half at terms[.. + 8 half].
    if (by_key) {
      const float* const lane_terms = terms + lane % 4 * 2 * D::kLdKeyTerms - first;
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c)
          s[0][n][c] += lane_terms[near[n + 1 - c / 2][c % 2] + (8 * n + c % 2) * D::kLdKeyTerms];
      }
    }
    cp_async_wait<1>();
    __syncthreads();  // PK and V are there; key terms have been read
    if (by_query) {
      multiply_table<T, kD>(
          own_terms, D::kLdQueryTerms, [&](int k) { return queries.get(0, k); }, table,
          own_first - first, count, own_count);
      __syncthreads();  // PK has been read
    }
    copy_key_table(tile + 1);
    if (by_query) {
      const float* const lane_terms = own_terms + lane / 4 * D::kLdQueryTerms - own_first;
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c)
          s[0][n][c] += lane_terms[near[n + 1 - c / 2][c % 2] + c / 2 * 8 * D::kLdQueryTerms];
      }
    }
    float scale = p.scale;
    if (!(scale > 0)) {
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
        for (float& x : s[0][n]) x *= scale;
      }
      scale = 1.0f;
    }
    if ((tile + 1) * kTile > seq.keys) {
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c)
          if (from + 8 * n + c % 2 >= seq.keys) s[0][n][c] = -INFINITY;
      }
    }
    state.soften(s, scale);
    state.add(s, v_tile);
  }
  cp_async_wait<0>();

  state.finish_sums();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + 16 * warp + lane / 4 + 8 * half;
    if (row >= seq.asked) continue;
    const float by = 1.0f / state.sum[0][half];
    const int to = head * p.head_dim, to_end = to + p.head_dim;
#pragma unroll
    for (int n = 0; n < kD / 8; ++n) {
      store_pair(p, seq.matrix_row(p, row), to + 8 * n + lane % 4 * 2, to_end,
                 state.out[0][n][2 * half] * by, state.out[0][n][2 * half + 1] * by);
    }
  }
}

template <class T, int kD, int kWarps>
cudaError_t launch_disentangled(Params p, int rows, cudaStream_t stream) {
  using D = DisentangledShape<T, kD, kWarps>;
  p.tiles = (rows + D::kRows - 1) / D::kRows;
  const int64_t blocks = int64_t{p.heads} * p.sequences * p.tiles;
  return launch(
      disentangled_rows<T, kD, kWarps>, static_cast<unsigned>(blocks), 32 * kWarps,
      [](int) { return D::kSharedBytes; }, p, stream);
}

}  // namespace trine::cuda::attend
