// SPDX-License-Identifier: Apache-2.0
// One head of one sequence: scores, softmax, product with V, for blocks of a few queries against
// all keys.
//
// Layout. K is packed once per call into panels of 16 keys, [ceil(L / 16)][head_dim][16] (register
// transposes), so that one vector holds the same coordinate of neighbouring keys. V is used where
// it lies when head_dim is a multiple of the vector and L is short, else copied with its rows
// padded. Queries and scores of a block live in scratch as "strips": runs of kStripLength numbers a
// row, all rows of a run together, so that every row's address is a constant away from the first
// one's. Scores: kBlockQueries x L numbers, never more.
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

constexpr int64_t kStripLength = 256;
constexpr int64_t kStripStride = kStripLength + 16;  // a power of two would share cache sets
constexpr int kVecsPerPanel = static_cast<int>(kPanel) / Vec::kLanes;
constexpr int kWideVecs = kVecsPerPanel > 2 ? kVecsPerPanel : 2;
constexpr int kBlockQueries = Vec::kMaxRegisters == 32 ? 24 / kWideVecs : Vec::kLanes == 8 ? 6 : 2;
constexpr int64_t kStripFloats = kBlockQueries * kStripStride;
// From so many keys on V is copied: rows some power of two apart, as in a 1024 wide model, share
// few cache sets. At 1024 keys that gives 15 % there and costs 1 to 2 % elsewhere.
constexpr int64_t kCopyValues = 64;
constexpr float kLog2OfE = 1.44269504f;
// Queries whose terms of position_queries are kept at once: L2 holds this many x L of them. The
// fewer, the more columns are computed twice: (192 + 16) / 192 of what is needed.
constexpr int64_t kQueriesAtOnce = 192;
// Keys whose products with the table are one tile.
constexpr int kKeyRows = Vec::kLanes >= 8 ? Vec::kLanes / 2 : kBlockQueries >= 4 ? 4 : 2;
constexpr int64_t kWide = kWideVecs * Vec::kLanes;
static_assert(kQueriesAtOnce % kBlockQueries == 0 && kQueriesAtOnce % Vec::kLanes == 0);
static_assert(kKeyRows <= kBlockQueries && Vec::kLanes % kKeyRows == 0);

static TRINE_INLINE int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
static TRINE_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
// Floats that strips for one block take, and where number i of row r is in them.
static TRINE_INLINE int64_t strip_floats(int64_t length) {
  return round_up(length, kStripLength) / kStripLength * kStripFloats;
}
static TRINE_INLINE int64_t in_strip(int64_t r, int64_t i) {
  return i / kStripLength * kStripFloats + r * kStripStride + i % kStripLength;
}

// One call's sequence and head. All keys [0, keys) have been packed.
struct Head {
  const float* q;  // row i of the sequence is i * ldq further
  const float* k;
  const float* v;
  int64_t ldq, ldk, ldv;
  int64_t v_panel;  // from 16 columns of v to the next 16
  float* y;
  int64_t ldy;
  const float* bias;  // bias[j - i] for query i and key j, or null
  int64_t length, keys, dim;
  float scale;  // times log2(e): scores are exponents of 2
  bool causal;
  float* panels;   // K
  float* queries;  // strips
  float* scores;   // strips

  // Panels of this head's position tables, or null.
  const float* position_keys;
  const float* position_queries;
  const int32_t* position_at;
  int64_t reach;
  // Products with them, and the distance from row to row: of a block's queries, of a vector's keys,
  // and those turned to queries x keys.
  float* key_terms;
  float* products;
  float* query_terms;
  int64_t key_terms_ld, products_ld, query_terms_ld;
};

// A row of products with the columns that `distances` neighbouring distances can lie in: from the
// start of a panel to the end of a tile, and a vector more, which may be read.
static TRINE_INLINE int64_t product_row(int64_t distances, int64_t columns) {
  return round_up(smaller(distances, columns) + kPanel - 1 + kWide, kPanel) + kPanel;
}
static TRINE_INLINE int64_t key_terms_row(int64_t length, int64_t columns) {
  return product_row(length + kBlockQueries, columns);
}
static TRINE_INLINE int64_t products_row(int64_t columns) {
  return product_row(kQueriesAtOnce + 2 * Vec::kLanes, columns);
}
static TRINE_INLINE int64_t query_terms_row(int64_t length) {
  const int64_t ld = round_up(length, kPanel);
  return ld % 256 == 0 ? ld + kPanel : ld;  // a power of two would share cache sets
}

static size_t attention_scratch_bytes(int64_t max_length, int64_t head_dim,
                                      int64_t position_columns) noexcept {
  const int64_t keys = round_up(max_length, kPanel), dim = round_up(head_dim, kPanel);
  int64_t floats = 2 * keys * dim + strip_floats(head_dim) + strip_floats(max_length);
  if (position_columns > 0) {
    floats += kBlockQueries * key_terms_row(max_length, position_columns) +
              Vec::kLanes * products_row(position_columns) +
              kQueriesAtOnce * query_terms_row(max_length);
  }
  return static_cast<size_t>(floats) * sizeof(float);
}

// Asks for a head's columns of rows [begin, end). They were just written, half of them by other
// threads, and lie too far apart for the processor to look ahead by itself.
static TRINE_INLINE void prefetch_rows(const float* x, int64_t ld, int64_t dim, int64_t begin,
                                       int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t c = 0; c < dim; c += kPanel) TRINE_PREFETCH(x + i * ld + c);
  }
}

// Keys [0, keys) into panels, the last filled up with zeros: their scores count for nothing, but
// may be no denormals.
static void pack_keys(const Head& head) noexcept {
  constexpr int kLanes = Vec::kLanes;
  prefetch_rows(head.k, head.ldk, head.dim, 0, smaller(head.keys, kLanes));
  for (int64_t j = 0; j < round_up(head.keys, kPanel); j += kLanes) {
    prefetch_rows(head.k, head.ldk, head.dim, j + kLanes, smaller(head.keys, j + 2 * kLanes));
    prefetch_rows(head.v, head.ldv, head.dim, j, smaller(head.keys, j + kLanes));
    float* panel = head.panels + j / kPanel * kPanel * head.dim + j % kPanel;
    for (int64_t c = 0; c < head.dim; c += kLanes) {
      const int64_t n = smaller(head.dim - c, kLanes);
      Vec block[kLanes];
      TRINE_UNROLL for (int r = 0; r < kLanes; ++r) {
        block[r] = j + r < head.keys ? LoadUpTo(head.k + (j + r) * head.ldk + c, n) : Zero();
      }
      Transpose(block);
      if (n == kLanes) {
        TRINE_UNROLL for (int r = 0; r < kLanes; ++r) StoreU(block[r], panel + (c + r) * kPanel);
      } else {
        TRINE_UNROLL for (int r = 0; r < kLanes; ++r) {
          if (r < n) StoreU(block[r], panel + (c + r) * kPanel);
        }
      }
    }
  }
}

// acc[r][v] = sum over k < depth of strips[r][k] * b[k * ldb + v * ldv]
template <int R, int NV>
static TRINE_INLINE void multiply(const float* strips, int64_t depth, const float* b, int64_t ldb,
                                  int64_t ldv, Vec (&acc)[R][NV]) {
  TRINE_UNROLL for (int r = 0; r < R; ++r) {
    TRINE_UNROLL for (int v = 0; v < NV; ++v) acc[r][v] = Zero();
  }
  for (; depth > 0; depth -= kStripLength, strips += kStripFloats) {
    const int64_t run = smaller(depth, kStripLength);
    for (int64_t k = 0; k < run; ++k, b += ldb) {
      Vec column[NV];
      TRINE_UNROLL for (int v = 0; v < NV; ++v) column[v] = LoadU(b + v * ldv);
      TRINE_UNROLL for (int r = 0; r < R; ++r) {
        const Vec row = Set(strips[r * kStripStride + k]);
        TRINE_UNROLL for (int v = 0; v < NV; ++v) acc[r][v] = MulAdd(row, column[v], acc[r][v]);
      }
    }
  }
}

// `rows` rows, at most R, into strips, scaled; zeros in place of those that lack.
template <int R>
static TRINE_INLINE void load_rows(const Head& head, const float* from, int64_t ld, int64_t rows) {
  constexpr int64_t kLanes = Vec::kLanes;
  const Vec scale = Set(head.scale);
  for (int r = 0; r < R; ++r) {
    for (int64_t c = 0; c < head.dim; c += kLanes) {
      const Vec x = r < rows ? LoadUpTo(from + r * ld + c, smaller(head.dim - c, kLanes)) : Zero();
      StoreU(Mul(x, scale), head.queries + in_strip(r, c));
    }
  }
}

// Products of the strips' R rows and NV vectors of columns of panels, to rows `ld` apart.
template <int R, int NV>
static TRINE_NOINLINE void panel_tile(const Head& head, const float* panels, float* to,
                                      int64_t ld) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  Vec acc[R][NV];
  multiply<R, NV>(head.queries, head.dim, panels, kPanel,
                  kVecsPerPanel == 1 ? kPanel * head.dim : kLanes, acc);
  TRINE_UNROLL for (int r = 0; r < R; ++r) {
    TRINE_UNROLL for (int v = 0; v < NV; ++v) StoreU(acc[r][v], to + r * ld + v * kLanes);
  }
}

template <int R>
static TRINE_INLINE void score_block(const Head& head, int64_t keys) {
  const float* panels = head.panels;
  int64_t j = 0;
  for (; j + kWide <= round_up(keys, kPanel); j += kWide, panels += kWide * head.dim)
    panel_tile<R, kWideVecs>(head, panels, head.scores + in_strip(0, j), kStripStride);
  if constexpr (kVecsPerPanel == 1) {
    if (j < keys) panel_tile<R, 1>(head, panels, head.scores + in_strip(0, j), kStripStride);
  }
}

// Where distance d stands in position_at, and the kLanes - 1 distances behind it.
static TRINE_INLINE const int32_t* columns_of(const Head& head, int64_t d) {
  const int64_t least = -head.reach - Vec::kLanes;
  return head.position_at + (d > head.reach ? head.reach : d < least ? least : d);
}

// Products of the strips' R rows and the columns of all distances from `least` to `most`, to rows
// `ld` apart. Returns the column that comes first in them.
template <int R>
static TRINE_INLINE int64_t position_products(const Head& head, const float* panels, int64_t least,
                                              int64_t most, float* to, int64_t ld) {
  const int64_t begin = *columns_of(head, least) / kPanel * kPanel;
  const int64_t end = *columns_of(head, most) + 1;
  int64_t c = begin;
  for (; c + (kWide - kPanel) < end; c += kWide)
    panel_tile<R, kWideVecs>(head, panels + c * head.dim, to + c - begin, ld);
  if constexpr (kVecsPerPanel == 1) {
    if (c < end) panel_tile<R, 1>(head, panels + c * head.dim, to + c - begin, ld);
  }
  return begin;
}

// The terms of position_queries for the queries [s0, s1) and all keys.
static TRINE_NOINLINE void make_query_terms(const Head& head, int64_t s0, int64_t s1) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const int64_t end = s0 + round_up(s1 - s0, kLanes);
  for (int64_t j0 = 0; j0 < head.length; j0 += kLanes) {
    int64_t begin = 0;
    TRINE_UNROLL for (int r = 0; r < kLanes; r += kKeyRows) {
      const int64_t j = j0 + r;
      load_rows<kKeyRows>(head, head.k + j * head.ldk, head.ldk, head.length - j);
      begin = position_products<kKeyRows>(head, head.position_queries, j0 - (end - 1),
                                          j0 + kLanes - 1 - s0,
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

static TRINE_INLINE Vec add_terms(const Head& head, const Terms& terms, int64_t i, int64_t j,
                                  int64_t n, Vec score) {
  if (terms.bias != nullptr) score = MulAdd(LoadUpTo(terms.bias + j, n), Set(kLog2OfE), score);
  if (terms.key_terms != nullptr) {
    const int32_t* columns = columns_of(head, j - i);
    score = Add(score, LoadAt(terms.key_terms + *columns - terms.first_column, columns));
  }
  if (terms.query_terms != nullptr) score = Add(score, LoadU(terms.query_terms + j));
  return score;
}

// Row r of the scores, of query i, into exp(score - largest), in place; the sum is returned. Lanes
// past the last key count as nothing.
static TRINE_INLINE float softmax_row(const Head& head, const Terms& terms, int r, int64_t i,
                                      int64_t keys) {
  constexpr int64_t kLanes = Vec::kLanes;
  const Vec lowest = Set(-INFINITY);
  Vec largest = lowest;
  for (int64_t j0 = 0; j0 < keys; j0 += kStripLength) {
    float* s = head.scores + in_strip(r, j0);
    const int64_t run = smaller(keys - j0, kStripLength);
    int64_t j = 0;
    for (; j + kLanes <= run; j += kLanes) {
      const Vec score = add_terms(head, terms, i, j0 + j, kLanes, LoadU(s + j));
      StoreU(score, s + j);
      largest = Max(largest, score);
    }
    if (j < run) {
      Vec score = add_terms(head, terms, i, j0 + j, run - j, LoadU(s + j));
      score = IfThenElse(FirstN(run - j), score, lowest);
      StoreU(score, s + j);
      largest = Max(largest, score);
    }
  }
  const Vec top = Set(ReduceMax(largest));
  Vec sum = Zero();
  for (int64_t j0 = 0; j0 < keys; j0 += kStripLength) {
    float* s = head.scores + in_strip(r, j0);
    const int64_t run = smaller(keys - j0, kStripLength);
    for (int64_t j = 0; j < run; j += kLanes) {
      // Denormals would be nothing to the sum, but slow in the product with V. NaN is kept.
      const Vec t = Sub(LoadU(s + j), top);
      const Vec p = IfThenElse(Lt(t, Set(-126.0f)), Zero(), Exp2Fast(t, 1.0f));
      StoreU(p, s + j);
      sum = Add(sum, p);
    }
  }
  return ReduceSum(sum);
}

// NV vectors of output columns from c on, the last of them perhaps cut by head_dim, for R queries.
template <int R, int NV>
static TRINE_NOINLINE void value_tile(const Head& head, int64_t i0, int64_t c,
                                      const float* scale) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const float* v = head.v + c / kPanel * head.v_panel + c % kPanel;
  const int64_t step = kVecsPerPanel == 1 ? head.v_panel : kLanes;
  Vec acc[R][NV];
  multiply<R, NV>(head.scores, head.causal ? i0 + 1 : head.length, v, head.ldv, step, acc);
  if (head.causal) {
    // The keys that only the later rows of the block may see.
    TRINE_UNROLL for (int r = 1; r < R; ++r) {
      for (int64_t j = i0 + 1; j <= i0 + r; ++j) {
        const float p = head.scores[in_strip(r, j)];
        TRINE_UNROLL for (int x = 0; x < NV; ++x) {
          acc[r][x] = MulAdd(Set(p), LoadU(v + j * head.ldv + x * step), acc[r][x]);
        }
      }
    }
  }
  TRINE_UNROLL for (int r = 0; r < R; ++r) {
    float* y = head.y + (i0 + r) * head.ldy + c;
    TRINE_UNROLL for (int x = 0; x < NV; ++x) {
      const Vec result = Mul(acc[r][x], Set(scale[r]));
      StoreUpTo(result, y + x * kLanes, smaller(head.dim - c - x * kLanes, kLanes));
    }
  }
}

template <int R>
static void attend_block(const Head& head, int64_t s0, int64_t i0) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  load_rows<R>(head, head.q + i0 * head.ldq, head.ldq, R);
  score_block<R>(head, head.causal ? i0 + R : head.length);
  Terms terms = {};
  if (head.position_keys != nullptr) {
    terms.first_column =
        position_products<R>(head, head.position_keys, -(i0 + R - 1), head.length - 1 - i0,
                             head.key_terms, head.key_terms_ld);
  }
  float scale[R];
  for (int r = 0; r < R; ++r) {
    const int64_t i = i0 + r;
    if (head.bias != nullptr) terms.bias = head.bias - i;
    if (head.position_keys != nullptr) terms.key_terms = head.key_terms + r * head.key_terms_ld;
    if (head.position_queries != nullptr)
      terms.query_terms = head.query_terms + (i - s0) * head.query_terms_ld;
    scale[r] = 1.0f / softmax_row(head, terms, r, i, head.causal ? i + 1 : head.length);
  }
  int64_t c = 0;
  for (; c + (kWideVecs - 1) * kLanes < head.dim; c += kWideVecs * kLanes) {
    value_tile<R, kWideVecs>(head, i0, c, scale);
  }
  for (; c < head.dim; c += kLanes) value_tile<R, 1>(head, i0, c, scale);
}

// Blocks of R queries while they last, then smaller ones; query_terms begin with s0.
template <int R>
static TRINE_INLINE void attend(const Head& head, int64_t s0, int64_t i, int64_t end) {
  for (; i + R <= end; i += R) attend_block<R>(head, s0, i);
  if constexpr (R > 1) attend<(R > 8 ? 8 : R > 4 ? 4 : R / 2)>(head, s0, i, end);
}

// V's rows end to end, padded with zeros to whole vectors.
static void copy_values(Head& head, float* to) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const int64_t stride = round_up(head.dim, kLanes);
  for (int64_t j = 0; j < head.keys; ++j) {
    for (int64_t c = 0; c < head.dim; c += kLanes) {
      StoreU(LoadUpTo(head.v + j * head.ldv + c, smaller(head.dim - c, kLanes)),
             to + j * stride + c);
    }
  }
  head.v = to;
  head.ldv = stride;
}

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
  head.q = args.q + first_query * args.ldq + column, head.ldq = args.ldq;
  head.k = args.k + first * args.ldk + kv_column, head.ldk = args.ldk;
  head.v = args.v + first * args.ldv + kv_column, head.ldv = args.ldv, head.v_panel = kPanel;
  head.y = args.y + first_query * args.ldy + column, head.ldy = args.ldy;
  if (args.bias != nullptr) head.bias = args.bias + head_index * (2 * span - 1) + span - 1;
  head.length = args.batch.offsets[sequence + 1] - first;
  head.keys = args.causal ? q1 : head.length;
  head.dim = dim;
  head.scale = args.scale * kLog2OfE;
  head.causal = args.causal;

  head.queries = reinterpret_cast<float*>(scratch);
  head.scores = head.queries + strip_floats(dim);
  head.panels = head.scores + strip_floats(head.length);
  float* values = head.panels + round_up(head.keys, kPanel) * round_up(dim, kPanel);
  pack_keys(head);
  if (dim % Vec::kLanes != 0 || head.keys >= kCopyValues) copy_values(head, values);
  if (args.position_at == nullptr) return attend<kBlockQueries>(head, q0, q0, q1);

  const int64_t table = head_index * args.position_head;
  if (args.position_keys != nullptr) head.position_keys = args.position_keys + table;
  if (args.position_queries != nullptr) head.position_queries = args.position_queries + table;
  head.position_at = args.position_at;
  head.reach = args.reach;
  head.key_terms_ld = key_terms_row(head.length, args.position_columns);
  head.products_ld = products_row(args.position_columns);
  head.query_terms_ld = query_terms_row(head.length);
  head.key_terms = values + round_up(head.keys, kPanel) * round_up(dim, kPanel);
  head.products = head.key_terms + kBlockQueries * head.key_terms_ld;
  head.query_terms = head.products + Vec::kLanes * head.products_ld;
  for (int64_t s0 = q0; s0 < q1; s0 += kQueriesAtOnce) {
    const int64_t s1 = smaller(q1, s0 + kQueriesAtOnce);
    if (head.position_queries != nullptr) make_query_terms(head, s0, s1);
    attend<kBlockQueries>(head, s0, s0, s1);
  }
}
