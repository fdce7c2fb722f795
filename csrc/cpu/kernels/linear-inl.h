// SPDX-License-Identifier: Apache-2.0
// y = act(x w^T + bias) + residual on packed panels of w, with sums in fp32.
//
// A panel is a column of lines, 64 bytes each: one element of K for 16 columns in fp32, a pair of
// them in bf16. How x and a line are multiplied is the `Format`; everything else is the same.
//
// Tile: rows x panels of y in registers. Each step reads a line per panel and broadcasts one x per
// row.
// - AVX-512: 14 x 2, 28 accumulators + 2 of w + 1 of x = 31 of 32 registers, 28 FMA to 16 loads.
// - AVX2: 6 x 1, 12 + 2 + 1 = 15 of 16 registers, 12 FMA to 8 loads.
// - NEON: 5 x 1, 20 + 4 + 5 = 29 of 32 registers.
// - One row: 4 panels, for enough independent sums to hide the latency of an FMA.
//
// Rows are split evenly (15 = 8 + 7): no tile computes rows that do not exist.
//
// Blocks: 256 lines, so that the slab of w that a column of tiles shares (32 KiB, on AVX2 16) stays
// in L1; 112 rows and 24 panels, so that partial sums, which wait in scratch between blocks of K,
// stay in L2. While one slab is multiplied the next is prefetched: w arrives from memory behind the
// arithmetic. With rows for one tile only, w is used once: it is read straight through, with 16 KiB
// prefetched ahead.
//
// Order: an element of y is one chain of FMA over ascending k that starts at 0 and stays in float
// (bf16: of each pair the second element first, as the dot product instructions of x86 do it), so
// its bits depend neither on the tile, nor on blocks, other rows or threads.
//
// int8: integers in the bits of floats, so that tiles, blocks and sums are the same code. x comes
// quantised, and behind the lines of a panel there is a tail of what its sums need to become
// floats.
//
// Bound: the FMA units from about 16 rows on (85 to 93 % of their rate measured); with fewer rows
// the bandwidth that w is read with.

constexpr int kPanelVecs = kPanel / Vec::kLanes;

// Registers for the operand that streams. One will do, but gcc loads NEON's x early, all of them.
constexpr int kStreamRegisters = Vec::kLanes == 4 && Vec::kMaxRegisters == 32 ? 5 : 1;

// Rows of the tallest tile on this many panels: its accumulators, the operand with fewer vectors
// and the stream of the other one share the registers.
static constexpr int tallest_tile(int panels) {
  const int cols = panels * kPanelVecs;
  for (int rows = 0;; ++rows) {
    const int held = rows + 1 < cols ? rows + 1 : cols;
    if ((rows + 1) * cols + held + kStreamRegisters > Vec::kMaxRegisters) return rows;
  }
}

constexpr int kTilePanels = Vec::kLanes == 16 ? 2 : 1;
constexpr int kTileRows = tallest_tile(kTilePanels);
constexpr int kRowPanels = tallest_tile(4) > 0 ? 4 : kTilePanels;  // for a single row

constexpr int64_t kBlockRows = 112 / kTileRows * kTileRows;
constexpr int64_t kBlockPanels = 24;
constexpr int64_t kBlockFloats = 256;  // of a row of x
// An odd number of lines from one packed row to the next: rows then fall into different sets of the
// cache.
constexpr int64_t kPackedStride = kBlockFloats + kPanel;

static TRINE_INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static TRINE_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// Size of part i when `total` is split into `parts` that differ by one at most.
static TRINE_INLINE int64_t even_part(int64_t total, int64_t parts, int64_t i) {
  return total / parts + (i < total % parts ? 1 : 0);
}

// How a line of w is multiplied: in kSteps FMA, each with a float of x (or what is stored as one)
// and 16 weights made of the line. A converted x is written to scratch first, as many whole lines
// of it as w has.
struct Float32Format {
  static constexpr bool kConverts = false;
  static constexpr bool kQuantised = false;
  static constexpr int kSteps = 1;
  static constexpr int64_t kElements = 1;  // of K, in a line
  static TRINE_INLINE int64_t lines(int64_t k) { return k; }
  static TRINE_INLINE Vec weights(Vec line, int) { return line; }
  static TRINE_INLINE Vec multiply_add(Vec x, Vec w, Vec sum) { return MulAdd(x, w, sum); }
  static void convert(const float* x, int64_t k, int64_t, float* to) {
    int64_t i = 0;
    for (; i + Vec::kLanes <= k; i += Vec::kLanes) StoreU(LoadU(x + i), to + i);
    StoreN(LoadN(x + i, k - i), to + i, k - i);
  }
  // What has just been computed, in place of convert().
  static constexpr int kStored = 1;
  static TRINE_INLINE void store(const Vec (&x)[kStored], float* to) { StoreU(x[0], to); }
};

// Floats of a panel, and of its tail: in int8 the columns' scales and what is to be subtracted from
// their sums.
template <class Format>
static TRINE_INLINE int64_t panel_floats(int64_t k) {
  return Format::lines(k) * kPanel + (Format::kQuantised ? 2 * kPanel : 0);
}

template <class Format>
struct Blocks {
  static constexpr int64_t kLines = kBlockFloats / Format::kSteps;
  static constexpr int64_t kFlatLines = kLines / kTilePanels;  // rows for one tile only
};

// One tile's share of one block of K. Prefetches `lines` times a line of each panel from `next`
// on, `next_step` floats on each time; that these may lie behind the last panel does no harm.
struct TileArgs {
  const float* x;
  int64_t ldx;
  const float* w;
  int64_t ldw;  // from one panel to the next
  int64_t lines;
  float* sums;  // [rows][panels * 16]
  bool first;   // start from 0 instead of `sums`
  const float* next;
  int64_t next_step;
};
using TileFunction = void (*)(const TileArgs&);

// Vector c of a line of all panels of a tile.
template <class Format>
static TRINE_INLINE Vec weights_at(const float* w, int64_t ldw, int c, int step) {
  return Format::weights(LoadU(w + c / kPanelVecs * ldw + c % kPanelVecs * Vec::kLanes), step);
}

template <class Format, int kRows, int kPanels>
static TRINE_NOINLINE void multiply_tile(const TileArgs& t) {
  constexpr int kCols = kPanels * kPanelVecs;
  constexpr int64_t kLanes = Vec::kLanes;
  // For one row the processor itself looks far enough ahead, and prefetches cost more than they
  // bring.
  constexpr bool kPrefetch = kRows > 1;
  float* const sums = t.sums;
  Vec acc[kRows][kCols];
  if (t.first) {
    TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
      TRINE_UNROLL for (int c = 0; c < kCols; ++c) acc[r][c] = Zero();
    }
  } else {
    TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
      TRINE_UNROLL for (int c = 0; c < kCols; ++c) acc[r][c] =
          LoadU(sums + (r * kCols + c) * kLanes);
    }
  }
  const int64_t ldx = t.ldx, ldw = t.ldw, next_step = t.next_step;
  const float* x = t.x;
  const float* w = t.w;
  const float* next = t.next;
  constexpr int kSteps = Format::kSteps;
  for (const float* const end = w + t.lines * kPanel; w != end;
       x += kSteps, w += kPanel, next += next_step) {
    if constexpr (kPrefetch) {
      TRINE_UNROLL for (int p = 0; p < kPanels; ++p) TRINE_PREFETCH(next + p * ldw);
    }
    // The operand with fewer vectors is held, the other streams through one register. Steps run
    // backwards: the second element of a pair comes first.
    TRINE_UNROLL for (int step = kSteps - 1; step >= 0; --step) {
      if constexpr (kRows <= kCols) {
        Vec xs[kRows];
        TRINE_UNROLL for (int r = 0; r < kRows; ++r) xs[r] = Set(x[r * ldx + step]);
        TRINE_UNROLL for (int c = 0; c < kCols; ++c) {
          const Vec ws = weights_at<Format>(w, ldw, c, step);
          TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
            acc[r][c] = Format::multiply_add(xs[r], ws, acc[r][c]);
          }
        }
      } else {
        Vec ws[kCols];
        TRINE_UNROLL for (int c = 0; c < kCols; ++c) ws[c] = weights_at<Format>(w, ldw, c, step);
        TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
          const Vec xs = Set(x[r * ldx + step]);
          TRINE_UNROLL for (int c = 0; c < kCols; ++c) {
            acc[r][c] = Format::multiply_add(xs, ws[c], acc[r][c]);
          }
        }
      }
    }
  }
  TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
    TRINE_UNROLL for (int c = 0; c < kCols; ++c) StoreU(acc[r][c], sums + (r * kCols + c) * kLanes);
  }
}

template <class Format, int kPanels, int kRows>
static TileFunction find_tile(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return find_tile<Format, kPanels, kRows - 1>(rows);
  }
  return multiply_tile<Format, kRows, kPanels>;
}

// 1 <= rows <= kTileRows; `panels` is 1, kTilePanels, or for one row kRowPanels.
template <class Format>
static TileFunction find_tile(int64_t rows, int64_t panels) {
  if (panels == 1) return find_tile<Format, 1, kTileRows>(rows);
  if (panels == kTilePanels) return find_tile<Format, kTilePanels, kTileRows>(rows);
  return multiply_tile<Format, 1, kRowPanels>;
}

// Sums of one tile, [rows][ld], into y.
struct FinishArgs {
  const float* sums;
  int64_t ld, m, rows, n, cols;
  const float* tail;  // of the first panel
  int64_t ldw;        // from one panel to the next
};

// Integer sums as floats; `j` is the first column of the vector in the tile.
template <class Format>
static TRINE_INLINE Vec dequantised(const FinishArgs& t, int64_t k, int64_t j, Vec sums,
                                    const QuantisedRow& row) {
  const float* const tail = t.tail + j / kPanel * t.ldw + j % kPanel;
  const float* const lines = tail - Format::lines(k) * kPanel;
  // Nearly every row has them all; those that lack have nothing beyond their bytes.
  TRINE_UNROLL for (const QuantisedRow::Outlier& outlier : row.outlier) {
    const Vec bytes = TopByteOfInt32(ShiftLeftInt32(LoadU(lines + outlier.line), outlier.shift));
    sums = MulAddInt16(SetInt32(outlier.rest), bytes, sums);
  }
  if constexpr (Format::kOffset != 0) sums = SubInt32(sums, LoadU(tail + kPanel));
  return Mul(Mul(FloatOfInt32(sums), LoadU(tail)), Set(row.scale));
}

template <class Format, Activation kActivation>
static TRINE_NOINLINE void finish_tile(const LinearArgs& args, const FinishArgs& t) {
  for (int64_t j = 0; j < t.cols; j += Vec::kLanes) {
    const int64_t lanes = at_most(t.cols - j, Vec::kLanes);
    const bool full = lanes == Vec::kLanes;
    const int64_t n = t.n + j;
    Vec bias = Zero();
    if (args.bias != nullptr) bias = full ? LoadU(args.bias + n) : LoadN(args.bias + n, lanes);
    for (int64_t r = 0; r < t.rows; ++r) {
      Vec v = LoadU(t.sums + r * t.ld + j);
      if constexpr (Format::kQuantised)
        v = dequantised<Format>(t, args.k, j, v, args.x_rows[t.m + r]);
      if (args.bias != nullptr) v = Add(v, bias);
      v = Activate(v, kActivation);
      if (args.residual != nullptr) {
        const float* residual = args.residual + (t.m + r) * args.ldr + n;
        v = Add(v, full ? LoadU(residual) : LoadN(residual, lanes));
      }
      float* y = args.y + (t.m + r) * args.ldy + n;
      if (full) {
        StoreU(v, y);
      } else {
        StoreN(v, y, lanes);
      }
    }
  }
}

template <class Format>
static void finish_tile(const LinearArgs& args, const FinishArgs& t) {
  switch (args.activation) {
    case Activation::kNone:
      return finish_tile<Format, Activation::kNone>(args, t);
    case Activation::kGelu:
      return finish_tile<Format, Activation::kGelu>(args, t);
    case Activation::kGeluTanh:
      return finish_tile<Format, Activation::kGeluTanh>(args, t);
    case Activation::kRelu:
      return finish_tile<Format, Activation::kRelu>(args, t);
    case Activation::kTanh:
      return finish_tile<Format, Activation::kTanh>(args, t);
    case Activation::kSigmoid:
      return finish_tile<Format, Activation::kSigmoid>(args, t);
    case Activation::kSilu:
      return finish_tile<Format, Activation::kSilu>(args, t);
    case Activation::kQuickGelu:
      return finish_tile<Format, Activation::kQuickGelu>(args, t);
  }
}

// Whether rows of x this far apart compete for so few sets of the caches that a tile evicts its own
// rows.
static bool rows_collide(int64_t ldx, int64_t rows) { return ldx % 1024 == 0 && rows > 4; }

// Lines [line, line + lines) of some rows of x.
template <class Format>
static void pack_rows(const LinearArgs& args, int64_t m, int64_t rows, int64_t line, int64_t lines,
                      float* packed) {
  const int64_t k0 = line * Format::kElements;
  const int64_t k = at_most(args.k - k0, lines * Format::kElements);
  if constexpr (!Format::kQuantised) {
    for (int64_t r = 0; r < rows; ++r) {
      Format::convert(args.x + (m + r) * args.ldx + k0, k, lines, packed + r * kPackedStride);
    }
  }
}

template <class Format>
static bool packs_rows(const LinearArgs& args, int64_t rows) {
  return Format::kConverts || (!Format::kQuantised && rows_collide(args.ldx, rows));
}

// Scratch: partial sums, then packed rows: one block of K of kBlockRows, or all of K of kTileRows.
constexpr int64_t kSumsFloats = kBlockRows * kBlockPanels * kPanel;

template <class Format>
static size_t scratch_bytes(int64_t k) noexcept {
  const int64_t rows = kTileRows * ceil_div(Format::lines(k), Blocks<Format>::kLines);
  return static_cast<size_t>(kSumsFloats +
                             (rows < kBlockRows ? kBlockRows : rows) * kPackedStride) *
         sizeof(float);
}

// A block of y: rows [m, m + rows), panels [p0, p1) of a call that goes on to panel `last`.
struct Block {
  int64_t m, rows, p0, p1, last;
};

// Few rows: one tile high. Panel by panel, so that w is read in the order it lies in memory.
template <class Format>
static void linear_flat(const LinearArgs& args, const Block& b, float* scratch) {
  constexpr int64_t kLines = Blocks<Format>::kLines;
  const int64_t depth = Format::lines(args.k), panel = panel_floats<Format>(args.k);
  const float* const all_w = static_cast<const float*>(args.w);
  float* const packed = scratch + kSumsFloats;
  const bool pack = packs_rows<Format>(args, b.rows);
  for (int64_t l0 = 0; pack && l0 < depth; l0 += kLines) {
    pack_rows<Format>(args, b.m, b.rows, l0, at_most(depth - l0, kLines),
                      packed + l0 / kLines * b.rows * kPackedStride);
  }
  const int64_t ldx = pack ? kPackedStride : args.ldx;
  // Even parts, for each prefetches as many lines as it has. Rows that are packed have whole parts.
  int64_t part = Blocks<Format>::kFlatLines;
  if (Format::kQuantised) part = ceil_div(depth, ceil_div(depth, part));
  int64_t panels = b.rows == 1 ? kRowPanels : kTilePanels;
  for (int64_t p = b.p0; p < b.p1; p += panels) {
    if (panels > b.p1 - p) panels = 1;
    const TileFunction tile = find_tile<Format>(b.rows, panels);
    const float* const w = all_w + p * panel;
    for (int64_t l0 = 0; l0 < depth; l0 += part) {
      const int64_t lines = at_most(depth - l0, part);
      const float* const xs =
          pack ? packed + l0 / kLines * b.rows * kPackedStride + l0 % kLines * Format::kSteps
               : args.x + b.m * args.ldx + l0 * Format::kSteps;
      const bool last = l0 + lines == depth;
      const bool fetch = !last || p + panels < b.p1;
      const float* const next = last ? w + panels * panel : w + (l0 + lines) * kPanel;
      tile({xs, ldx, w + l0 * kPanel, panel, lines, scratch, l0 == 0, fetch ? next : w,
            fetch ? kPanel : 0});
    }
    const int64_t n = p * kPanel, cols = panels * kPanel;
    finish_tile<Format>(args, {scratch, cols, b.m, b.rows, n, at_most(args.n - n, cols),
                               w + depth * kPanel, panel});
  }
}

// Asks for what finish_tile will touch, while there is arithmetic to hide behind.
static TRINE_INLINE void prefetch_block(const float* data, int64_t ld, int64_t rows,
                                        int64_t panels) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t p = 0; p < panels; ++p) TRINE_PREFETCH(data + r * ld + p * kPanel);
  }
}

// The slab that is multiplied after the one at (p, l0).
template <class Format>
static const float* next_slab(const LinearArgs& args, const Block& b, int64_t p, int64_t panels,
                              int64_t l0) {
  const int64_t depth = Format::lines(args.k), panel = panel_floats<Format>(args.k);
  const float* const w = static_cast<const float*>(args.w);
  if (p + panels < b.p1) return w + (p + panels) * panel + l0 * kPanel;
  l0 += Blocks<Format>::kLines;
  if (l0 < depth) return w + b.p0 * panel + l0 * kPanel;
  return b.p1 < b.last ? w + b.p1 * panel : nullptr;
}

template <class Format>
static void linear_block(const LinearArgs& args, const Block& b, float* scratch) {
  constexpr int64_t kLines = Blocks<Format>::kLines;
  const int64_t depth = Format::lines(args.k), panel = panel_floats<Format>(args.k);
  const int64_t tiles = ceil_div(b.rows, kTileRows);
  const bool pack = packs_rows<Format>(args, b.rows);
  // The tiles of a column share the work of prefetching the next slab: each line in `tiles` parts.
  const int64_t share = tiles < kPanel ? ceil_div(kPanel, tiles) : 1;
  float* const packed = scratch + kSumsFloats;
  const int64_t ldx = pack ? kPackedStride : args.ldx;
  for (int64_t l0 = 0; l0 < depth; l0 += kLines) {
    const int64_t lines = at_most(depth - l0, kLines);
    const bool last = l0 + lines == depth;
    if (pack) pack_rows<Format>(args, b.m, b.rows, l0, lines, packed);
    const float* const x = pack ? packed : args.x + b.m * args.ldx + l0 * Format::kSteps;
    float* sums = scratch;
    int64_t panels = kTilePanels;
    for (int64_t p = b.p0; p < b.p1; p += panels) {
      if (panels > b.p1 - p) panels = 1;
      const float* const w = static_cast<const float*>(args.w) + p * panel + l0 * kPanel;
      const float* const next = next_slab<Format>(args, b, p, panels, l0);
      const int64_t n = p * kPanel, cols = panels * kPanel;
      for (int64_t t = 0, r = 0; t < tiles; ++t) {
        const int64_t rows = even_part(b.rows, tiles, t), m = b.m + r;
        const bool fetch = next != nullptr && t * share < kPanel;
        if (last) prefetch_block(args.y + m * args.ldy + n, args.ldy, rows, panels);
        if (last && args.residual != nullptr) {
          prefetch_block(args.residual + m * args.ldr + n, args.ldr, rows, panels);
        }
        find_tile<Format>(rows, panels)({x + r * ldx, ldx, w, panel, lines, sums, l0 == 0,
                                         fetch ? next + t * share * lines : w, fetch ? share : 0});
        if (last)
          finish_tile<Format>(
              args, {sums, cols, m, rows, n, at_most(args.n - n, cols), w + lines * kPanel, panel});
        sums += rows * cols;
        r += rows;
      }
    }
  }
}

template <class Format>
static void multiply(const LinearArgs& args, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                     std::byte* scratch) noexcept {
  float* const floats = reinterpret_cast<float*>(scratch);
  const int64_t first = n0 / kPanel, last = ceil_div(n1, kPanel);
  const int64_t row_blocks = ceil_div(m1 - m0, kBlockRows);
  const int64_t panel_blocks = ceil_div(last - first, kBlockPanels);
  Block block = {m0, 0, first, last, last};
  for (int64_t i = 0; i < row_blocks; ++i, block.m += block.rows) {
    block.rows = even_part(m1 - m0, row_blocks, i);
    if (block.rows <= kTileRows) {
      linear_flat<Format>(args, block, floats);
      continue;
    }
    block.p1 = first;
    for (int64_t j = 0; j < panel_blocks; ++j) {
      block.p0 = block.p1;
      block.p1 += even_part(last - first, panel_blocks, j);
      linear_block<Format>(args, block, floats);
    }
    block.p0 = first;
    block.p1 = last;
  }
}

constexpr LinearKernel kLinear = {multiply<Float32Format>, scratch_bytes<Float32Format>};
