// SPDX-License-Identifier: Apache-2.0
// Kernels over rows. All are bound by memory or by the latency of a launch, so types are looked at
// when running (the branches are uniform): a kernel an op instead of one for each pair of types.
#pragma once

#include "exec/args.h"
#include "kernels/activate.cuh"
#include "kernels/rows_view.cuh"

namespace trine::cuda::rows {

// ---- Norms: a warp a row up to 1024 columns, then a block. Rows of up to 4 chunks a thread are
// held in registers; longer ones are read again.

enum class Norm { kLayer, kRms, kL2 };

struct NormParams {
  View x, y;
  View weight, bias;  // one row each, or without data
  int64_t rows;
  int cols;
  float eps;
};

template <int kThreads>
TRINE_DEV float group_sum(float x, float* partial) {
  x = warp_sum(x);
  if constexpr (kThreads > 32) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    __syncthreads();  // earlier sums have been read
    if (threadIdx.x % 32 == 0) partial[warp] = x;
    __syncthreads();
    x = 0.0f;
    for (int w = 0; w < kThreads / 32; ++w) x += partial[w];
  }
  return x;
}

inline constexpr int kHeld = 4;
inline constexpr int kNormBlock = 128;  // threads of a block, or kThreads if that is more

template <Norm kNorm, int kThreads>
TRINE_GLOBAL void norm_rows(NormParams p) {
  constexpr int kGroups = kThreads < kNormBlock ? kNormBlock / kThreads : 1;
  TRINE_SHARED(float, partial, kThreads / 32);
  const int thread = static_cast<int>(threadIdx.x) % kThreads;
  const int64_t row =
      static_cast<int64_t>(blockIdx.x) * kGroups + static_cast<int>(threadIdx.x) / kThreads;
  if (row >= p.rows) return;  // whole groups: a block of one group has a row
  const int chunks = (p.cols + kChunk - 1) / kChunk;
  const bool held = chunks <= kHeld * kThreads;
  float v[kHeld][kChunk];
  // Calls f(column, values) for this thread's chunks.
  const auto each = [&](auto f) {
    if (held) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        if (thread + i * kThreads < chunks) f((thread + i * kThreads) * kChunk, v[i]);
      }
    } else {
      for (int c = thread; c < chunks; c += kThreads) {
        load(p.x, row, c * kChunk, p.cols, v[0]);
        f(c * kChunk, v[0]);
      }
    }
  };
  if (held) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int col = (thread + i * kThreads) * kChunk;
      if (col < p.cols) load(p.x, row, col, p.cols, v[i]);
    }
  }
  const float count = static_cast<float>(p.cols);
  float mean = 0.0f;
  if constexpr (kNorm == Norm::kLayer) {
    float sum = 0.0f;
    each([&](int, const float (&x)[kChunk]) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) sum += x[i];
    });
    mean = group_sum<kThreads>(sum, partial) / count;
  }
  float squares = 0.0f;
  each([&](int col, const float (&x)[kChunk]) {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const float d = col + i < p.cols ? x[i] - mean : 0.0f;
      squares = fmaf(d, d, squares);
    }
  });
  squares = group_sum<kThreads>(squares, partial);
  float factor;
  if constexpr (kNorm == Norm::kL2) {
    factor = 1.0f / fmaxf(sqrtf(squares), p.eps);
  } else {
    factor = 1.0f / sqrtf(squares / count + p.eps);
  }
  each([&](int col, const float (&x)[kChunk]) {
    float y[kChunk], other[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) y[i] = (x[i] - mean) * factor;
    if (p.weight.data != nullptr) {
      load(p.weight, 0, col, p.cols, other);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) y[i] *= other[i];
    }
    if (p.bias.data != nullptr) {
      load(p.bias, 0, col, p.cols, other);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) y[i] += other[i];
    }
    store(p.y, row, col, p.cols, y);
  });
}

// ---- Chunk by chunk: a thread loads one of what an Op makes of its inputs, and stores it.

template <class Op>
TRINE_GLOBAL void map_chunks(Op op, View y, int64_t rows, int cols) {
  const uint32_t chunks = static_cast<uint32_t>((cols + kChunk - 1) / kChunk);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t row = at <= 0xffffffff ? static_cast<uint32_t>(at) / chunks : at / chunks;
  if (row >= rows) return;
  const int col = static_cast<int>(at - row * chunks) * kChunk;
  float v[kChunk];
  op(row, col, cols, v);
  store(y, row, col, cols, v);
}

struct CopyOp {
  View x;
  TRINE_DEV void operator()(int64_t row, int col, int cols, float (&v)[kChunk]) const {
    load(x, row, col, cols, v);
  }
};

struct ScaleOp {
  View x;
  float factor;
  TRINE_DEV void operator()(int64_t row, int col, int cols, float (&v)[kChunk]) const {
    load(x, row, col, cols, v);
#pragma unroll
    for (float& e : v) e *= factor;
  }
};

struct AddOp {
  View a, b;
  TRINE_DEV void operator()(int64_t row, int col, int cols, float (&v)[kChunk]) const {
    float w[kChunk];
    load(a, row, col, cols, v);
    load(b, row, col, cols, w);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] += w[i];
  }
};

struct ActivationOp {
  View x;
  Activation activation;
  TRINE_DEV void operator()(int64_t row, int col, int cols, float (&v)[kChunk]) const {
    load(x, row, col, cols, v);
    activate<false>(v, activation);
  }
};

struct GatedOp {
  View gate, up;
  Activation activation;
  TRINE_DEV void operator()(int64_t row, int col, int cols, float (&v)[kChunk]) const {
    float w[kChunk];
    load(gate, row, col, cols, v);
    load(up, row, col, cols, w);
    activate<false>(v, activation);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] *= w[i];
  }
};

struct EmbeddingOp {
  const int32_t* ids[trine::EmbeddingArgs::kMaxTables];
  View tables[trine::EmbeddingArgs::kMaxTables];
  int count;
  const void* scales;  // of a table of integers, whose ld counts bytes
  TRINE_DEV void operator()(int64_t row, int col, int cols, float (&v)[kChunk]) const {
    if (scales != nullptr) return load_integers(ids[0][row], col, cols, v);
    load(tables[0], ids[0][row], col, cols, v);
#pragma unroll
    for (int t = 1; t < trine::EmbeddingArgs::kMaxTables; ++t) {
      if (t >= count) break;
      float w[kChunk];
      load(tables[t], ids[t][row], col, cols, w);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v[i] += w[i];
    }
  }

  // Eight of a row as gpu/quantised.h has it.
  TRINE_DEV void load_integers(int64_t id, int col, int cols, float (&v)[kChunk]) const {
    const View& table = tables[0];
    const auto* const from = static_cast<const unsigned char*>(table.data) + id * table.ld;
    const bool nibbles = table.dtype == kInt4Groups;
    const int at = nibbles ? col / kGroup * (kGroup / 2) + col % (kGroup / 2) : col;
    const uint2 words = *reinterpret_cast<const uint2*>(from + at);
    if (table.dtype == DType::kI8) {
      const float scale = static_cast<const float*>(scales)[id];
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        const uint32_t word = i < 4 ? words.x : words.y;
        v[i] = scale * static_cast<float>(static_cast<int8_t>(word >> (i % 4 * 8)));
      }
      return;
    }
    const int64_t groups = (cols + kGroup - 1) / kGroup;
    const uint32_t pair = static_cast<const uint32_t*>(scales)[id * groups + col / kGroup];
    const float scale = half_to_float(static_cast<uint16_t>(pair & 0xffffu));
    const float minimum = half_to_float(static_cast<uint16_t>(pair >> 16));
    const int shift = nibbles && col % kGroup >= kGroup / 2 ? 4 : 0;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const uint32_t q = (i < 4 ? words.x : words.y) >> (i % 4 * 8 + shift);
      v[i] = fmaf(scale, static_cast<float>(q & (nibbles ? 15u : 255u)), minimum);
    }
  }
};

struct SpreadOp {
  View x;
  Ragged batch;
  TRINE_DEV void operator()(int64_t row, int col, int cols, float (&v)[kChunk]) const {
    load(x, sequence_of(batch, static_cast<int>(row)), col, cols, v);
  }
};

// `cols` is of a row of y: size rows of x side by side.
struct WindowsOp {
  View x;
  Ragged batch;
  int width, size;
  TRINE_DEV void operator()(int64_t row, int col, int cols, float (&v)[kChunk]) const {
    const int b = sequence_of(batch, static_cast<int>(row));
    const int begin = batch.offsets[b], end = batch.offsets[b + 1];
    const int first = static_cast<int>(row) - (size - 1) / 2;
    if (width % kChunk == 0) {
      const int from = first + col / width;
      if (from >= begin && from < end) return load(x, from, col % width, width, v);
#pragma unroll
      for (float& e : v) e = 0.0f;
      return;
    }
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const int from = first + (col + i) / width;
      const bool inside = col + i < cols && from >= begin && from < end;
      v[i] = inside ? load_one(x.data, x.dtype, from * x.ld + (col + i) % width) : 0.0f;
    }
  }
};

// ---- Positions and their angles

// A warp a sequence: 32 tokens at a time, numbered by a running count.
static TRINE_GLOBAL void number_tokens(const int32_t* ids, const int32_t* offsets,
                                       const int32_t* past, int32_t padding_idx, int32_t* y) {
  const int b = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x);
  const int begin = offsets[b], end = offsets[b + 1];
  int next = padding_idx + 1 + (past != nullptr && past[b] > 0 ? past[b] : 0);
  for (int first = begin; first < end; first += 32) {
    const int t = first + lane;
    const bool padding = t < end && padding_idx >= 0 && ids[t] == padding_idx;
    const int counts = t < end && !padding ? 1 : 0;
    int before = counts;  // inclusive
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_sync(0xffffffffu, before, lane >= step ? lane - step : lane);
      if (lane >= step) before += other;
    }
    if (t < end) y[t] = padding ? padding_idx : next + before - 1;
    next += __shfl_sync(0xffffffffu, before, 31);
  }
}

// As cpu/kernels/rotary-inl.h: modulo pi / 2 in two steps, good to 1e-9 for angles up to 2^24, then
// Taylor's series. Explicit fma, so that nothing is left to the compiler.
TRINE_DEV void sin_cos(double x, double& sine, double& cosine) {
  constexpr double kTwoOverPi = 0.63661977236758134308;
  constexpr double kPiHalfHigh = 1.57079632673412561417;
  constexpr double kPiHalfLow = 6.07710050650619224932e-11;
  const double quarter = rint(x * kTwoOverPi);
  const double r = fma(-quarter, kPiHalfLow, fma(-quarter, kPiHalfHigh, x));
  const double z = r * r;
  double s = fma(z, 1.0 / 362880, -1.0 / 5040);
  s = fma(z, s, 1.0 / 120);
  s = fma(z, s, -1.0 / 6);
  s = fma(r * z, s, r);
  double c = fma(z, -1.0 / 3628800, 1.0 / 40320);
  c = fma(z, c, -1.0 / 720);
  c = fma(z, c, 1.0 / 24);
  c = fma(z, c, -0.5);
  c = fma(z, c, 1.0);
  const auto turn = static_cast<int64_t>(quarter);
  sine = (turn & 1) != 0 ? c : s;
  cosine = (turn & 1) != 0 ? s : c;
  if ((turn & 2) != 0) sine = -sine;
  if (((turn + 1) & 2) != 0) cosine = -cosine;
}

// The power of two floats, rounded once from double: torch's, but where it rounds another way.
TRINE_DEV float power(float base, float exponent) {
  return static_cast<float>(pow(static_cast<double>(base), static_cast<double>(exponent)));
}

struct RotaryParams {
  const int32_t* positions;
  const float* inv_freq;
  const float* long_inv_freq;
  View y;
  int pairs;
  Ragged batch;
  const int32_t* lengths;
  float scaling;
  int32_t original_length;
  float base, factor;
};

// exec/rotary.cc, for one frequency.
TRINE_DEV float frequency(const RotaryParams& p, int token, int c) {
  if (p.original_length == 0) return p.inv_freq[c];
  const int b = sequence_of(p.batch, token);
  const int length =
      p.lengths != nullptr ? p.lengths[b] : p.batch.offsets[b + 1] - p.batch.offsets[b];
  if (length <= p.original_length) return p.inv_freq[c];
  if (p.long_inv_freq != nullptr) return p.long_inv_freq[c];
  const double dim = 2.0 * p.pairs;
  const float stretch =
      p.factor * static_cast<float>(length) / static_cast<float>(p.original_length) -
      (p.factor - 1);
  const float base = p.base * power(stretch, static_cast<float>(dim / (dim - 2)));
  return 1.0f / power(base, static_cast<float>(2 * c) / static_cast<float>(dim));
}

TRINE_DEV void store_one(const View& m, int64_t at, float x) {
  if (m.dtype == DType::kF32) {
    static_cast<float*>(m.data)[at] = x;
  } else {
    static_cast<bf16*>(m.data)[at] = __float2bfloat16(x);
  }
}

static TRINE_GLOBAL void rotary_rows(RotaryParams p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int token = static_cast<int>(at / p.pairs), c = static_cast<int>(at % p.pairs);
  if (token >= p.batch.tokens) return;
  const float angle = static_cast<float>(p.positions[token]) * frequency(p, token, c);
  double sine, cosine;
  sin_cos(static_cast<double>(angle), sine, cosine);
  const auto scaling = static_cast<double>(p.scaling);
  store_one(p.y, token * p.y.ld + c, static_cast<float>(cosine * scaling));
  store_one(p.y, token * p.y.ld + p.pairs + c, static_cast<float>(sine * scaling));
}

struct RopeParams {
  View x, table, y;
  int64_t rows;
  int heads, head_dim, half;
  bool vectors;  // all three views, and heads and halves start at whole chunks
};

// A thread turns a chunk of a head's first half with its partners, or copies one of the columns
// that are not turned; so y may be x.
static TRINE_GLOBAL void rope_rows(RopeParams p) {
  const int halves = (p.half + kChunk - 1) / kChunk;
  const int rest = (p.head_dim - 2 * p.half + kChunk - 1) / kChunk;
  const int items = halves + rest;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t row = at / (p.heads * items);
  if (row >= p.rows) return;
  const int in_row = static_cast<int>(at - row * p.heads * items);
  const int head = in_row / items * p.head_dim, item = in_row % items;
  View x = p.x, y = p.y, table = p.table;
  x.vectors = y.vectors = table.vectors = p.vectors;
  if (item >= halves) {
    float v[kChunk];
    const int col = head + 2 * p.half + (item - halves) * kChunk, end = head + p.head_dim;
    load(x, row, col, end, v);
    store(y, row, col, end, v);
    return;
  }
  float a[kChunk], b[kChunk], cosine[kChunk], sine[kChunk], left[kChunk], right[kChunk];
  const int c = item * kChunk;
  load(x, row, head + c, head + p.half, a);
  load(x, row, head + p.half + c, head + 2 * p.half, b);
  load(table, row, c, p.half, cosine);
  load(table, row, p.half + c, 2 * p.half, sine);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    left[i] = fmaf(a[i], cosine[i], -(b[i] * sine[i]));
    right[i] = fmaf(b[i], cosine[i], a[i] * sine[i]);
  }
  store(y, row, head + c, head + p.half, left);
  store(y, row, head + p.half + c, head + 2 * p.half, right);
}

// ---- Pooling: 8 chunks of columns of a sequence by 32 threads a chunk

inline constexpr int kPoolChunks = 8, kPoolWays = 32;

struct PoolParams {
  View x, y;
  const int32_t* skip;
  const int32_t* offsets;
  int cols;
  PoolMode mode;
};

// A NaN stays.
TRINE_DEV float larger(float a, float b) { return b > a || b != b ? b : a; }

static TRINE_GLOBAL void pool_rows(PoolParams p) {
  TRINE_SHARED(float, partial, kPoolWays* kPoolChunks* kChunk);
  const int groups = ((p.cols + kChunk - 1) / kChunk + kPoolChunks - 1) / kPoolChunks;
  const int b = static_cast<int>(blockIdx.x) / groups;
  const int lane = static_cast<int>(threadIdx.x) % kPoolChunks;
  const int way = static_cast<int>(threadIdx.x) / kPoolChunks;
  const int col = (static_cast<int>(blockIdx.x) % groups * kPoolChunks + lane) * kChunk;
  const int start = p.offsets[b], end = p.offsets[b + 1];
  int begin = start + (p.skip != nullptr ? p.skip[b] : 0);
  if (p.mode == PoolMode::kCls && begin >= end) begin = start;
  const bool one = p.mode == PoolMode::kCls || p.mode == PoolMode::kLastToken;
  const bool largest = p.mode == PoolMode::kMax;
  float v[kChunk], sum[kChunk];
#pragma unroll
  for (float& s : sum) s = largest ? -INFINITY : 0.0f;
  if (!one && col < p.cols) {
    for (int t = begin + way; t < end; t += kPoolWays) {
      load(p.x, t, col, p.cols, v);
      const float weight =
          p.mode == PoolMode::kWeightedMean ? static_cast<float>(t - start + 1) : 1.0f;
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        sum[i] = largest ? larger(sum[i], v[i]) : fmaf(weight, v[i], sum[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) partial[(way * kPoolChunks + lane) * kChunk + i] = sum[i];
  __syncthreads();
  if (way != 0 || col >= p.cols) return;
  if (begin >= end) {
#pragma unroll
    for (float& s : sum) s = 0.0f;
  } else if (one) {
    load(p.x, p.mode == PoolMode::kCls ? begin : end - 1, col, p.cols, sum);
  } else {
    for (int w = 1; w < kPoolWays; ++w) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        const float other = partial[(w * kPoolChunks + lane) * kChunk + i];
        sum[i] = largest ? larger(sum[i], other) : sum[i] + other;
      }
    }
    const double count = end - begin, before = begin - start;
    double by = 1.0;
    if (p.mode == PoolMode::kMean) by = count;
    if (p.mode == PoolMode::kMeanSqrtLen) by = sqrt(count);
    if (p.mode == PoolMode::kWeightedMean) by = count * (before + 0.5 * (count + 1));
    const float divisor = static_cast<float>(by);
#pragma unroll
    for (float& s : sum) s /= divisor;
  }
  store(p.y, b, col, p.cols, sum);
}

}  // namespace trine::cuda::rows
