// SPDX-License-Identifier: Apache-2.0
// Attention of sequences with few new tokens and a cache: decoding. Bound by the memory of the
// keys, so a block takes one chunk of the keys of a key head, for all heads that share it: rows are
// (token, head) pairs, 16 to a block. What comes of the chunks is joined in order, by the block
// that is done last if there are counters, else by another launch.
//
// The bits are those of attention_rows, where a warp does all for its rows. Here the warps of a
// block share 16 rows: each has a part of a tile's keys for the scores, and a part of the columns
// for the product with V. Scores and outputs are elements of products and don't notice; maxima are
// exact; sums of exponentials are added up as Rows::soften does.
#pragma once

#include "kernels/attention_launch.h"

namespace trine::cuda::attend {

template <class T, int kD>
struct SplitShape {
  using S = Shape<T, kD>;
  static constexpr int kTile = S::kTile;
  static constexpr int kWarps = kTile >= 32 ? 4 : kTile / 8;
  static constexpr int kKeyTiles = kTile / 8 / kWarps;  // of a warp, of 8 keys
  static constexpr int kColumnTiles = kD / 8 / kWarps;  // of 8 columns of V
  static constexpr int kLdWeights = kTile + 16 / static_cast<int>(sizeof(T));
  static constexpr int kPart = kTile * S::kLd;
  static constexpr int kSize = static_cast<int>(sizeof(T));
  static constexpr int kQueryBytes = 16 * S::kLd * kSize;
  static constexpr int kWeightBytes = 16 * kLdWeights * kSize;
  static constexpr int bytes(int stages) {
    return kQueryBytes + kWeightBytes + stages * 2 * kPart * kSize;
  }
};

// How many have arrived before; what was written before that is there for those who come later.
TRINE_DEV int arrive(int32_t* counter) {
  __threadfence();
  const int before = atomicAdd(counter, 1);
  __threadfence();
  return before;
}

// Where a row's part of `partial` begins: outputs [..][chunks][head_dim], then [..][chunks][2].
struct PartialRow {
  float* out;
  float* scalars;

  TRINE_DEV PartialRow(const Params& p, int b, int kv_head, int row) {
    const int64_t all = static_cast<int64_t>(p.sequences) * p.kv_heads * p.split_rows * p.chunks;
    const int64_t at =
        ((static_cast<int64_t>(b) * p.kv_heads + kv_head) * p.split_rows + row) * p.chunks;
    out = p.partial + at * p.head_dim;
    scalars = p.partial + all * p.head_dim + at * 2;
  }
};

// A row from its chunks, by a warp.
TRINE_DEV void join_row(const Params& p, const Sequence& seq, int kv_head, int row) {
  const int group = p.heads / p.kv_heads, lane = lane_of();
  const PartialRow from(p, seq.b, kv_head, row);
  const int seen = seq.before() + seq.token(p, row / group) + 1;
  const int chunks = (seen + kChunkKeys - 1) / kChunkKeys;
  const int head = kv_head * group + row % group;
  const int64_t y_row = seq.matrix_row(p, row / group);
  for (int c = lane * 2; c < p.head_dim; c += 64) {
    const int next = min(c + 1, p.head_dim - 1);
    float a = __ldcg(from.out + c), b = __ldcg(from.out + next);
    float largest = __ldcg(from.scalars), sum = __ldcg(from.scalars + 1);
    for (int chunk = 1; chunk < chunks; ++chunk) {
      const float* const out = from.out + chunk * p.head_dim;
      const Join join(largest, sum, __ldcg(from.scalars + 2 * chunk),
                      __ldcg(from.scalars + 2 * chunk + 1));
      a = join(a, __ldcg(out + c));
      b = join(b, __ldcg(out + next));
    }
    const float by = 1.0f / sum;
    store_pair(p, y_row, head * p.head_dim + c, (head + 1) * p.head_dim, a * by, b * by);
  }
}

template <class T, int kD>
TRINE_GLOBAL void __launch_bounds__(SplitShape<T, kD>::kWarps * 32, 2) split_rows(Params p) {
  using S = Shape<T, kD>;
  using D = SplitShape<T, kD>;
  constexpr int kTile = S::kTile, kWarps = D::kWarps, kColumnTiles = D::kColumnTiles;
  TRINE_DYNAMIC_SHARED(unsigned char, shared);
  TRINE_SHARED(float, tops, kWarps * 16);
  TRINE_SHARED(float, sums, kWarps * 64);
  TRINE_SHARED(int, arrived, 1);
  const int lane = lane_of(), warp = static_cast<int>(threadIdx.x) / 32;
  const int group = p.heads / p.kv_heads;

  int block = static_cast<int>(blockIdx.x);
  const int kv_head = block % p.kv_heads;
  block /= p.kv_heads;
  const int row_tile = block % p.tiles;
  block /= p.tiles;
  const int chunk = block % p.chunks;
  const Sequence seq(p, block / p.chunks);
  if (!seq.is_short(p)) return;
  const int rows = seq.asked * group, first_row = row_tile * 16;
  if (seq.asked == 0 && p.queries != Queries::kAll) {
    if (chunk == 0 && row_tile == 0) {
      const int width = group * p.head_dim;
      store_zeros(p, seq.b, kv_head * width, (kv_head + 1) * width);
    }
    return;
  }
  const Keys<T> keys(p, seq.b, kv_head, seq.first, seq.past, seq.keys);
  if (chunk == 0 && row_tile == 0) keys.append(0, seq.length, p);
  if (first_row >= rows) return;
  const int last_row = min(first_row + 16, rows) - 1;
  const bool few = last_row - first_row < 8;  // the second half of the rows doesn't exist
  const int seen = seq.before() + seq.token(p, last_row / group) + 1;
  const int seen_by_all = seq.before() + seq.token(p, first_row / group) + 1;
  const int begin = chunk * (kChunkKeys / kTile);
  const int end = min((seen + kTile - 1) / kTile, begin + kChunkKeys / kTile);
  if (begin >= end) return;

  T* const q_tile = reinterpret_cast<T*>(shared);
  T* const weights = reinterpret_cast<T*>(shared + D::kQueryBytes);  // exponentials, [16][keys]
  T* const tiles = reinterpret_cast<T*>(shared + D::kQueryBytes + D::kWeightBytes);
  Copy<T, kD, kWarps * 32>::picked(q_tile, 16, p, [&](int i) {
    const int row = first_row + i, head = kv_head * group + row % group;
    return row < rows ? static_cast<const T*>(p.q) + seq.matrix_row(p, row / group) * p.ldq +
                            head * p.head_dim
                      : nullptr;
  });
  cp_async_commit();
  const int ahead = p.stages - 1;
  if (ahead == 1) keys.template copy<kD, kWarps * 32>(tiles, begin, 0, 2, p);
  cp_async_commit();
  cp_async_wait<1>();
  // Weights of rows that don't exist are read, and make nothing of interest.
  if (few) {
    for (int i = static_cast<int>(threadIdx.x); i < D::kWeightBytes / 8; i += kWarps * 32)
      reinterpret_cast<uint32_t*>(weights)[D::kWeightBytes / 8 + i] = 0;
  }
  __syncthreads();
  QueryRows<T, kD, 1> queries(q_tile);
  queries.load();
  const int first = first_row + lane / 4;
  float out[kColumnTiles][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};

  for (int tile = begin; tile < end; ++tile) {
    if (ahead == 1) cp_async_wait<0>();
    __syncthreads();
    if (tile + ahead < end) {
      keys.template copy<kD, kWarps * 32>(tiles + ((tile + ahead - begin) & ahead) * 2 * D::kPart,
                                          tile + ahead, 0, 2, p);
      cp_async_commit();
    }
    if (ahead == 0) {
      cp_async_wait<0>();
      __syncthreads();
    }
    const T* const k_tile = tiles + ((tile - begin) & ahead) * 2 * D::kPart;
    const T* const v_tile = k_tile + D::kPart;

    float s[D::kKeyTiles][4] = {};
#pragma unroll
    for (int k = 0; k < S::kSteps; ++k) {
      const Fragment<T, 4> a = queries.get(0, k);
      Fragment<T, 2> b[2];
      if constexpr (D::kKeyTiles == 2) {
        load_b<T, kD>(b, k_tile, 16 * warp, k);
        multiply(s[0], a, b[0]);
        multiply(s[1], a, b[1]);
      } else {
        uint32_t raw[2];
        ldmatrix_x2(raw, k_tile + (8 * warp + lane % 8) * S::kLd + k * S::kStep +
                             lane / 8 % 2 * (S::kStep / 2));
        b[0].set(0, raw[0]), b[0].set(1, raw[1]);
        multiply(s[0], a, b[0]);
      }
    }
    const int from = tile * kTile + 8 * D::kKeyTiles * warp + lane % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half == 1 && few) break;
      if ((tile + 1) * kTile > seen_by_all) {
        const int sees = seq.before() + seq.token(p, (first + 8 * half) / group) + 1;
#pragma unroll
        for (int n = 0; n < D::kKeyTiles; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c)
            if (from + 8 * n + c >= sees) s[n][2 * half + c] = -INFINITY;
        }
      }
      float top = -INFINITY;
#pragma unroll
      for (int n = 0; n < D::kKeyTiles; ++n)
        top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      if (lane % 4 == 0) tops[warp * 16 + half * 8 + lane / 4] = top;
    }
    __syncthreads();
    float shrink[2] = {1.0f, 1.0f};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half == 1 && few) break;
      float top = -INFINITY;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) top = fmaxf(top, tops[w * 16 + half * 8 + lane / 4]);
      top = fmaxf(largest[half], top * p.scale);
      const float base = top == -INFINITY ? 0.0f : top;
      shrink[half] = fast_exp2(largest[half] - base);
      largest[half] = top;
      float total[D::kKeyTiles];
#pragma unroll
      for (int n = 0; n < D::kKeyTiles; ++n) {
        const float a = fast_exp2(fmaf(s[n][2 * half], p.scale, -base));
        const float b = fast_exp2(fmaf(s[n][2 * half + 1], p.scale, -base));
        total[n] = a + b;
        T* const to = weights + (half * 8 + lane / 4) * D::kLdWeights +
                      (D::kKeyTiles * warp + n) * 8 + lane % 4 * 2;
        if constexpr (sizeof(T) == 2) {
          *reinterpret_cast<uint32_t*>(to) = pack2_bf16(a, b);
        } else {
          *reinterpret_cast<float2*>(to) = make_float2(a, b);
        }
      }
      if constexpr (D::kKeyTiles == 2) total[0] += total[1];
      sums[warp * 64 + half * 32 + lane] = total[0];
    }
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half == 1 && few) break;
      float total[kWarps];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total[w] = sums[w * 64 + half * 32 + lane];
#pragma unroll
      for (int step = 1; step < kWarps; step *= 2) {
#pragma unroll
        for (int w = 0; w < kWarps; w += 2 * step) total[w] += total[w + step];
      }
      sum[half] = fmaf(sum[half], shrink[half], total[0]);
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        out[n][2 * half] *= shrink[half];
        out[n][2 * half + 1] *= shrink[half];
      }
    }
    const int column = 8 * kColumnTiles * warp;
    if constexpr (sizeof(T) == 2) {
#pragma unroll
      for (int k = 0; k < kTile / 16; ++k) {
        uint32_t raw[4];
        ldmatrix_x4(raw, weights + lane % 16 * D::kLdWeights + 16 * k + lane / 16 * 8);
        Fragment<T, 4> a;
#pragma unroll
        for (int i = 0; i < 4; ++i) a.set(i, raw[i]);
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n) {
          uint32_t pair[2];
          ldmatrix_x2_trans(pair, v_tile + (16 * k + lane % 16) * S::kLd + column + 8 * n);
          Fragment<T, 2> b;
          b.set(0, pair[0]), b.set(1, pair[1]);
          multiply(out[n], a, b);
        }
      }
    } else {
#pragma unroll
      for (int k = 0; k < kTile / 8; ++k) {  // keys numbered as in Rows::add
        const T* const of = weights + lane / 4 * D::kLdWeights + 8 * k + lane % 4 * 2;
        Fragment<T, 4> a;
        a.set(0, __float_as_uint(static_cast<float>(of[0])));
        a.set(1, __float_as_uint(static_cast<float>(of[8 * D::kLdWeights])));
        a.set(2, __float_as_uint(static_cast<float>(of[1])));
        a.set(3, __float_as_uint(static_cast<float>(of[8 * D::kLdWeights + 1])));
        const T* const v = v_tile + (8 * k + lane % 4 * 2) * S::kLd + column + lane / 4;
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n) {
          Fragment<T, 2> b;
          b.set(0, __float_as_uint(static_cast<float>(v[8 * n])));
          b.set(1, __float_as_uint(static_cast<float>(v[8 * n + S::kLd])));
          multiply(out[n], a, b);
        }
      }
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
    sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
    const int row = first + 8 * half, head = kv_head * group + row % group;
    if (row >= rows) continue;
    const float by = 1.0f / sum[half];
    const PartialRow part(p, seq.b, kv_head, row);
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const int c = 8 * (kColumnTiles * warp + n) + lane % 4 * 2;
      const float a = out[n][2 * half], b = out[n][2 * half + 1];
      if (seq.keys <= kChunkKeys) {
        store_pair(p, seq.matrix_row(p, row / group), head * p.head_dim + c,
                   (head + 1) * p.head_dim, a * by, b * by);
      } else {
        float* const to = part.out + chunk * p.head_dim + c;
        if (c < p.head_dim) to[0] = a;
        if (c + 1 < p.head_dim) to[1] = b;
      }
    }
    if (seq.keys > kChunkKeys && warp == 0 && lane % 4 == 0) {
      part.scalars[2 * chunk] = largest[half];
      part.scalars[2 * chunk + 1] = sum[half];
    }
  }
  if (seq.keys <= kChunkKeys || p.counters == nullptr) return;
  int32_t* const counter =
      p.counters + (static_cast<int64_t>(seq.b) * p.kv_heads + kv_head) * p.tiles + row_tile;
  __syncthreads();
  if (threadIdx.x == 0) *arrived = arrive(counter);
  __syncthreads();
  if (*arrived + 1 < (seen + kChunkKeys - 1) / kChunkKeys) return;
  if (threadIdx.x == 0) *counter = 0;
  for (int row = first_row + warp; row <= last_row; row += kWarps) join_row(p, seq, kv_head, row);
}

// Without counters.
template <int kWarps>
TRINE_GLOBAL void join_chunks(Params p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int row = static_cast<int>(at % p.split_rows);
  const int kv_head = static_cast<int>(at / p.split_rows % p.kv_heads);
  const int64_t b = at / p.split_rows / p.kv_heads;
  if (b >= p.sequences) return;
  const Sequence seq(p, static_cast<int>(b));
  if (!seq.is_short(p) || row >= seq.asked * (p.heads / p.kv_heads) || seq.keys <= kChunkKeys)
    return;
  join_row(p, seq, kv_head, row);
}

template <class T, int kD>
cudaError_t launch_split(Params p, cudaStream_t stream) {
  using D = SplitShape<T, kD>;
  p.tiles = (p.split_rows + 15) / 16;
  const int64_t blocks = int64_t{p.kv_heads} * p.sequences * p.tiles * p.chunks;
  const cudaError_t error =
      launch(split_rows<T, kD>, static_cast<unsigned>(blocks), 32 * D::kWarps, D::bytes, p, stream);
  if (error != cudaSuccess || p.shared_limit > 0 || p.chunks <= 1 || p.counters != nullptr)
    return error;
  constexpr int kWarps = 4;
  const int64_t rows = int64_t{p.sequences} * p.kv_heads * p.split_rows;
  TRINE_LAUNCH(join_chunks<kWarps>, static_cast<unsigned>((rows + kWarps - 1) / kWarps),
               32 * kWarps, 0, stream, p);
  return cudaPeekAtLastError();
}

template <class T>
cudaError_t launch_split_size(const Params& p, cudaStream_t stream) {
  if (p.head_dim <= 32) return launch_split<T, 32>(p, stream);
  if (p.head_dim <= 64) return launch_split<T, 64>(p, stream);
  if (p.head_dim <= 96) return launch_split<T, 96>(p, stream);
  if (p.head_dim <= 128) return launch_split<T, 128>(p, stream);
  return launch_split<T, 256>(p, stream);
}

}  // namespace trine::cuda::attend
