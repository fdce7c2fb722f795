// SPDX-License-Identifier: Apache-2.0
// What attention kernels are made of: operands of mma in shared memory, and the copies that bring
// them there.
#pragma once

#include <cstring>

#include "kernels/attention.h"
#include "kernels/dialect.h"

namespace trine::cuda::attend {

inline constexpr float kLog2E = 1.44269504f;

struct Params {
  const void* q;
  const void* k;
  const void* v;
  int64_t ldq, ldk, ldv;
  const float* bias;
  int span;
  void* y;
  int64_t ldy;
  bool y_is_bf16;
  const int32_t* offsets;
  int sequences, heads, kv_heads, head_dim;
  float scale;  // times log2 e
  bool causal;
  Queries queries;
  const void* position_keys;
  const void* position_queries;
  int64_t ld_keys, ld_queries;
  const int32_t* position_at;
  int reach;
  KvPages cache;
  bool vectors;  // 16 bytes of any head's rows may be copied at once
  int stages;    // buffers for tiles of K and V: 1 or 2
  int tiles;     // of rows, in the longest sequence
  int chunks;    // of keys, in the longest sequence
  // attention_split.cuh: rows of a (sequence, key head) in `partial`, which has outputs, then
  // maxima and sums; a counter for each 16 of them.
  int split_rows;
  float* partial;
  int32_t* counters;
  int shared_limit;  // 0; else nothing is launched: whether a kernel fits so many bytes is asked
};

// How a tile is laid out in shared memory.
template <class T, int kD>
struct Shape {
  static constexpr int kBytes = kD * static_cast<int>(sizeof(T));
  static constexpr int kLd = kD + 16 / static_cast<int>(sizeof(T));
  static constexpr int kUnits = kBytes / 16;                                  // of a row
  static constexpr int kSteps = kBytes / 32;                                  // of mma along a row
  static constexpr int kTile = kBytes <= 256 ? 64 : kBytes <= 512 ? 32 : 16;  // keys
  static constexpr bool kHeldQueries = kBytes <= 256;                         // in registers
  static constexpr int kStep = 32 / static_cast<int>(sizeof(T));              // columns of a step
};

// ---- Operands of mma

template <class T, int n>
struct Fragment;

template <int n>
struct Fragment<bf16, n> {
  uint32_t bits[n];
  TRINE_DEV void set(int i, uint32_t raw) { bits[i] = raw; }
};

template <int n>
struct Fragment<float, n> {
  uint32_t high[n], low[n];
  TRINE_DEV void set(int i, uint32_t raw) {
    const float x = __uint_as_float(raw);
    high[i] = to_tf32(x);
    low[i] = to_tf32(x - __uint_as_float(high[i]));
  }
};

TRINE_DEV void multiply(float (&c)[4], const Fragment<bf16, 4>& a, const Fragment<bf16, 2>& b) {
  mma_m16n8k16_bf16(c, a.bits, b.bits);
}

TRINE_DEV void multiply(float (&c)[4], const Fragment<float, 4>& a, const Fragment<float, 2>& b) {
  mma_m16n8k8_tf32(c, a.low, b.high);
  mma_m16n8k8_tf32(c, a.high, b.low);
  mma_m16n8k8_tf32(c, a.high, b.high);
}

TRINE_DEV int lane_of() { return static_cast<int>(threadIdx.x) % 32; }

// Rows first .. first + 15, step k of the columns, as A.
template <class T, int kD>
TRINE_DEV void load_a(uint32_t (&raw)[4], const T* tile, int first, int k) {
  using S = Shape<T, kD>;
  const int lane = lane_of();
  ldmatrix_x4(raw, tile + (first + lane % 16) * S::kLd + k * S::kStep + lane / 16 * (S::kStep / 2));
}

// Rows first .. first + 15, step k of the columns, as two Bs whose columns are the rows.
template <class T, int kD>
TRINE_DEV void load_b(Fragment<T, 2> (&b)[2], const T* tile, int first, int k) {
  using S = Shape<T, kD>;
  const int lane = lane_of();
  uint32_t raw[4];
  ldmatrix_x4(raw, tile + (first + lane % 8 + lane / 16 * 8) * S::kLd + k * S::kStep +
                       lane / 8 % 2 * (S::kStep / 2));
#pragma unroll
  for (int i = 0; i < 4; ++i) b[i / 2].set(i % 2, raw[i]);
}

// ---- Copies into shared memory

// A block's threads over the 16 bytes of rows: the same columns for a thread all the way down.
template <class T, int kD, int kThreads>
struct Copy {
  using S = Shape<T, kD>;
  static constexpr int kElements = 16 / static_cast<int>(sizeof(T));
  static constexpr int kAcross = S::kUnits < kThreads ? S::kUnits : kThreads;
  static constexpr int kDown = kThreads / kAcross;

  // Rows 0 .. kRows - 1 of kD columns: row i from from + i * ld, zeros from row `valid` and column
  // head_dim on. All 16 bytes at once, in cp.async's current group.
  template <int kRows>
  static TRINE_DEV void rows(T* tile, const T* from, int64_t ld, int valid, const Params& p) {
    const int thread = static_cast<int>(threadIdx.x);
    if (kAcross * kDown < kThreads && thread >= kAcross * kDown) return;
    const int first = thread / kAcross;
#pragma unroll
    for (int unit = thread % kAcross; unit < S::kUnits; unit += kAcross) {
      const int col = unit * kElements;
      const int end = col < p.head_dim ? valid : 0;
      const T* source = from + first * ld + col;
      T* const to = tile + first * S::kLd + col;
      TRINE_UNROLL_COPIES
      for (int i = 0; i < kRows; i += kDown) {
        if (kRows % kDown != 0 && first + i >= kRows) break;
        cp_async16_zfill(to + i * S::kLd, source, first + i < end);
        source += kDown * ld;
      }
    }
  }

  // Row i from at(i), or zeros where that is null; of any alignment. For the few tiles of which
  // this must be said, so kept small.
  template <class At>
  static TRINE_DEV void picked(T* tile, int rows, const Params& p, const At& at) {
    if (p.vectors) {
#pragma unroll 1
      for (int i = static_cast<int>(threadIdx.x); i < rows * S::kUnits; i += kThreads) {
        const int row = i / S::kUnits, col = i % S::kUnits * kElements;
        const T* from = at(row);
        const bool valid = from != nullptr && col < p.head_dim;
        cp_async16_zfill(tile + row * S::kLd + col, valid ? from + col : static_cast<const T*>(p.q),
                         valid);
      }
      return;
    }
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < rows * kD; i += kThreads) {
      const int row = i / kD, col = i % kD;
      const T* from = at(row);
      T value;
      if (from != nullptr && col < p.head_dim) {
        value = from[col];
      } else {
        memset(&value, 0, sizeof value);
      }
      tile[row * S::kLd + col] = value;
    }
  }
};

// Where the keys and values of one sequence and one key head are: those of this run in k and v,
// earlier ones in pages.
template <class T>
struct Keys {
  const T* k;
  const T* v;
  int in_page = -1;  // where this head's part of a page begins; below 0: no cache
  int table = 0;     // where this sequence's part of the table of pages begins
  int past, count;

  TRINE_DEV Keys(const Params& p, int b, int kv_head, int first, int past_, int count_)
      : past(past_ > 0 ? past_ : 0), count(count_) {
    k = static_cast<const T*>(p.k) + first * p.ldk + kv_head * p.head_dim;
    v = static_cast<const T*>(p.v) + first * p.ldv + kv_head * p.head_dim;
    if (past_ >= 0 && p.cache.data != nullptr) {
      in_page = kv_head * KvPages::kTokens * p.head_dim;
      table = static_cast<int>(b * p.cache.table_ld);
    }
  }

  // This head's part of the page that the sequence's token `at` lies in. Pointers are made when
  // they are needed: registers are few.
  TRINE_DEV T* page_of(int at, const Params& p) const {
    const int page = p.cache.table[table + at / KvPages::kTokens];
    return static_cast<T*>(p.cache.data) + in_page + page * p.cache.page_stride +
           at % KvPages::kTokens * p.head_dim;
  }

  // Parts begin .. end - 1 (0: K, 1: V) of tile `tile`, to `to` and on. A tile lies in one page.
  template <int kD, int kThreads>
  TRINE_DEV void copy(T* to, int tile, int begin, int end, const Params& p) const {
    using S = Shape<T, kD>;
    using Part = Copy<T, kD, kThreads>;
    static_assert(KvPages::kTokens % S::kTile == 0);
    const int at = tile * S::kTile, valid = count - at, old = past - at;
    const T* const page = old > 0 ? page_of(at, p) : nullptr;
    const bool of_page = old >= min(valid, S::kTile);
#pragma unroll 1
    for (int part = begin; part < end; ++part, to += S::kTile * S::kLd) {
      const T* paged = nullptr;
      if (page != nullptr) paged = page + (part == 0 ? p.cache.keys : p.cache.values);
      const int64_t ld = part == 0 ? p.ldk : p.ldv;
      const T* const rows = (part == 0 ? k : v) - old * ld;
      if (p.vectors && (old <= 0 || of_page)) {
        Part::template rows<S::kTile>(to, of_page ? paged : rows, of_page ? p.head_dim : ld, valid,
                                      p);
      } else {
        Part::picked(to, S::kTile, p, [&](int i) {
          return i >= valid ? nullptr : i < old ? paged + i * p.head_dim : rows + i * ld;
        });
      }
    }
  }

  // This run's tokens begin .. end - 1 to their places in the pages. Nobody reads them there
  // before the next run.
  TRINE_DEV void append(int begin, int end, const Params& p) const {
    const auto to = [&](int token) { return page_of(past + token, p); };
    const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
    if (p.vectors) {
      constexpr int kElements = 16 / static_cast<int>(sizeof(T));
      const int units = p.head_dim / kElements;
      for (int i = thread; i < (end - begin) * units; i += threads) {
        const int token = begin + i / units, col = i % units * kElements;
        T* const page = to(token);
        *reinterpret_cast<uint4*>(page + p.cache.keys + col) =
            *reinterpret_cast<const uint4*>(k + token * p.ldk + col);
        *reinterpret_cast<uint4*>(page + p.cache.values + col) =
            *reinterpret_cast<const uint4*>(v + token * p.ldv + col);
      }
      return;
    }
    for (int i = thread; i < (end - begin) * p.head_dim; i += threads) {
      const int token = begin + i / p.head_dim, col = i % p.head_dim;
      T* const page = to(token);
      page[p.cache.keys + col] = k[token * p.ldk + col];
      page[p.cache.values + col] = v[token * p.ldv + col];
    }
  }
};

// ---- Results

TRINE_DEV void store_pair(const Params& p, int64_t row, int col, int end, float a, float b) {
  if (p.y_is_bf16) {
    bf16* to = static_cast<bf16*>(p.y) + row * p.ldy + col;
    if (col + 1 < end && (reinterpret_cast<uintptr_t>(to) & 3) == 0) {
      *reinterpret_cast<uint32_t*>(to) = pack2_bf16(a, b);
      return;
    }
    if (col < end) to[0] = __float2bfloat16(a);
    if (col + 1 < end) to[1] = __float2bfloat16(b);
  } else {
    float* to = static_cast<float*>(p.y) + row * p.ldy + col;
    if (col + 1 < end && (reinterpret_cast<uintptr_t>(to) & 7) == 0) {
      *reinterpret_cast<float2*>(to) = make_float2(a, b);
      return;
    }
    if (col < end) to[0] = a;
    if (col + 1 < end) to[1] = b;
  }
}

// By all of a block.
TRINE_DEV void store_zeros(const Params& p, int64_t row, int col, int end) {
  for (col += static_cast<int>(threadIdx.x) * 2; col < end; col += 2 * static_cast<int>(blockDim.x))
    store_pair(p, row, col, end, 0.0f, 0.0f);
}

}  // namespace trine::cuda::attend
