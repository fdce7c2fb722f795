// SPDX-License-Identifier: Apache-2.0
// One head of one sequence: scores, softmax, product with V, for blocks of a few queries against
// all keys.
//
// Layout. K is packed once per call into panels of 16 keys, [ceil(L / 16)][head_dim][16] (register
// transposes), so that one vector holds the same coordinate of neighbouring keys. V is used where
// it lies when head_dim is a multiple of the vector and L is short, else copied with its rows
// padded. Queries and scores of a block live in scratch as "strips": runs of kStripLength numbers a
// row, all rows of a run together, so that every row's address is a constant away from the first
// one's. Scores: a block of queries x L numbers, never more.
//
// Tile. Both products are the same loop: R rows broadcast from strips times NV vectors of keys (or
// of columns of V). Register budget: AVX-512 12 x 2 accumulators + 2 + 1 of 32; AVX2 6 x 2 + 2 + 1
// of 16; NEON 6 x 4 + 4 + 1 of 32.
//
// Further terms of a score are added by softmax_row's first pass, before anything leaves L1:
// MPNet's bias, and DeBERTa's two position terms, which are products of the same kind with the
// tables' panels (cpu/positions.h) in place of K's. For a query the terms q_i . position_keys[j -
// i] are a contiguous run over j (with repeats where a bucket holds several distances: a
// permutation of what was loaded). For a key the terms k_j . position_queries[j - i] are one over
// i: they are made for kQueriesAtOnce queries and a vector of keys at a time, and turned by
// transposing registers. Only the columns that occur are computed, nothing is gathered, and nothing
// L x L is kept.
//
// Order. A score sums its coordinates, and an output its keys, in ascending order in one
// accumulator; the softmax's sum runs over keys j, j + lanes, .. in lane j. So a query's bits
// depend on its sequence alone: not on [q0, q1), nor on which rows share its block.
//
// Bound: 4 L^2 head_dim flop; at 32 < L FMA-bound, the exponentials take about a tenth. Two passes
// over scores in L1 beat an online softmax there: nothing is rescaled.

// Adds the products of R rows of floats in strips (kSteps of them) and a line.
template <class Format, int R, int NV>
static TRINE_INLINE void multiply_line(const float* strips, const float* line, int64_t ldv,
                                       Vec (&acc)[R][NV]) {
  TRINE_UNROLL for (int step = Format::kSteps - 1; step >= 0; --step) {
    Vec column[NV];
    TRINE_UNROLL for (int v = 0; v < NV; ++v) {
      column[v] = Format::weights(LoadU(line + v * ldv), step);
    }
    TRINE_UNROLL for (int r = 0; r < R; ++r) {
      const Vec row = Set(strips[r * kStripStride + step]);
      TRINE_UNROLL for (int v = 0; v < NV; ++v) {
        acc[r][v] = Format::multiply_add(row, column[v], acc[r][v]);
      }
    }
  }
}

// acc[r][v] = sum over the lines l of strips[r][l] * b[l * ldb + v * ldv]
template <class Format, int R, int NV>
static TRINE_INLINE void multiply(const float* strips, int64_t lines, const float* b, int64_t ldb,
                                  int64_t ldv, Vec (&acc)[R][NV]) {
  constexpr int64_t kLines = kStripLength / Format::kSteps;
  TRINE_UNROLL for (int r = 0; r < R; ++r) {
    TRINE_UNROLL for (int v = 0; v < NV; ++v) acc[r][v] = Zero();
  }
  for (; lines > 0; lines -= kLines, strips += kStripFloats<Format>) {
    const int64_t run = at_most(lines, kLines);
    for (int64_t l = 0; l < run; ++l, b += ldb)
      multiply_line<Format>(strips + l * Format::kSteps, b, ldv, acc);
  }
}

// `rows` rows from row i on, at most R, into strips: scaled in float32 (scores in bf16 are scaled
// after they were summed); zeros in place of those that lack.
template <class Format, int R>
static TRINE_INLINE void load_rows(const Head& head, const HeadRows& from, int64_t i,
                                   int64_t rows) {
  constexpr int64_t kLanes = Vec::kLanes;
  constexpr int64_t kRun = kStripLength * Format::kElements / Format::kSteps;
  const Vec scale = Set(head.scale);
  for (int r = 0; r < R; ++r) {
    const float* x = from.data + (i + r) * from.ld;
    if (Format::kConverts && r < rows) {
      for (int64_t c = 0; c < head.dim; c += kRun) {
        const int64_t n = at_most(head.dim - c, kRun);
        Format::convert(x + c, n, lines_of<Format>(n),
                        head.queries + in_strip<Format>(r, c / kRun * kStripLength));
      }
      continue;
    }
    for (int64_t c = 0; c < head.lines * Format::kSteps; c += kLanes) {
      const Vec row = r < rows ? LoadUpTo(x + c, at_most(head.dim - c, kLanes)) : Zero();
      StoreU(Mul(row, scale), head.queries + in_strip<Format>(r, c));
    }
  }
}

// Products of the strips' R rows and NV vectors of columns of panels, to rows `ld` apart.
template <class Format, int R, int NV>
static TRINE_NOINLINE void panel_tile(const Head& head, const float* panels, float* to,
                                      int64_t ld) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  if constexpr (kIsTiled<Format>) {
    Format::template panels<R, NV>(head.queries, kStripFloats<Format>, head.lines, panels, to, ld);
  } else {
    Vec acc[R][NV];
    multiply<Format>(head.queries, head.lines, panels, kPanel,
                     kVecsPerPanel == 1 ? kPanel * head.lines : kLanes, acc);
    TRINE_UNROLL for (int r = 0; r < R; ++r) {
      TRINE_UNROLL for (int v = 0; v < NV; ++v) StoreU(acc[r][v], to + r * ld + v * kLanes);
    }
  }
}

template <class Format, int R>
static TRINE_INLINE void score_block(const Head& head, int64_t keys) {
  const float* panels = head.panels;
  int64_t j = 0;
  for (; j + kWide <= round_up(keys, kPanel); j += kWide, panels += kWide * head.lines)
    panel_tile<Format, R, kWideVecs>(head, panels, head.scores + in_strip<Format>(0, j),
                                     kStripStride);
  if constexpr (kVecsPerPanel == 1) {
    if (j < keys)
      panel_tile<Format, R, 1>(head, panels, head.scores + in_strip<Format>(0, j), kStripStride);
  }
}

// Where distance d stands in position_at, and the kLanes - 1 distances behind it.
static TRINE_INLINE const int32_t* columns_of(const Head& head, int64_t d) {
  const int64_t least = -head.reach - Vec::kLanes;
  return head.position_at + (d > head.reach ? head.reach : d < least ? least : d);
}

// Products of the strips' R rows and the columns of all distances from `least` to `most`, to rows
// `ld` apart. Returns the column that comes first in them.
template <class Format, int R>
static TRINE_INLINE int64_t position_products(const Head& head, const float* panels, int64_t least,
                                              int64_t most, float* to, int64_t ld) {
  const int64_t begin = *columns_of(head, least) / kPanel * kPanel;
  const int64_t end = *columns_of(head, most) + 1;
  int64_t c = begin;
  for (; c + (kWide - kPanel) < end; c += kWide)
    panel_tile<Format, R, kWideVecs>(head, panels + c * head.lines, to + c - begin, ld);
  if constexpr (kVecsPerPanel == 1) {
    if (c < end) panel_tile<Format, R, 1>(head, panels + c * head.lines, to + c - begin, ld);
  }
  return begin;
}

// The terms of position_queries for the queries [s0, s1) and all keys.
template <class Format>
static TRINE_NOINLINE void make_query_terms(const Head& head, int64_t s0, int64_t s1) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const int64_t end = s0 + round_up(s1 - s0, kLanes);
  for (int64_t j0 = 0; j0 < head.length; j0 += kLanes) {
    int64_t begin = 0;
    constexpr int kRows = key_rows<Format>();
    TRINE_UNROLL for (int r = 0; r < kLanes; r += kRows) {
      const int64_t j = j0 + r;
      load_rows<Format, kRows>(head, head.k, j, head.length - j);
      begin = position_products<Format, kRows>(
          head, head.position_queries, j0 - (end - 1), j0 + kLanes - 1 - s0,
          head.products + r * head.products_ld, head.products_ld);
    }
    for (int64_t i0 = s0; i0 < end; i0 += kLanes) {
      // Lane x of row r: key j0 + r and, as distances rise, query i0 + kLanes - 1 - x.
      Vec block[kLanes];
      TRINE_UNROLL for (int r = 0; r < kLanes; ++r) {
        const int32_t* columns = columns_of(head, j0 + r - (i0 + kLanes - 1));
        block[r] = LoadAt(head.products + r * head.products_ld + *columns - begin, columns);
      }
      Transpose(block);
      float* to = head.query_terms + (i0 + kLanes - 1 - s0) * head.query_terms_ld + j0;
      TRINE_UNROLL for (int r = 0; r < kLanes; ++r) StoreU(block[r], to - r * head.query_terms_ld);
    }
  }
}

// What is added to the scores of one query.
struct Terms {
  const float* bias;       // bias[j], times log2(e)
  const float* key_terms;  // [column - first_column]
  int64_t first_column;
  const float* query_terms;  // [j]
};

template <class Format>
static TRINE_INLINE Vec add_terms(const Head& head, const Terms& terms, int64_t i, int64_t j,
                                  int64_t n, Vec score) {
  if (terms.key_terms != nullptr) {
    const int32_t* columns = columns_of(head, j - i);
    score = Add(score, LoadAt(terms.key_terms + *columns - terms.first_column, columns));
  }
  if (terms.query_terms != nullptr) score = Add(score, LoadU(terms.query_terms + j));
  if (Format::kConverts) score = Mul(score, Set(head.scale));
  if (terms.bias != nullptr) score = MulAdd(LoadUpTo(terms.bias + j, n), Set(kLog2OfE), score);
  return score;
}

// exp2(score - top). Denormals would be nothing to the sum, but slow in the product with V. NaN is
// kept.
static TRINE_INLINE Vec exponential(Vec score, Vec top) {
  const Vec t = Sub(score, top);
  return IfThenElse(Lt(t, Set(-126.0f)), Zero(), Exp2Fast(t, 1.0f));
}

// Row r of the scores, of query i, into exp(score - largest) as a row for products, in place; the
// sum is returned, of what they were before rounding. Lanes past the last key count as nothing.
template <class Format>
static TRINE_INLINE float softmax_row(const Head& head, const Terms& terms, int r, int64_t i,
                                      int64_t keys) {
  constexpr int64_t kLanes = Vec::kLanes;
  const Vec lowest = Set(-INFINITY);
  Vec largest = lowest;
  for (int64_t j0 = 0; j0 < keys; j0 += kStripLength) {
    float* s = head.scores + in_strip<Format>(r, j0);
    const int64_t run = at_most(keys - j0, kStripLength);
    int64_t j = 0;
    for (; j + kLanes <= run; j += kLanes) {
      const Vec score = add_terms<Format>(head, terms, i, j0 + j, kLanes, LoadU(s + j));
      StoreU(score, s + j);
      largest = Max(largest, score);
    }
    if (j < run) {
      Vec score = add_terms<Format>(head, terms, i, j0 + j, run - j, LoadU(s + j));
      score = IfThenElse(FirstN(run - j), score, lowest);
      StoreU(score, s + j);
      largest = Max(largest, score);
    }
  }
  const Vec top = Set(ReduceMax(largest));
  Vec sum = Zero();
  for (int64_t j0 = 0; j0 < keys; j0 += kStripLength) {
    const float* s = head.scores + in_strip<Format>(r, j0);
    const int64_t run = at_most(keys - j0, kStripLength);
    for (int64_t j = 0; j < run; j += Format::kStored * kLanes) {
      Vec p[Format::kStored];
      TRINE_UNROLL for (int x = 0; x < Format::kStored; ++x) {
        p[x] =
            x == 0 || j + x * kLanes < run ? exponential(LoadU(s + j + x * kLanes), top) : Zero();
        sum = Add(sum, p[x]);
      }
      Format::store(p, head.scores + in_strip<Format>(r, (j0 + j) / Format::kStored));
    }
  }
  return ReduceSum(sum);
}

// What row r sees beyond the first `lines` lines: of a pair perhaps its first key alone, and what
// the other holds may be no number.
template <class Format, int NV>
static TRINE_INLINE void add_last_values(const Head& head, int r, int64_t i0, int64_t lines,
                                         const float* v, int64_t step, Vec (&acc)[NV]) {
  const int64_t keys = head.causal ? i0 + r + 1 : head.length;
  for (int64_t l = lines; l * Format::kElements < keys; ++l) {
    const bool whole = (l + 1) * Format::kElements <= keys;
    TRINE_UNROLL for (int s = Format::kSteps - 1; s >= 0; --s) {
      const Vec p = Set(head.scores[in_strip<Format>(r, l * Format::kSteps + s)]);
      TRINE_UNROLL for (int x = 0; x < NV; ++x) {
        Vec line = LoadU(v + l * head.ldv + x * step);
        if constexpr (Format::kElements == 2) {
          if (!whole) line = JoinBF16(WidenLowBF16(line), Zero());
        }
        acc[x] = Format::multiply_add(p, Format::weights(line, s), acc[x]);
      }
    }
  }
}

// NV vectors of output columns from c on, the last of them perhaps cut by head_dim, for `rows` of R
// queries.
template <class Format, int R, int NV>
static TRINE_NOINLINE void value_tile(const Head& head, int64_t i0, int64_t rows, int64_t c,
                                      const float* scale) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const float* v = head.v + c / kPanel * head.v_panel + c % kPanel;
  const int64_t step = kVecsPerPanel == 1 ? head.v_panel : kLanes;
  Vec acc[R][NV];
  // The keys that all rows of the block see.
  const int64_t common = head.causal ? i0 + 1 : head.length;
  const int64_t lines = common / Format::kElements;
  multiply<Format>(head.scores, lines, v, head.ldv, step, acc);
  if (head.causal || common % Format::kElements != 0) {
    TRINE_UNROLL for (int r = 0; r < R; ++r)
        add_last_values<Format>(head, r, i0, lines, v, step, acc[r]);
  }
  TRINE_UNROLL for (int r = 0; r < R; ++r) {
    if (r >= rows) return;
    float* y = head.y + (i0 + r) * head.ldy + c;
    TRINE_UNROLL for (int x = 0; x < NV; ++x) {
      const Vec result = Mul(acc[r][x], Set(scale[r]));
      StoreUpTo(result, y + x * kLanes, at_most(head.dim - c - x * kLanes, kLanes));
    }
  }
}

// All output columns of `rows` queries, at most R, by tiles.
template <class Format, int R>
static TRINE_NOINLINE void value_tiles(const Head& head, int64_t i0, int64_t rows,
                                       const float* scale) noexcept {
  constexpr int64_t kLanes = Vec::kLanes, kCols = 2 * kPanel;
  alignas(64) float sums[R * kCols];
  for (int64_t c = 0; c < head.dim; c += kCols) {
    Format::template values<R>(head.scores, kStripFloats<Format>, value_lines<Format>(head.length),
                               head.v + c, head.ldv, sums);
    for (int64_t r = 0; r < rows; ++r) {
      float* y = head.y + (i0 + r) * head.ldy + c;
      for (int64_t x = 0; x < kCols; x += kLanes)
        StoreU(Mul(LoadU(sums + r * kCols + x), Set(scale[r])), y + x);
    }
  }
}

// `rows` queries of R, whose others are zeros; fewer than R where tiles have that height, or where
// all rows see the same keys.
template <class Format, int R>
static void attend_block(const Head& head, int64_t s0, int64_t i0, int64_t rows) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  load_rows<Format, R>(head, head.q, i0, rows);
  score_block<Format, R>(head, head.causal ? i0 + R : head.length);
  Terms terms = {};
  if (head.position_keys != nullptr) {
    terms.first_column =
        position_products<Format, R>(head, head.position_keys, -(i0 + R - 1), head.length - 1 - i0,
                                     head.key_terms, head.key_terms_ld);
  }
  float scale[R];
  for (int r = 0; r < rows; ++r) {
    const int64_t i = i0 + r;
    if (head.bias != nullptr) terms.bias = head.bias - i;
    if (head.position_keys != nullptr) terms.key_terms = head.key_terms + r * head.key_terms_ld;
    if (head.position_queries != nullptr)
      terms.query_terms = head.query_terms + (i - s0) * head.query_terms_ld;
    scale[r] = 1.0f / softmax_row<Format>(head, terms, r, i, head.causal ? i + 1 : head.length);
    if constexpr (kIsTiled<Format>) {  // what tiles read beyond the last key
      for (int64_t l = round_up(head.length, Format::kStored * kLanes) / Format::kStored;
           l < value_lines<Format>(head.length); l += kLanes)
        StoreU(Zero(), head.scores + in_strip<Format>(r, l));
    }
  }
  if constexpr (kIsTiled<Format>) {
    value_tiles<Format, R>(head, i0, rows, scale);
  } else {
    int64_t c = 0;
    for (; c + (kWideVecs - 1) * kLanes < head.dim; c += kWideVecs * kLanes) {
      value_tile<Format, R, kWideVecs>(head, i0, rows, c, scale);
    }
    for (; c < head.dim; c += kLanes) value_tile<Format, R, 1>(head, i0, rows, c, scale);
  }
}

// The height of the next smaller block.
static constexpr int smaller_block(int height) {
  return height > 8 ? 8 : height > 4 ? 4 : height / 2;
}

// Blocks of R queries while they last, then smaller ones; query_terms begin with s0.
template <class Format, int R>
static TRINE_INLINE void attend(const Head& head, int64_t s0, int64_t i, int64_t end) {
  for (; i + R <= end; i += R) attend_block<Format, R>(head, s0, i, R);
  if constexpr (kIsTiled<Format>) {
    if (end - i > R / 2) return attend_block<Format, R>(head, s0, i, end - i);
    if (i < end) attend_block<Format, R / 2>(head, s0, i, end - i);
  } else if constexpr (R > 1) {
    attend<Format, smaller_block(R)>(head, s0, i, end);
  }
}

template <class Format>
static void attention(const AttentionArgs& args, int32_t sequence, int32_t head_index, int64_t q0,
                      int64_t q1, std::byte* scratch) noexcept {
  if (q0 >= q1) return;
  const int64_t first = args.batch.offsets[sequence];
  const int64_t dim = args.head_dim;
  const int64_t column = head_index * dim;
  const int64_t kv_column = static_cast<int64_t>(head_index) * args.kv_heads / args.heads * dim;
  const int64_t span = args.span;

  // Of one token, the row is the sequence's: row q0 of the sequence must be found there.
  const int64_t first_query = args.queries == Queries::kAll ? first : sequence - q0;

  Head head = {};
  head.q = {args.q + first_query * args.ldq + column, args.ldq, dim};
  head.k = {args.k + first * args.ldk + kv_column, args.ldk, dim};
  const HeadRows v = {args.v + first * args.ldv + kv_column, args.ldv, dim};
  head.y = args.y + first_query * args.ldy + column, head.ldy = args.ldy;
  if (args.bias != nullptr) head.bias = args.bias + head_index * (2 * span - 1) + span - 1;
  head.length = args.batch.offsets[sequence + 1] - first;
  const int64_t keys = args.causal ? q1 : head.length;
  head.dim = dim, head.lines = lines_of<Format>(dim);
  head.scale = args.scale * kLog2OfE;
  head.causal = args.causal;

  head.queries = reinterpret_cast<float*>(scratch);
  head.scores = head.queries + strip_floats<Format>(dim);
  head.panels = head.scores + strip_floats<Format>(head.length);
  float* values = head.panels + round_up(keys, kPanel) * head.lines;
  pack_keys<Format>(head.k, v, keys, head.panels);
  head.v = v.data, head.ldv = v.ld, head.v_panel = kPanel;
  if (Format::kConverts || dim % Vec::kLanes != 0 || keys >= kCopyValues) {
    head.v = values, head.ldv = round_up(dim, Vec::kLanes);
    pack_values<Format>(v, keys, values, head.ldv);
  }
  if constexpr (kIsTiled<Format>) {
    const int64_t lines = lines_of<Format>(keys), all = value_lines<Format>(keys);
    memset(values + lines * head.ldv, 0,
           static_cast<size_t>((all - lines) * head.ldv) * sizeof(float));
  }
  if (args.position_at == nullptr) return attend<Format, most_queries<Format>()>(head, q0, q0, q1);

  const int64_t table = head_index * args.position_head;
  if (args.position_keys != nullptr) head.position_keys = args.position_keys + table;
  if (args.position_queries != nullptr) head.position_queries = args.position_queries + table;
  head.position_at = args.position_at;
  head.reach = args.reach;
  head.key_terms_ld = key_terms_row<Format>(head.length, args.position_columns);
  head.products_ld = products_row(args.position_columns);
  head.query_terms_ld = query_terms_row(head.length);
  head.key_terms = values + value_lines<Format>(keys) * round_up(dim, kPanel);
  head.products = head.key_terms + most_queries<Format>() * head.key_terms_ld;
  head.query_terms = head.products + kProductRows<Format> * head.products_ld;
  for (int64_t s0 = q0; s0 < q1; s0 += kQueriesAtOnce) {
    const int64_t s1 = at_most(q1, s0 + kQueriesAtOnce);
    if (head.position_queries != nullptr) make_query_terms<Format>(head, s0, s1);
    attend<Format, most_queries<Format>()>(head, s0, s0, s1);
  }
}
