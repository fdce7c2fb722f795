// SPDX-License-Identifier: Apache-2.0
// Attention with DeBERTa's position tables (docs/disentangled-attention.md): to each score come
// q_i . PK[p] and k_j . PQ[p], p being the row of the tables that the distance j - i leads to.
//
// For a tile of queries and keys, the distances lie in a range of as many as both together, and
// their rows lie in a row of the tables, since from one distance to the next p stays or falls by
// one. So these rows are copied into shared memory, first PQ's and then PK's; the block multiplies
// its keys with PQ's, each warp its queries with PK's, and each score picks its two terms by row.
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
  // Queries that are held in registers lie in the place of the key terms before.
  static constexpr int kFirstBytes =
      S::kHeldQueries ? (kQueryBytes > kKeyTermBytes ? kQueryBytes : kKeyTermBytes)
                      : kQueryBytes + kKeyTermBytes;
  static constexpr int kSharedBytes =
      kFirstBytes + kQueryTermBytes + 2 * kPart * kSize + kTableBytes;
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
  for (int r = 0; r < count; r += 16) {
    float c[2][4] = {};
#pragma unroll
    for (int k = 0; k < S::kSteps; ++k) {
      Fragment<T, 2> b[2];
      load_b_of<T, kD>(b, table, first + r, table_rows, k);
      const Fragment<T, 4> rows = a(k);
      multiply(c[0], rows, b[0]);
      multiply(c[1], rows, b[1]);
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
TRINE_GLOBAL void __launch_bounds__(kWarps * 32) disentangled_rows(Params p) {
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
  float* const key_terms =
      reinterpret_cast<float*>(shared + (S::kHeldQueries ? 0 : D::kQueryBytes));
  float* const query_terms =
      reinterpret_cast<float*>(shared + D::kFirstBytes) + warp * 16 * D::kLdQueryTerms;
  T* const k_tile = reinterpret_cast<T*>(shared + D::kFirstBytes + D::kQueryTermBytes);
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
    BlockCopy::some_rows(table, rows, ld, count, p);
  };
  const auto copy_keys_and_table = [&](int tile) {
    int first, count;
    rows_at(tile, first_token, kRows, first, count);
    keys.template copy_k<kD, kWarps * 32>(k_tile, tile, p);
    if (by_key) copy_table(p.position_queries, p.ld_queries, first, count);
  };

  BlockCopy::template rows<kRows>(
      q_tile, static_cast<const T*>(p.q) + seq.matrix_row(p, first_row) * p.ldq + head * p.head_dim,
      p.ldq, seq.asked - first_row, p);
  copy_keys_and_table(0);
  keys.template copy_v<kD, kWarps * 32>(v_tile, 0, p);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  QueryRows<T, kD, 1> queries(q_tile + warp * 16 * S::kLd);
  Rows<T, kD, 1> state;
  state.clear();
  if (S::kHeldQueries) __syncthreads();  // key terms come there now

  const int tiles = (seq.keys + kTile - 1) / kTile;
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile > 0) {
      cp_async_wait<0>();
      __syncthreads();
    }
    int first, count, own_first, own_count;
    const int own_token = first_token + 16 * warp;
    rows_at(tile, first_token, kRows, first, count);
    rows_at(tile, own_token, 16, own_first, own_count);
    if (by_key) {
      for (int i = 16 * warp; i < kTile; i += 16 * kWarps) {
        uint32_t raw[S::kHeldQueries ? S::kSteps : 1][4];
        if constexpr (S::kHeldQueries) {
#pragma unroll
          for (int k = 0; k < S::kSteps; ++k) load_a<T, kD>(raw[k], k_tile, i, k);
        }
        multiply_table<T, kD>(
            key_terms + i * D::kLdKeyTerms, D::kLdKeyTerms,
            [&](int k) {
              if constexpr (!S::kHeldQueries) load_a<T, kD>(raw[0], k_tile, i, k);
              Fragment<T, 4> a;
#pragma unroll
              for (int e = 0; e < 4; ++e) a.set(e, raw[S::kHeldQueries ? k : 0][e]);
              return a;
            },
            table, 0, count, count);
      }
      __syncthreads();
    }
    if (by_query) {
      copy_table(p.position_keys, p.ld_keys, first, count);
      cp_async_commit();
    }
    // Rows of the tables for this lane's scores, as kBias has biases.
    constexpr int kNear = kTile / 8 + 1;
    int near[kNear][2];
    const int from = tile * kTile + lane % 4 * 2;  // this lane's first key
#pragma unroll
    for (int n = 0; n < kNear; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c)
        near[n][c] = row_at(from - own_token - lane / 4 - 8 + 8 * n + c) - first;
    }
    float s[1][kTile / 8][4];
    queries.scores(s, k_tile);
    if (by_query) {
      cp_async_wait<0>();
      __syncthreads();
      multiply_table<T, kD>(
          query_terms, D::kLdQueryTerms, [&](int k) { return queries.get(0, k); }, table,
          own_first - first, count, own_count);
    }
    __syncthreads();  // K and the table have been read
    if (tile + 1 < tiles) copy_keys_and_table(tile + 1);
    cp_async_commit();
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int row = near[n + 1 - c / 2][c % 2];
        float term = s[0][n][c];
        if (by_key) term += key_terms[(8 * n + lane % 4 * 2 + c % 2) * D::kLdKeyTerms + row];
        if (by_query)
          term += query_terms[(lane / 4 + c / 2 * 8) * D::kLdQueryTerms + row + first - own_first];
        const bool exists = from + 8 * n + c % 2 < seq.keys;
        s[0][n][c] = exists ? term * p.scale : -INFINITY;
      }
    }
    state.soften(s, 1.0f);
    state.add(s, v_tile);
    __syncthreads();
    if (tile + 1 < tiles) keys.template copy_v<kD, kWarps * 32>(v_tile, tile + 1, p);
    cp_async_commit();
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
