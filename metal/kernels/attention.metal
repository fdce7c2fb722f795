// SPDX-License-Identifier: Apache-2.0
// Attention by tiles of keys with a running softmax (Dao et al. 2022), for ragged sequences. A
// threadgroup has rows of one key head, a row being a query of one of the heads that share it, so
// that keys and values are read once for all of them. They pass through one place in threadgroup
// memory as float, K and then V.
//
// Sums run over kChunkKeys keys, and chunks are joined in order: for a short sequence with a cache
// (decoding, bound by the memory of the keys) each chunk has a threadgroup of its own, and
// attention_join does what a threadgroup that goes through all of them does. So the bits are the
// same.
#include "kernels/attention_parts.h"

using namespace trine::metal;

// The sizes of a kernel: 32 KiB of threadgroup memory are for queries, keys or values, and scores.
template <int kD>
struct Sizes {
  TRINE_CONST int kTile = kD <= 64 ? 32 : kD <= 128 ? 16 : 8;
  TRINE_CONST int kMany = kD <= 128 ? 4 : 2;  // simdgroups
};

// How a chunk's row joins the chunks before it.
struct Join {
  float before, now;  // factors
};
inline Join join(thread float& largest, thread float& sum, float chunk_largest, float chunk_sum) {
  const float top = fmax(largest, chunk_largest);
  const float before = exp2(largest - top), now = exp2(chunk_largest - top);
  largest = top;
  sum = fma(chunk_sum, now, sum * before);
  return {before, now};
}

template <int kD>
inline void join_row(thread Row<kD>& total, const thread Row<kD>& chunk) {
  // A chunk that a row doesn't see, but another row of the tile does, is nothing to it.
  if (chunk.largest == -INFINITY) return;
  if (total.largest == -INFINITY) {
    total = chunk;
    return;
  }
  const Join by = join(total.largest, total.sum, chunk.largest, chunk.sum);
#pragma unroll
  for (int i = 0; i < kD / 4; ++i)
    total.out[i] = fma(chunk.out[i], by.now, total.out[i] * by.before);
}

// A sequence as a threadgroup sees it.
struct Sequence {
  int b, first, length;  // rows of k and v in this run
  int past;              // tokens in the cache; below 0: no cache
  int keys;
  int rows;  // queries times heads of a key head
  bool is_short;
};

inline Sequence sequence(constant AttentionArgs& args, int b, device const int32_t* offsets,
                         device const int32_t* past) {
  Sequence s;
  const int of_key_head = args.heads / args.kv_heads;
  s.b = b;
  s.first = offsets[b];
  s.length = offsets[b + 1] - s.first;
  s.past = args.pages.cached != 0 ? past[b] : -1;
  s.keys = s.length + (s.past > 0 ? s.past : 0);
  s.rows = (args.queries == kAllQueries ? s.length : s.length > 0 ? 1 : 0) * of_key_head;
  s.is_short = s.past >= 0 && (s.length == 1 || s.length * of_key_head <= kShortRows);
  return s;
}

// Keys that a row sees.
inline int seen_by(constant AttentionArgs& args, Sequence s, int row) {
  const int token = token_of(args.queries, row / (args.heads / args.kv_heads), s.length);
  return args.causal != 0 ? s.keys - s.length + token + 1 : s.keys;
}

inline int64_t query_row(constant AttentionArgs& args, Sequence s, int row) {
  return args.queries == kAllQueries ? s.first + row / (args.heads / args.kv_heads) : s.b;
}

// Where a row's part of `partial` begins: outputs [..][chunks][head_dim], then [..][chunks][2].
inline int64_t partial_row(constant AttentionArgs& args, int b, int kv_head, int row) {
  return ((int64_t(b) * args.kv_heads + kv_head) * args.partial_rows + row) * args.chunks;
}
inline int64_t partial_scalars(constant AttentionArgs& args, int64_t at) {
  return int64_t(args.sequences) * args.kv_heads * args.partial_rows * args.chunks * args.head_dim +
         at * 2;
}

// The first element of a key head's columns in a page.
inline int64_t page_element(constant Pages& pages, device const int32_t* table, int b, int kv_head,
                            int token, int head_dim) {
  const int64_t page = table[int64_t(b) * pages.table_ld + token / kPageTokens];
  return pages.first + page * pages.page_stride +
         (int64_t(kv_head) * kPageTokens + token % kPageTokens) * head_dim;
}

inline bool pages_aligned(constant Pages& pages) {
  return pages.first % 4 == 0 && pages.page_stride % 4 == 0 && pages.keys % 4 == 0 &&
         pages.values % 4 == 0;
}

template <class T, int kD, int kSimds>
kernel void attention(device const char* q [[buffer(0)]], device const char* k [[buffer(1)]],
                      device const char* v [[buffer(2)]], device char* y [[buffer(3)]],
                      device const int32_t* offsets [[buffer(4)]],
                      device const float* bias [[buffer(5)]],
                      device const char* pages [[buffer(6)]],
                      device const int32_t* table [[buffer(7)]],
                      device const int32_t* past [[buffer(8)]], device float* partial [[buffer(9)]],
                      constant AttentionArgs& args [[buffer(10)]], TRINE_THREAD) {
  const int kTile = Sizes<kD>::kTile, kRows = 8 * kSimds, kThreads = 32 * kSimds;
  const int32_t kDType = TypeOf<T>::kDType;
  TRINE_SHARED(float4, query_memory, 8 * kSimds * padded(kD) / 4);
  TRINE_SHARED(float4, key_memory, Sizes<kD>::kTile * padded(kD) / 4);
  TRINE_SHARED(float4, score_memory, 8 * kSimds * padded(Sizes<kD>::kTile) / 4);
  threadgroup float* const queries = (threadgroup float*)query_memory;
  threadgroup float* const tile = (threadgroup float*)key_memory;
  threadgroup float* const scores =
      (threadgroup float*)score_memory + int(simd) * 8 * padded(kTile);

  const int dim = args.head_dim, of_key_head = args.heads / args.kv_heads;
  const int kv_head = int(group.x) % args.kv_heads, chunk = int(group.x) / args.kv_heads;
  // Those of many keys first.
  const int first_row = (args.row_tiles - 1 - int(group.y)) * kRows;
  const Sequence seq = sequence(args, int(group.z), offsets, past);
  if (args.part != kAnyLength && seq.is_short != (args.part == kShort)) return;
  if (args.queries != kAllQueries && seq.length == 0 && first_row == 0 && chunk == 0) {
    const int64_t to = args.y.first + int64_t(seq.b) * args.y.ld + kv_head * of_key_head * dim;
    for (int c = int(thread_id); c < of_key_head * dim; c += kThreads)
      store1(y, args.y.dtype, to + c, 0.0f);
  }
  if (first_row >= seq.rows) return;
  // Keys below `end` for the last row; all from there on are masked, or don't exist.
  const int end = seen_by(args, seq, min(first_row + kRows, seq.rows) - 1);
  const int begin = chunk * kChunkKeys;
  const int stop = args.chunks > 1 ? min(end, begin + kChunkKeys) : end;
  if (begin >= stop) return;

  const bool whole = dim % 4 == 0;
  for (int i = int(thread_id); i < kRows * (kD / 4); i += kThreads) {
    const int row = first_row + i / (kD / 4);
    const int head = kv_head * of_key_head + row % of_key_head;
    const int64_t at =
        args.q.first + query_row(args, seq, min(row, seq.rows - 1)) * args.q.ld + head * dim;
    copy_quad(queries + i / (kD / 4) * padded(kD), q, kDType, whole && args.q.vectors != 0, at,
              row < seq.rows ? dim : 0, i % (kD / 4));
  }

  const int row = first_row + int(simd) * 8 + int(lane) / 4;  // this lane's
  const int row_or_last = min(row, seq.rows - 1);
  const int head = kv_head * of_key_head + row_or_last % of_key_head;
  const int seen = seen_by(args, seq, row_or_last);
  const int token = token_of(args.queries, row_or_last / of_key_head, seq.length);
  const float scale = args.scale * kLog2E;
  const bool paged = seq.past >= 0;
  const bool key_vectors = whole && (paged ? pages_aligned(args.pages) : args.k.vectors != 0);
  const bool value_vectors = whole && (paged ? pages_aligned(args.pages) : args.v.vectors != 0);
  Row<kD> state, total;
  clear(state);
  clear(total);

  for (int key0 = begin; key0 < stop; key0 += kTile) {
    if (key0 > begin && key0 % kChunkKeys == 0) {
      join_row(total, state);
      clear(state);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the tile before has been read
    for (int i = int(thread_id); i < kTile * (kD / 4); i += kThreads) {
      const int key = key0 + i / (kD / 4);
      int64_t at = args.k.first + int64_t(seq.first + key) * args.k.ld + kv_head * dim;
      if (paged && key < stop)
        at = page_element(args.pages, table, seq.b, kv_head, key, dim) + args.pages.keys;
      copy_quad(tile + i / (kD / 4) * padded(kD), paged ? pages : k, kDType, key_vectors, at,
                key < stop ? dim : 0, i % (kD / 4));
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    multiply_transposed<kD, kTile>(scores, padded(kTile), queries + int(simd) * 8 * padded(kD),
                                   tile);
    threadgroup_barrier(mem_flags::mem_threadgroup);  // keys have been read
    for (int i = int(thread_id); i < kTile * (kD / 4); i += kThreads) {
      const int key = key0 + i / (kD / 4);
      int64_t at = args.v.first + int64_t(seq.first + key) * args.v.ld + kv_head * dim;
      if (paged && key < stop)
        at = page_element(args.pages, table, seq.b, kv_head, key, dim) + args.pages.values;
      copy_quad(tile + i / (kD / 4) * padded(kD), paged ? pages : v, kDType, value_vectors, at,
                key < stop ? dim : 0, i % (kD / 4));
    }

    float s[Sizes<kD>::kTile / 4];
    const int own = int(lane) % 4 * (kTile / 4);
#pragma unroll
    for (int i = 0; i < kTile / 4; ++i) {
      const int key = key0 + own + i;
      s[i] = scores[int(lane) / 4 * padded(kTile) + own + i] * scale;
      if (args.span != 0 && key < seen) {
        const int64_t at = int64_t(head) * (2 * args.span - 1) + key - token + args.span - 1;
        s[i] = fma(bias[args.bias_first + at], kLog2E, s[i]);
      }
      if (key >= seen) s[i] = -INFINITY;
    }
    const float shrink = soften<kD, Sizes<kD>::kTile>(state, s, scores, lane);
    threadgroup_barrier(mem_flags::mem_threadgroup);  // values and exponentials are there
    add_values<kD, Sizes<kD>::kTile>(state, shrink, scores, tile, lane);
  }

  if (row >= seq.rows) return;
  if (args.chunks > 1) {
    const int64_t at = partial_row(args, seq.b, kv_head, row) + chunk;
    store_row<kD, Sizes<kD>::kTile>(state, 1.0f, (device char*)partial, kF32, whole, at * dim, dim,
                                    lane);
    if (lane % 4 == 0) {
      partial[partial_scalars(args, at)] = state.largest;
      partial[partial_scalars(args, at) + 1] = state.sum;
    }
    return;
  }
  join_row(total, state);
  store_row<kD, Sizes<kD>::kTile>(
      total, 1.0f / total.sum, y, args.y.dtype, whole && args.y.vectors != 0,
      args.y.first + query_row(args, seq, row) * args.y.ld + head * dim, dim, lane);
}

#define TRINE_ATTENTION(name, T)                                    \
  TRINE_KERNEL(attention_##name##_d64_few, attention<T, 64, 1>);    \
  TRINE_KERNEL(attention_##name##_d64_many, attention<T, 64, 4>);   \
  TRINE_KERNEL(attention_##name##_d128_few, attention<T, 128, 1>);  \
  TRINE_KERNEL(attention_##name##_d128_many, attention<T, 128, 4>); \
  TRINE_KERNEL(attention_##name##_d256_few, attention<T, 256, 1>);  \
  TRINE_KERNEL(attention_##name##_d256_many, attention<T, 256, 2>)
TRINE_ATTENTION(f32, float);
TRINE_ATTENTION(f16, half);
TRINE_ATTENTION(bf16, ushort);

// A simdgroup a row.
kernel void attention_join(device const char* q [[buffer(0)]], device const char* k [[buffer(1)]],
                           device const char* v [[buffer(2)]], device char* y [[buffer(3)]],
                           device const int32_t* offsets [[buffer(4)]],
                           device const float* bias [[buffer(5)]],
                           device const char* pages [[buffer(6)]],
                           device const int32_t* table [[buffer(7)]],
                           device const int32_t* past [[buffer(8)]],
                           device const float* partial [[buffer(9)]],
                           constant AttentionArgs& args [[buffer(10)]], TRINE_THREAD) {
  const int row = int(group.x) * 4 + int(simd), kv_head = int(group.y), dim = args.head_dim;
  const Sequence seq = sequence(args, int(group.z), offsets, past);
  if (!seq.is_short || row >= seq.rows) return;
  const int chunks = (seen_by(args, seq, row) + kChunkKeys - 1) / kChunkKeys;
  const int head = kv_head * (args.heads / args.kv_heads) + row % (args.heads / args.kv_heads);
  const int64_t from = partial_row(args, seq.b, kv_head, row);
  const int64_t scalars = partial_scalars(args, from);
  const int64_t to = args.y.first + query_row(args, seq, row) * args.y.ld + head * dim;
  for (int c = int(lane); c < dim; c += 32) {
    float largest = partial[scalars], sum = partial[scalars + 1], out = partial[from * dim + c];
    for (int chunk = 1; chunk < chunks; ++chunk) {
      const Join by =
          join(largest, sum, partial[scalars + 2 * chunk], partial[scalars + 2 * chunk + 1]);
      out = fma(partial[(from + chunk) * dim + c], by.now, out * by.before);
    }
    store1(y, args.y.dtype, to + c, out * (1.0f / sum));
  }
}
TRINE_OWN_KERNEL(attention_join);

// Four columns of a key head a thread, of k and of v.
template <class T>
kernel void append_kv(device const char* k [[buffer(0)]], device const char* v [[buffer(1)]],
                      device char* pages [[buffer(2)]], device const int32_t* offsets [[buffer(3)]],
                      device const int32_t* table [[buffer(4)]],
                      device const int32_t* past [[buffer(5)]],
                      constant AppendKvArgs& args [[buffer(6)]], TRINE_THREAD) {
  const uint at = group.x * 256 + thread_id, quads = uint(args.head_dim + 3) / 4;
  const uint of_token = uint(args.kv_heads) * quads;
  const int token = int(at / of_token), kv_head = int(at % of_token / quads);
  if (token >= args.tokens) return;
  const int col = int(at % quads) * 4, count = args.head_dim - col;
  const int b = sequence_of(offsets, args.sequences, token);
  if (past[b] < 0) return;
  const int64_t to =
      page_element(args.pages, table, b, kv_head, past[b] + token - offsets[b], args.head_dim) +
      col;
  const int from = kv_head * args.head_dim + col;
  const bool whole = args.head_dim % 4 == 0, vectors = whole && pages_aligned(args.pages);
  float x[4];
  load4_at(k, args.k.dtype, whole && args.k.vectors != 0,
           args.k.first + int64_t(token) * args.k.ld + from, count, x);
  store4_at(pages, TypeOf<T>::kDType, vectors, to + args.pages.keys, count, x);
  load4_at(v, args.v.dtype, whole && args.v.vectors != 0,
           args.v.first + int64_t(token) * args.v.ld + from, count, x);
  store4_at(pages, TypeOf<T>::kDType, vectors, to + args.pages.values, count, x);
}
TRINE_KERNEL(append_kv_f32, append_kv<float>);
TRINE_KERNEL(append_kv_f16, append_kv<half>);
TRINE_KERNEL(append_kv_bf16, append_kv<ushort>);
