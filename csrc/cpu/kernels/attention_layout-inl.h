// SPDX-License-Identifier: Apache-2.0
// What attention-inl.h keeps where: blocks of queries, strips, one head's inputs and scratch.

constexpr int kVecsPerPanel = static_cast<int>(kPanel) / Vec::kLanes;
constexpr int kWideVecs = kVecsPerPanel > 2 ? kVecsPerPanel : 2;
constexpr int kBlockQueries = Vec::kMaxRegisters == 32 ? 24 / kWideVecs : Vec::kLanes == 8 ? 6 : 2;
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

// Whether the products are those of tiles (attention_amx-inl.h); then blocks are two tiles high.
template <class Format>
constexpr bool kIsTiled = requires { Format::kTileRows; };

// The most queries of a block, and keys whose products with a table are made at once.
template <class Format>
constexpr int most_queries() {
  if constexpr (kIsTiled<Format>) return 2 * Format::kTileRows;
  return kBlockQueries;
}
template <class Format>
constexpr int key_rows() {
  if constexpr (kIsTiled<Format>) return Format::kTileRows;
  return kKeyRows;
}

template <class Format>
constexpr int64_t kStripFloats = most_queries<Format>() * kStripStride;

// Floats that strips for one block take, and where float i of row r is in them.
template <class Format>
static TRINE_INLINE int64_t strip_floats(int64_t length) {
  return round_up(length, kStripLength) / kStripLength * kStripFloats<Format>;
}
template <class Format>
static TRINE_INLINE int64_t in_strip(int64_t r, int64_t i) {
  return i / kStripLength * kStripFloats<Format> + r * kStripStride + i % kStripLength;
}
// Lines that V takes; tiles read whole ones of them.
template <class Format>
static TRINE_INLINE int64_t value_lines(int64_t keys) {
  if constexpr (kIsTiled<Format>) return round_up(lines_of<Format>(keys), Format::kTileRows);
  return lines_of<Format>(keys);
}

// One call's sequence and head. All its keys have been packed.
struct Head {
  HeadRows q, k;    // of the sequence
  const float* v;   // lines of V
  int64_t ldv;      // from one line to the next
  int64_t v_panel;  // from 16 columns to the next 16
  float* y;
  int64_t ldy;
  const float* bias;  // bias[j - i] for query i and key j, or null
  int64_t length;
  int64_t dim, lines;  // columns, and the lines that they take
  float scale;         // times log2(e): scores are exponents of 2
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
  return round_up(at_most(distances, columns) + kPanel - 1 + kWide, kPanel) + kPanel;
}
template <class Format>
static TRINE_INLINE int64_t key_terms_row(int64_t length, int64_t columns) {
  return product_row(length + most_queries<Format>(), columns);
}
template <class Format>
static constexpr int64_t kProductRows = key_rows<Format>() > Vec::kLanes ? key_rows<Format>()
                                                                         : Vec::kLanes;
static TRINE_INLINE int64_t products_row(int64_t columns) {
  return product_row(kQueriesAtOnce + 2 * Vec::kLanes, columns);
}
static TRINE_INLINE int64_t query_terms_row(int64_t length) {
  const int64_t ld = round_up(length, kPanel);
  return ld % 256 == 0 ? ld + kPanel : ld;  // a power of two would share cache sets
}

template <class Format>
static size_t attention_scratch_bytes(int64_t max_length, int64_t head_dim,
                                      int64_t position_columns) noexcept {
  const int64_t keys = round_up(max_length, kPanel), dim = round_up(head_dim, kPanel);
  int64_t floats =
      2 * keys * dim + strip_floats<Format>(head_dim) + strip_floats<Format>(max_length);
  if (position_columns > 0) {
    floats += most_queries<Format>() * key_terms_row<Format>(max_length, position_columns) +
              kProductRows<Format> * products_row(position_columns) +
              kQueriesAtOnce * query_terms_row(max_length);
  }
  return static_cast<size_t>(floats) * sizeof(float);
}
