// SPDX-License-Identifier: Apache-2.0
// Kernels over rows. All are bound by memory or by the latency of a dispatch, so types are looked
// at when running (the branches are uniform).
#include "kernels/activate.h"
#include "kernels/quads.h"
#include "kernels/quantised.h"
#include "kernels/rows.h"

using namespace trine::metal;

// ---- Norms: a simdgroup a row up to kNormCols columns, then a threadgroup of eight. The first
// eight quads of a thread are held in registers; longer rows are read again.

TRINE_CONST int kLayer = 0;
TRINE_CONST int kRms = 1;
TRINE_CONST int kL2 = 2;
TRINE_CONST int kHeld = 8;

// The same in all threads of a row. `partial`: a float for each simdgroup.
template <int kSimds>
inline float sum_of_row(float x, threadgroup float* partial, uint lane, uint simd) {
  x = sum_of_lanes(x);
  if (kSimds == 1) return x;
  threadgroup_barrier(mem_flags::mem_threadgroup);  // earlier sums have been read
  if (lane == 0) partial[simd] = x;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  x = 0.0f;
  for (int s = 0; s < kSimds; ++s) x += partial[s];
  return x;
}

// (v - mean) * factor * weight + bias, for one quad.
inline void store_normed(thread float (&v)[4], float mean, float factor, device const float* weight,
                         device const float* bias, device char* y, constant NormArgs& args,
                         int64_t row, int col) {
  const int count = args.cols - col;
  float other[4];
  for (int c = 0; c < 4; ++c) v[c] = (v[c] - mean) * factor;
  if (args.has_weight != 0) {
    load4_at((device const char*)weight, kF32, args.weight_first % 4 == 0, args.weight_first + col,
             count, other);
    for (int c = 0; c < 4; ++c) v[c] *= other[c];
  }
  if (args.has_bias != 0) {
    load4_at((device const char*)bias, kF32, args.bias_first % 4 == 0, args.bias_first + col, count,
             other);
    for (int c = 0; c < 4; ++c) v[c] += other[c];
  }
  store4(y, args.y, row, col, args.cols, v);
}

// kSimds: of a row.
template <int kNorm, int kSimds>
kernel void norm(device const char* x [[buffer(0)]], device const float* weight [[buffer(1)]],
                 device const float* bias [[buffer(2)]], device char* y [[buffer(3)]],
                 constant NormArgs& args [[buffer(4)]], TRINE_THREAD) {
  TRINE_SHARED(float, partial, 8);
  const int kThreads = kSimds * 32, cols = args.cols, quads = (cols + 3) / 4;
  const int64_t row = kSimds == 1 ? int64_t(group.x) * 4 + simd : int64_t(group.x);
  const int own = kSimds == 1 ? int(lane) : int(thread_id);
  if (row >= args.rows) return;  // whole simdgroups; a threadgroup of one row has it
  const bool held = quads <= kHeld * kThreads;
  float v[kHeld][4];

  float sum = 0.0f;
  if (held) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int col = (own + i * kThreads) * 4;
      for (int c = 0; c < 4; ++c) v[i][c] = 0.0f;
      if (col < cols) load4(x, args.x, row, col, cols, v[i]);
      for (int c = 0; c < 4; ++c) sum += v[i][c];
    }
  } else if (kNorm == kLayer) {
    for (int q = own; q < quads; q += kThreads) {
      load4(x, args.x, row, q * 4, cols, v[0]);
      for (int c = 0; c < 4; ++c) sum += v[0][c];
    }
  }
  float mean = 0.0f;
  if (kNorm == kLayer) mean = sum_of_row<kSimds>(sum, partial, lane, simd) / float(cols);

  float squares = 0.0f;
  if (held) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      for (int c = 0; c < 4; ++c) {
        const bool exists = (own + i * kThreads) * 4 + c < cols;
        const float d = exists ? v[i][c] - mean : 0.0f;
        squares = fma(d, d, squares);
      }
    }
  } else {
    for (int q = own; q < quads; q += kThreads) {
      load4(x, args.x, row, q * 4, cols, v[0]);
      for (int c = 0; c < 4; ++c) {
        const float d = q * 4 + c < cols ? v[0][c] - mean : 0.0f;
        squares = fma(d, d, squares);
      }
    }
  }
  squares = sum_of_row<kSimds>(squares, partial, lane, simd);
  const float root =
      kNorm == kL2 ? fmax(sqrt(squares), args.eps) : sqrt(squares / float(cols) + args.eps);
  const float factor = 1.0f / root;

  if (held) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int col = (own + i * kThreads) * 4;
      if (col < cols) store_normed(v[i], mean, factor, weight, bias, y, args, row, col);
    }
  } else {
    for (int q = own; q < quads; q += kThreads) {
      load4(x, args.x, row, q * 4, cols, v[0]);
      store_normed(v[0], mean, factor, weight, bias, y, args, row, q * 4);
    }
  }
}

TRINE_KERNEL(layer_norm, norm<kLayer, 1>);
TRINE_KERNEL(layer_norm_wide, norm<kLayer, 8>);
TRINE_KERNEL(rms_norm, norm<kRms, 1>);
TRINE_KERNEL(rms_norm_wide, norm<kRms, 8>);
TRINE_KERNEL(l2_normalize, norm<kL2, 1>);
TRINE_KERNEL(l2_normalize_wide, norm<kL2, 8>);

// ---- Four columns a thread

struct Place {
  int64_t row;
  int col;
};

// Of thread `at` among all; beyond the last row if there is none.
inline Place place_of(uint group, uint thread_id, int cols) {
  const uint at = group * 256 + thread_id, quads = uint(cols + 3) / 4;
  return {int64_t(at / quads), int(at % quads) * 4};
}

kernel void embedding(device const int32_t* ids0 [[buffer(0)]],
                      device const int32_t* ids1 [[buffer(1)]],
                      device const int32_t* ids2 [[buffer(2)]],
                      device const char* table0 [[buffer(3)]],
                      device const char* table1 [[buffer(4)]],
                      device const char* table2 [[buffer(5)]], device char* y [[buffer(6)]],
                      constant EmbeddingArgs& args [[buffer(7)]], TRINE_THREAD) {
  const Place at = place_of(group.x, thread_id, args.cols);
  if (at.row >= args.rows) return;
  float v[4], w[4];
  const int id = ids0[args.ids_first[0] + at.row];
  if (args.tables[0].dtype > kBF16) {
    load4_quantised(table0, args.tables[0], args.table_rows, args.cols, id, at.col, v);
  } else {
    load4(table0, args.tables[0], id, at.col, args.cols, v);
  }
  if (args.count > 1) {
    load4(table1, args.tables[1], ids1[args.ids_first[1] + at.row], at.col, args.cols, w);
    for (int i = 0; i < 4; ++i) v[i] += w[i];
  }
  if (args.count > 2) {
    load4(table2, args.tables[2], ids2[args.ids_first[2] + at.row], at.col, args.cols, w);
    for (int i = 0; i < 4; ++i) v[i] += w[i];
  }
  store4(y, args.y, at.row, at.col, args.cols, v);
}
TRINE_OWN_KERNEL(embedding);

kernel void activation(device const char* a [[buffer(0)]], device char* y [[buffer(1)]],
                       constant MapArgs& args [[buffer(2)]], TRINE_THREAD) {
  const Place at = place_of(group.x, thread_id, args.cols);
  if (at.row >= args.rows) return;
  float v[4];
  load4(a, args.a, at.row, at.col, args.cols, v);
  activate4(v, args.activation);
  store4(y, args.y, at.row, at.col, args.cols, v);
}
TRINE_OWN_KERNEL(activation);

kernel void scale(device const char* a [[buffer(0)]], device char* y [[buffer(1)]],
                  constant MapArgs& args [[buffer(2)]], TRINE_THREAD) {
  const Place at = place_of(group.x, thread_id, args.cols);
  if (at.row >= args.rows) return;
  float v[4];
  load4(a, args.a, at.row, at.col, args.cols, v);
  for (int i = 0; i < 4; ++i) v[i] *= args.factor;
  store4(y, args.y, at.row, at.col, args.cols, v);
}
TRINE_OWN_KERNEL(scale);

kernel void copy_columns(device const char* a [[buffer(0)]], device char* y [[buffer(1)]],
                         constant MapArgs& args [[buffer(2)]], TRINE_THREAD) {
  const Place at = place_of(group.x, thread_id, args.cols);
  if (at.row >= args.rows) return;
  float v[4];
  load4(a, args.a, at.row, at.col, args.cols, v);
  store4(y, args.y, at.row, at.col, args.cols, v);
}
TRINE_OWN_KERNEL(copy_columns);

kernel void add(device const char* a [[buffer(0)]], device const char* b [[buffer(1)]],
                device char* y [[buffer(2)]], constant MapArgs& args [[buffer(3)]], TRINE_THREAD) {
  const Place at = place_of(group.x, thread_id, args.cols);
  if (at.row >= args.rows) return;
  float v[4], w[4];
  load4(a, args.a, at.row, at.col, args.cols, v);
  load4(b, args.b, at.row, at.col, args.cols, w);
  for (int i = 0; i < 4; ++i) v[i] += w[i];
  store4(y, args.y, at.row, at.col, args.cols, v);
}
TRINE_OWN_KERNEL(add);

kernel void gated(device const char* a [[buffer(0)]], device const char* b [[buffer(1)]],
                  device char* y [[buffer(2)]], constant MapArgs& args [[buffer(3)]],
                  TRINE_THREAD) {
  const Place at = place_of(group.x, thread_id, args.cols);
  if (at.row >= args.rows) return;
  float v[4], w[4];
  load4(a, args.a, at.row, at.col, args.cols, v);
  load4(b, args.b, at.row, at.col, args.cols, w);
  activate4(v, args.activation);
  for (int i = 0; i < 4; ++i) v[i] *= w[i];
  store4(y, args.y, at.row, at.col, args.cols, v);
}
TRINE_OWN_KERNEL(gated);

kernel void spread(device const char* x [[buffer(0)]], device const int32_t* offsets [[buffer(1)]],
                   device char* y [[buffer(2)]], constant SpreadArgs& args [[buffer(3)]],
                   TRINE_THREAD) {
  const Place at = place_of(group.x, thread_id, args.cols);
  if (at.row >= args.tokens) return;
  float v[4];
  load4(x, args.x, sequence_of(offsets, args.sequences, int(at.row)), at.col, args.cols, v);
  store4(y, args.y, at.row, at.col, args.cols, v);
}
TRINE_OWN_KERNEL(spread);

kernel void windows(device const char* x [[buffer(0)]], device const int32_t* offsets [[buffer(1)]],
                    device char* y [[buffer(2)]], constant SpreadArgs& args [[buffer(3)]],
                    TRINE_THREAD) {
  const int cols = args.cols * args.size;
  const Place at = place_of(group.x, thread_id, cols);
  if (at.row >= args.tokens) return;
  const int b = sequence_of(offsets, args.sequences, int(at.row));
  const int first = int(at.row) - (args.size - 1) / 2;
  float v[4];
  for (int i = 0; i < 4; ++i) {
    const int col = at.col + i, from = first + col / args.cols;
    const bool inside = col < cols && from >= offsets[b] && from < offsets[b + 1];
    const int64_t element = args.x.first + int64_t(from) * args.x.ld + col % args.cols;
    v[i] = inside ? load1(x, args.x.dtype, element) : 0.0f;
  }
  store4(y, args.y, at.row, at.col, cols, v);
}
TRINE_OWN_KERNEL(windows);

// ---- Positions and their angles

// A simdgroup a sequence: 32 tokens at a time, numbered by a running count.
kernel void positions(device const int32_t* ids [[buffer(0)]],
                      device const int32_t* offsets [[buffer(1)]],
                      device const int32_t* past [[buffer(2)]], device int32_t* y [[buffer(3)]],
                      constant PositionsArgs& args [[buffer(4)]], TRINE_THREAD) {
  const int b = int(group.x), begin = offsets[b], end = offsets[b + 1], padding = args.padding_idx;
  const int before = args.has_past != 0 ? past[b] : 0;
  int next = padding + 1 + (before > 0 ? before : 0);
  for (int first = begin; first < end; first += 32) {
    const int t = first + int(lane);
    const bool skipped = t < end && padding >= 0 && ids[args.ids_first + t] == padding;
    int count = t < end && !skipped ? 1 : 0;  // up to and with this token
    for (uint step = 1; step < 32; step *= 2) {
      const int other = simd_shuffle(count, ushort(lane >= step ? lane - step : lane));
      if (lane >= step) count += other;
    }
    if (t < end) y[args.y_first + t] = skipped ? padding : next + count - 1;
    next += simd_shuffle(count, ushort(31));
  }
}
TRINE_OWN_KERNEL(positions);

// x modulo pi / 2 in three steps: the first is exact for |x| < 2^22, as fma rounds once and what is
// left has no more bits than x or the product's last; then polynomials for |r| <= pi / 4 and a
// little. 1e-7 for these x.
inline void sine_and_cosine(float x, thread float& sine, thread float& cosine) {
  const float quarter = rint(x * 0.636619772f);
  float r = fma(-quarter, 1.57079637f, x);
  r = fma(-quarter, -4.37113883e-8f, r);
  r = fma(-quarter, -1.71512451e-15f, r);
  const float r2 = r * r;
  float s = fma(r2, 2.86567956e-6f, -1.98559923e-4f);
  s = fma(s, r2, 8.33338592e-3f);
  s = fma(s, r2, -1.66666672e-1f);
  s = fma(s * r2, r, r);
  float c = fma(r2, 2.44677067e-5f, -1.38877297e-3f);
  c = fma(c, r2, 4.16666567e-2f);
  c = fma(c, r2, -5.00000000e-1f);
  c = fma(c, r2, 1.0f);
  const int turn = int(quarter) & 3;
  sine = (turn & 1) != 0 ? c : s;
  cosine = (turn & 1) != 0 ? s : c;
  if (turn >= 2) sine = -sine;
  if (turn == 1 || turn == 2) cosine = -cosine;
}

kernel void rotary(device const int32_t* position [[buffer(0)]],
                   device const float* frequencies [[buffer(1)]],
                   device const int32_t* offsets [[buffer(2)]], device char* y [[buffer(3)]],
                   constant RotaryArgs& args [[buffer(4)]], TRINE_THREAD) {
  const uint at = group.x * 256 + thread_id, pairs = uint(args.pairs);
  const int token = int(at / pairs), c = int(at % pairs);
  if (token >= args.tokens) return;
  int64_t row = 0;
  if (args.frequencies_ld != 0)
    row = int64_t(sequence_of(offsets, args.sequences, token)) * args.frequencies_ld;
  const float frequency = frequencies[args.frequencies_first + row + c];
  // Rounded to float, as torch rounds it.
  const float angle = float(position[args.positions_first + token]) * frequency;
  float sine, cosine;
  sine_and_cosine(angle, sine, cosine);
  const int64_t to = args.y.first + int64_t(token) * args.y.ld + c;
  store1(y, args.y.dtype, to, cosine * args.scaling);
  store1(y, args.y.dtype, to + args.pairs, sine * args.scaling);
}
TRINE_OWN_KERNEL(rotary);

// A thread turns a quad of a head's first half with its partners, or copies a quad of the columns
// that are not turned; so y may be x.
kernel void rope(device const char* x [[buffer(0)]], device const char* table [[buffer(1)]],
                 device char* y [[buffer(2)]], constant RopeArgs& args [[buffer(3)]],
                 TRINE_THREAD) {
  const int pairs = args.turned / 2, halves = (pairs + 3) / 4;
  const uint items = uint(halves + (args.head_dim - 2 * pairs + 3) / 4);
  const uint at = group.x * 256 + thread_id, of_row = uint(args.heads) * items;
  const int64_t row = int64_t(at / of_row);
  if (row >= args.rows) return;
  const int head = int(at % of_row / items) * args.head_dim, item = int(at % items);
  const int64_t from = args.x.first + row * args.x.ld + head;
  const int64_t to = args.y.first + row * args.y.ld + head;
  if (item >= halves) {
    const int col = 2 * pairs + (item - halves) * 4;
    for (int i = 0; i < 4 && col + i < args.head_dim; ++i)
      store1(y, args.y.dtype, to + col + i, load1(x, args.x.dtype, from + col + i));
    return;
  }
  const int64_t angles = args.table.first + row * args.table.ld;
  for (int c = item * 4; c < item * 4 + 4 && c < pairs; ++c) {
    const float a = load1(x, args.x.dtype, from + c);
    const float b = load1(x, args.x.dtype, from + pairs + c);
    const float cosine = load1(table, args.table.dtype, angles + c);
    const float sine = load1(table, args.table.dtype, angles + pairs + c);
    store1(y, args.y.dtype, to + c, fma(a, cosine, -(b * sine)));
    store1(y, args.y.dtype, to + pairs + c, fma(b, cosine, a * sine));
  }
}
TRINE_OWN_KERNEL(rope);

// ---- Pooling: 8 quads of columns of a sequence by kPoolWays threads a quad

kernel void pool(device const char* x [[buffer(0)]], device const int32_t* offsets [[buffer(1)]],
                 device const int32_t* skip [[buffer(2)]], device char* y [[buffer(3)]],
                 constant PoolArgs& args [[buffer(4)]], TRINE_THREAD) {
  TRINE_SHARED(float, partial, kPoolWays * 8 * 4);
  const int b = int(group.y), quad = int(thread_id % 8), way = int(thread_id / 8);
  const int col = (int(group.x) * 8 + quad) * 4, mode = args.mode;
  const int start = offsets[b], end = offsets[b + 1];
  int begin = start + (args.has_skip != 0 ? skip[b] : 0);
  if (mode == kPoolCls && begin >= end) begin = start;
  const bool one = mode == kPoolCls || mode == kPoolLastToken, largest = mode == kPoolMax;
  float v[4], sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = largest ? -INFINITY : 0.0f;
  if (!one && col < args.cols) {
    for (int t = begin + way; t < end; t += kPoolWays) {
      load4(x, args.x, t, col, args.cols, v);
      const float weight = mode == kPoolWeightedMean ? float(t - start + 1) : 1.0f;
      for (int i = 0; i < 4; ++i)
        sum[i] = largest ? larger(sum[i], v[i]) : fma(weight, v[i], sum[i]);
    }
  }
  for (int i = 0; i < 4; ++i) partial[(way * 8 + quad) * 4 + i] = sum[i];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (way != 0 || col >= args.cols) return;
  if (begin >= end) {
    for (int i = 0; i < 4; ++i) sum[i] = 0.0f;
  } else if (one) {
    load4(x, args.x, mode == kPoolCls ? begin : end - 1, col, args.cols, sum);
  } else {
    for (int w = 1; w < kPoolWays; ++w) {
      for (int i = 0; i < 4; ++i) {
        const float other = partial[(w * 8 + quad) * 4 + i];
        sum[i] = largest ? larger(sum[i], other) : sum[i] + other;
      }
    }
    const float count = float(end - begin), before = float(begin - start);
    float by = 1.0f;
    if (mode == kPoolMean) by = count;
    if (mode == kPoolMeanSqrtLen) by = sqrt(count);
    if (mode == kPoolWeightedMean) by = count * fma(0.5f, count + 1.0f, before);
    for (int i = 0; i < 4; ++i) sum[i] /= by;
  }
  store4(y, args.y, b, col, args.cols, sum);
}
TRINE_OWN_KERNEL(pool);
