// SPDX-License-Identifier: Apache-2.0
// Attention by tiles of keys with a running softmax (Dao et al. 2022), for ragged sequences.
//
// A warp owns kRowTiles times 16 rows of scores, a row being a query of one head; the warps of a
// block share the tiles of K and V in shared memory, of which the next one is copied while one is
// computed. Scores stay in registers, in the layout of mma's C, which for bfloat16 is A's layout of
// the product with V. Rows of shared memory are 16 bytes longer than they need be, which puts the
// rows that ldmatrix reads together into different banks.
//
// float is computed as three products of tf32 (a = high + low, without low * low): 22 bits of each
// factor.
//
// Scores are kept in units of ln 2, so that exponentials are powers of two.
#pragma once

#include "kernels/attention_tiles.cuh"

namespace trine::cuda::attend {

// ---- A warp's rows

// Lane l has, of each 16 rows, rows l / 4 and l / 4 + 8 (`half` 0 and 1), and of each 8 columns,
// columns l % 4 * 2 and the next.
template <class T, int kD, int kRowTiles>
struct Rows {
  using S = Shape<T, kD>;
  static constexpr int kScores = S::kTile / 8;

  float out[kRowTiles][kD / 8][4];
  float largest[kRowTiles][2], sum[kRowTiles][2];  // sums: of this lane's columns

  TRINE_DEV void clear() {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int n = 0; n < kD / 8; ++n) {
#pragma unroll
        for (float& x : out[r][n]) x = 0.0f;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) largest[r][half] = -INFINITY, sum[r][half] = 0.0f;
    }
  }

  // The running softmax: scores (times `scale`) become exponentials, and what has been summed up
  // is brought to the new maximum.
  TRINE_DEV void soften(float (&s)[kRowTiles][kScores][4], float scale) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = -INFINITY;
#pragma unroll
        for (int n = 0; n < kScores; ++n)
          top = fmaxf(top, fmaxf(s[r][n][2 * half], s[r][n][2 * half + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        top = fmaxf(largest[r][half], top * scale);
        // Without a key in sight all is 0, and stays so.
        const float base = top == -INFINITY ? 0.0f : top;
        const float shrink = fast_exp2(largest[r][half] - base);
        largest[r][half] = top;
        float total[kScores];
#pragma unroll
        for (int n = 0; n < kScores; ++n) {
          float& a = s[r][n][2 * half];
          float& b = s[r][n][2 * half + 1];
          a = fast_exp2(fmaf(a, scale, -base));
          b = fast_exp2(fmaf(b, scale, -base));
          total[n] = a + b;
        }
        // In pairs, pairs of pairs and so on: warps that have a part of the columns each can do so,
        // too.
#pragma unroll
        for (int step = 1; step < kScores; step *= 2) {
#pragma unroll
          for (int n = 0; n < kScores; n += 2 * step) total[n] += total[n + step];
        }
        sum[r][half] = fmaf(sum[r][half], shrink, total[0]);
#pragma unroll
        for (int n = 0; n < kD / 8; ++n) {
          out[r][n][2 * half] *= shrink;
          out[r][n][2 * half + 1] *= shrink;
        }
      }
    }
  }

  // out += exponentials * V
  TRINE_DEV void add(const float (&s)[kRowTiles][kScores][4], const T* v_tile) {
    const int lane = lane_of();
    if constexpr (sizeof(T) == 2) {
#pragma unroll
      for (int k = 0; k < S::kTile / 16; ++k) {
        Fragment<T, 4> a[kRowTiles];
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          a[r].set(0, pack2_bf16(s[r][2 * k][0], s[r][2 * k][1]));
          a[r].set(1, pack2_bf16(s[r][2 * k][2], s[r][2 * k][3]));
          a[r].set(2, pack2_bf16(s[r][2 * k + 1][0], s[r][2 * k + 1][1]));
          a[r].set(3, pack2_bf16(s[r][2 * k + 1][2], s[r][2 * k + 1][3]));
        }
#pragma unroll
        for (int n = 0; n < kD / 16; ++n) {
          uint32_t raw[4];
          ldmatrix_x4_trans(raw, v_tile + (16 * k + lane % 16) * S::kLd + 16 * n + lane / 16 * 8);
          Fragment<T, 2> b[2];
#pragma unroll
          for (int i = 0; i < 4; ++i) b[i / 2].set(i % 2, raw[i]);
#pragma unroll
          for (int r = 0; r < kRowTiles; ++r) {
            multiply(out[r][2 * n], a[r], b[0]);
            multiply(out[r][2 * n + 1], a[r], b[1]);
          }
        }
      }
    } else {
      // The k of a product can be numbered at will: k = t is key 2 t, and k = t + 4 key 2 t + 1,
      // which is what C's layout has.
#pragma unroll
      for (int k = 0; k < kScores; ++k) {
        Fragment<T, 4> a[kRowTiles];
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          a[r].set(0, __float_as_uint(s[r][k][0]));
          a[r].set(1, __float_as_uint(s[r][k][2]));
          a[r].set(2, __float_as_uint(s[r][k][1]));
          a[r].set(3, __float_as_uint(s[r][k][3]));
        }
        const T* from = v_tile + (8 * k + lane % 4 * 2) * S::kLd + lane / 4;
#pragma unroll
        for (int n = 0; n < kD / 8; ++n) {
          Fragment<T, 2> b;
          b.set(0, __float_as_uint(static_cast<float>(from[8 * n])));
          b.set(1, __float_as_uint(static_cast<float>(from[8 * n + S::kLd])));
#pragma unroll
          for (int r = 0; r < kRowTiles; ++r) multiply(out[r][n], a[r], b);
          // Registers are full: no loads ahead of this.
          if (kD > 128 && n % 16 == 15) __syncwarp();
        }
      }
    }
  }

  // The sums of whole rows.
  TRINE_DEV void finish_sums() {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        sum[r][half] += __shfl_xor_sync(0xffffffffu, sum[r][half], 1);
        sum[r][half] += __shfl_xor_sync(0xffffffffu, sum[r][half], 2);
      }
    }
  }
};

// Queries as A: held in registers, or read from shared memory each time.
template <class T, int kD, int kRowTiles>
struct QueryRows {
  using S = Shape<T, kD>;
  static constexpr int kHeld = S::kHeldQueries ? S::kSteps : 1;
  uint32_t raw[kRowTiles][kHeld][4];
  const T* tile;  // the warp's rows

  TRINE_DEV explicit QueryRows(const T* from) : tile(from) {}

  // To be called once they are there.
  TRINE_DEV void load() {
    if constexpr (S::kHeldQueries) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
        for (int k = 0; k < S::kSteps; ++k) load_a<T, kD>(raw[r][k], tile, 16 * r, k);
      }
    }
  }

  TRINE_DEV Fragment<T, 4> get(int r, int k) {
    if constexpr (!S::kHeldQueries) load_a<T, kD>(raw[r][0], tile, 16 * r, k);
    Fragment<T, 4> a;
#pragma unroll
    for (int i = 0; i < 4; ++i) a.set(i, raw[r][S::kHeldQueries ? k : 0][i]);
    return a;
  }

  // s = queries * K^T, unscaled
  TRINE_DEV void scores(float (&s)[kRowTiles][S::kTile / 8][4], const T* k_tile) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int n = 0; n < S::kTile / 8; ++n) {
#pragma unroll
        for (float& x : s[r][n]) x = 0.0f;
      }
    }
#pragma unroll(S::kHeldQueries ? S::kSteps : 4)
    for (int k = 0; k < S::kSteps; ++k) {
      Fragment<T, 4> a[kRowTiles];
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) a[r] = get(r, k);
#pragma unroll
      for (int n = 0; n < S::kTile / 16; ++n) {
        Fragment<T, 2> b[2];
        load_b<T, kD>(b, k_tile, 16 * n, k);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          multiply(s[r][2 * n], a[r], b[0]);
          multiply(s[r][2 * n + 1], a[r], b[1]);
        }
      }
    }
  }
};

// ---- Chunks of keys

// How a chunk's row joins the chunks before it. These are the only operations between chunks, the
// same ones wherever a chunk was computed.
struct Join {
  float before, now;  // factors

  TRINE_DEV Join(float& largest, float& sum, float chunk_largest, float chunk_sum) {
    const float top = fmaxf(largest, chunk_largest);
    before = fast_exp2(largest - top);
    now = fast_exp2(chunk_largest - top);
    largest = top;
    sum = fmaf(chunk_sum, now, sum * before);
  }
  TRINE_DEV float operator()(float total, float chunk) const {
    return fmaf(chunk, now, total * before);
  }
};

// ---- A sequence as a block sees it

inline constexpr int kShortRows = 16;

struct Sequence {
  int b, first, length;  // rows of k and v in this run
  int past;              // tokens in the cache; below 0: no cache
  int keys;
  int asked;  // queries

  TRINE_DEV Sequence(const Params& p, int b_) : b(b_) {
    first = p.offsets[b];
    length = p.offsets[b + 1] - first;
    past = p.cache.data != nullptr ? p.cache.past[b] : -1;
    keys = length + (past > 0 ? past : 0);
    asked = p.queries == Queries::kAll ? length : length > 0 ? 1 : 0;
  }
  TRINE_DEV int before() const { return past > 0 ? past : 0; }
  // The token that the query at `row` is of, and its row of q and y.
  TRINE_DEV int token(const Params& p, int row) const {
    return p.queries == Queries::kAll ? row : p.queries == Queries::kLast ? length - 1 : 0;
  }
  TRINE_DEV int64_t matrix_row(const Params& p, int row) const {
    return p.queries == Queries::kAll ? first + row : b;
  }
  // Few rows a key head: attention_split.cuh has them.
  TRINE_DEV bool is_short(const Params& p) const {
    return past >= 0 && (length == 1 || length * (p.heads / p.kv_heads) <= kShortRows);
  }
};

enum class Kind {
  kPlain,
  kBias,   // a bias for each distance; scales below 0, too
  kCausal  // with or without caches, in chunks
};

// Blocks a multiprocessor: said, since ptxas would rather spill a little than miss one more. Calls
// for products and copies by registers leave sm_75 room for fewer.
template <class T, int kD, int kRowTiles>
constexpr int blocks_wanted() {
  constexpr int kBytes = Shape<T, kD>::kBytes;
#ifdef TRINE_SM75
  constexpr int kMost = 3;
#else
  constexpr int kMost = 4;
#endif
  return kRowTiles > 1 || kBytes > 128 ? 2 : kBytes > 64 ? 3 : kMost;
}

template <class T, int kD, int kRowTiles, int kWarps, Kind kKind>
TRINE_GLOBAL void __launch_bounds__(kWarps * 32, blocks_wanted<T, kD, kRowTiles>())
    attention_rows(Params p) {
  using S = Shape<T, kD>;
  constexpr int kTile = S::kTile, kRows = 16 * kRowTiles * kWarps;
  constexpr bool kCausal = kKind == Kind::kCausal;
  TRINE_DYNAMIC_SHARED(unsigned char, shared);
  const int lane = lane_of(), warp = static_cast<int>(threadIdx.x) / 32;
  const int group = p.heads / p.kv_heads;

  // Heads of a tile beside each other, then the tiles of a sequence, those of many keys first.
  int block = static_cast<int>(blockIdx.x);
  const int head = block % p.heads;
  block /= p.heads;
  const int row_tile = p.tiles - 1 - block % p.tiles;
  const Sequence seq(p, block / p.tiles);
  if (kCausal && p.cache.data != nullptr && seq.is_short(p)) return;
  const int kv_head = head / group, rows = seq.asked, first_row = row_tile * kRows;
  if (p.queries != Queries::kAll && seq.length == 0) {
    if (row_tile == 0) store_zeros(p, seq.b, head * p.head_dim, (head + 1) * p.head_dim);
    return;
  }
  const Keys<T> keys(p, seq.b, kv_head, seq.first, seq.past, seq.keys);
  if (kCausal && keys.in_page >= 0 && head % group == 0 && first_row < seq.length)
    keys.append(first_row, min(first_row + kRows, seq.length), p);
  if (first_row >= rows) return;
  // Keys below `seen` for the last row, and for all rows.
  const int last_row = min(first_row + kRows, rows) - 1;
  const int seen = kCausal ? seq.before() + seq.token(p, last_row) + 1 : seq.keys;
  const int seen_by_all = kCausal ? seq.before() + seq.token(p, first_row) + 1 : seq.keys;
  const int end = (seen + kTile - 1) / kTile;

  T* const q_tile = reinterpret_cast<T*>(shared);
  // Outputs of the chunks before; where queries are in registers, in their place.
  float4* const totals = reinterpret_cast<float4*>(
      shared + (S::kHeldQueries ? 0 : kRows * S::kLd * static_cast<int>(sizeof(T))));
  constexpr int kQueryBytes = kRows * S::kLd * static_cast<int>(sizeof(T));
  constexpr int kTotalBytes = kRows * kD * static_cast<int>(sizeof(float));
  const bool many = kCausal && seen > kChunkKeys;
  const int total_bytes = kCausal && p.chunks > 1 ? kTotalBytes : 0;
  T* const tiles = reinterpret_cast<T*>(
      shared + (S::kHeldQueries ? max(kQueryBytes, total_bytes) : kQueryBytes + total_bytes));
  constexpr int kPart = kTile * S::kLd;  // elements of K's or V's part of a buffer

  using QueryCopy = Copy<T, kD, kWarps * 32>;
  const T* const q =
      static_cast<const T*>(p.q) + seq.matrix_row(p, first_row) * p.ldq + head * p.head_dim;
  if (p.vectors) {
    QueryCopy::template rows<kRows>(q_tile, q, p.ldq, rows - first_row, p);
  } else {
    QueryCopy::picked(q_tile, kRows, p,
                      [&](int i) { return first_row + i < rows ? q + i * p.ldq : nullptr; });
  }
  cp_async_commit();
  QueryRows<T, kD, kRowTiles> queries(q_tile + warp * 16 * kRowTiles * S::kLd);
  Rows<T, kD, kRowTiles> state;
  state.clear();
  float largest[kRowTiles][2], sum[kRowTiles][2];  // of the chunks before
  const int first = first_row + warp * 16 * kRowTiles + lane / 4;
  const float* bias = nullptr;
  if constexpr (kKind == Kind::kBias) {
    if (p.bias != nullptr) bias = p.bias + head * (2 * p.span - 1) + p.span - 1;
  }

  // The state joins the chunks before it.
  const auto join = [&](bool is_first) {
    state.finish_sums();
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      float4* const total = totals + r * (kD / 8) * kWarps * 32 + threadIdx.x;
      if (is_first) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          largest[r][half] = state.largest[r][half];
          sum[r][half] = state.sum[r][half];
        }
#pragma unroll
        for (int n = 0; n < kD / 8; ++n) {
          const float (&o)[4] = state.out[r][n];
          total[n * kWarps * 32] = make_float4(o[0], o[1], o[2], o[3]);
        }
      } else {
        // A chunk that a row doesn't see, but another row of the tile does, is nothing to it.
        const bool sees[2] = {state.largest[r][0] != -INFINITY, state.largest[r][1] != -INFINITY};
        float before[2] = {largest[r][0], largest[r][1]}, sums[2] = {sum[r][0], sum[r][1]};
        const Join joins[2] = {{before[0], sums[0], state.largest[r][0], state.sum[r][0]},
                               {before[1], sums[1], state.largest[r][1], state.sum[r][1]}};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (sees[half]) largest[r][half] = before[half], sum[r][half] = sums[half];
        }
#pragma unroll
        for (int n = 0; n < kD / 8; ++n) {
          float4 t = total[n * kWarps * 32];
          const float (&o)[4] = state.out[r][n];
          if (sees[0]) t.x = joins[0](t.x, o[0]), t.y = joins[0](t.y, o[1]);
          if (sees[1]) t.z = joins[1](t.z, o[2]), t.w = joins[1](t.w, o[3]);
          total[n * kWarps * 32] = t;
        }
      }
    }
    state.clear();
  };

  // With two buffers the copy of a tile is under way while the tile before is computed.
  const int ahead = p.stages - 1;
  for (int tile = -ahead; tile < end; ++tile) {
    if (ahead == 1) cp_async_wait<0>();
    __syncthreads();
    if (tile + ahead < end) {
      keys.template copy<kD, kWarps * 32>(tiles + ((tile + ahead) & ahead) * 2 * kPart,
                                          tile + ahead, 0, 2, p);
      cp_async_commit();
    }
    if (tile < 0) continue;
    if (ahead == 0) {
      cp_async_wait<0>();
      __syncthreads();
    }
    if (tile == 0) queries.load();
    const T* const k_tile = tiles + (tile & ahead) * 2 * kPart;
    if (kCausal && tile > 0 && tile % (kChunkKeys / kTile) == 0) join(tile == kChunkKeys / kTile);
    float s[kRowTiles][kTile / 8][4];
    queries.scores(s, k_tile);
    const int from = tile * kTile + lane % 4 * 2;  // this lane's first key
    float scale = p.scale;
    if constexpr (kKind == Kind::kBias) {
      scale = 1.0f;
      // The rows l / 4 + 8 see at a distance what the rows l / 4 see 8 columns before, and each 16
      // rows what those before see 16 columns before.
      constexpr int kNear = kTile / 8 + 2 * kRowTiles - 1;
      float near[kNear][2];
      const int distance =
          from - seq.token(p, first_row) - (first - first_row) - 8 * (2 * kRowTiles - 1);
#pragma unroll
      for (int n = 0; n < kNear; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          // Beyond the longest sequence's distances are rows and columns that don't exist.
          const int d = min(max(distance + 8 * n + c, 1 - p.span), p.span - 1);
          near[n][c] = bias != nullptr ? bias[d] * kLog2E : 0.0f;
        }
      }
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
        for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 4; ++c)
            s[r][n][c] =
                fmaf(s[r][n][c], p.scale, near[n + 2 * (kRowTiles - 1 - r) + 1 - c / 2][c % 2]);
        }
      }
    }
    if ((tile + 1) * kTile > seen_by_all) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first + 16 * r + half * 8;
          const int sees = kCausal ? seq.before() + seq.token(p, row) + 1 : seq.keys;
#pragma unroll
          for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
            for (int c = 0; c < 2; ++c)
              if (from + 8 * n + c >= sees) s[r][n][2 * half + c] = -INFINITY;
          }
        }
      }
    }
    state.soften(s, scale);
    state.add(s, k_tile + kPart);
  }

  if (many) {
    join(false);
  } else {
    state.finish_sums();
  }
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    const float4* const total = totals + r * (kD / 8) * kWarps * 32 + threadIdx.x;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + 16 * r + 8 * half;
      if (row >= rows) continue;
      const int col = lane % 4 * 2;
      const float by = 1.0f / (many ? sum[r][half] : state.sum[r][half]);
      const int to = head * p.head_dim, to_end = to + p.head_dim;
#pragma unroll
      for (int n = 0; n < kD / 8; ++n) {
        float a = state.out[r][n][2 * half], b = state.out[r][n][2 * half + 1];
        if (many) {
          const float4 t = total[n * kWarps * 32];
          a = half == 0 ? t.x : t.z, b = half == 0 ? t.y : t.w;
        }
        store_pair(p, seq.matrix_row(p, row), to + 8 * n + col, to_end, a * by, b * by);
      }
    }
  }
}

}  // namespace trine::cuda::attend
