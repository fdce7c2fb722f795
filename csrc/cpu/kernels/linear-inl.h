// SPDX-License-Identifier: Apache-2.0
// y = act(x w^T + bias) + residual in fp32 on packed panels [ceil(N / 16)][K][16].
//
// Tile: rows x panels of y in registers. Each step of k reads a line per panel and broadcasts one x
// per row.
// - AVX-512: 14 x 2, 28 accumulators + 2 of w + 1 of x = 31 of 32 registers, 28 FMA to 16 loads.
// - AVX2: 6 x 1, 12 + 2 + 1 = 15 of 16 registers, 12 FMA to 8 loads.
// - NEON: 5 x 1, 20 + 4 + 5 = 29 of 32 registers.
// - One row: 4 panels, for enough independent sums to hide the latency of an FMA.
//
// Rows are split evenly (15 = 8 + 7): no tile computes rows that do not exist.
//
// Blocks: 256 of K, so that the slab of w that a column of tiles shares (32 KiB, on AVX2 16) stays
// in L1; 112 rows and 24 panels, so that partial sums, which wait in scratch between blocks of K,
// stay in L2. While one slab is multiplied the next is prefetched: w arrives from memory behind the
// arithmetic. With rows for one tile only, w is used once: it is read straight through, with 16 KiB
// prefetched ahead.
//
// Order: an element of y is one chain of FMA over ascending k that starts at 0 and stays in float,
// so its bits depend neither on the tile, nor on blocks, other rows or threads.
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

constexpr int64_t kBlockK = 256;
constexpr int64_t kFlatBlockK = kBlockK / kTilePanels;  // rows for one tile only
constexpr int64_t kBlockRows = 112 / kTileRows * kTileRows;
constexpr int64_t kBlockPanels = 24;
// An odd number of lines from one packed row to the next: rows then fall into different sets of the
// cache.
constexpr int64_t kPackedStride = kBlockK + kPanel;

static TRINE_INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static TRINE_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// Size of part i when `total` is split into `parts` that differ by one at most.
static TRINE_INLINE int64_t even_part(int64_t total, int64_t parts, int64_t i) {
  return total / parts + (i < total % parts ? 1 : 0);
}

// One tile's share of one block of K. Prefetches `k` times a line of each panel from `next` on,
// `next_step` floats on each time; that these may lie behind the last panel does no harm.
struct TileArgs {
  const float* x;
  int64_t ldx;
  const float* w;
  int64_t ldw;  // from one panel to the next
  int64_t k;
  float* sums;  // [rows][panels * 16]
  bool first;   // start from 0 instead of `sums`
  const float* next;
  int64_t next_step;
};
using TileFunction = void (*)(const TileArgs&);

template <int kRows, int kPanels>
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
  for (const float* const end = x + t.k; x != end; ++x, w += kPanel, next += next_step) {
    if constexpr (kPrefetch) {
      TRINE_UNROLL for (int p = 0; p < kPanels; ++p) TRINE_PREFETCH(next + p * ldw);
    }
    // The operand with fewer vectors is held, the other streams through one register.
    if constexpr (kRows <= kCols) {
      Vec xs[kRows];
      TRINE_UNROLL for (int r = 0; r < kRows; ++r) xs[r] = Set(x[r * ldx]);
      TRINE_UNROLL for (int c = 0; c < kCols; ++c) {
        const Vec ws = LoadU(w + c / kPanelVecs * ldw + c % kPanelVecs * kLanes);
        TRINE_UNROLL for (int r = 0; r < kRows; ++r) acc[r][c] = MulAdd(xs[r], ws, acc[r][c]);
      }
    } else {
      Vec ws[kCols];
      TRINE_UNROLL for (int c = 0; c < kCols; ++c) {
        ws[c] = LoadU(w + c / kPanelVecs * ldw + c % kPanelVecs * kLanes);
      }
      TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
        const Vec xs = Set(x[r * ldx]);
        TRINE_UNROLL for (int c = 0; c < kCols; ++c) acc[r][c] = MulAdd(xs, ws[c], acc[r][c]);
      }
    }
  }
  TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
    TRINE_UNROLL for (int c = 0; c < kCols; ++c) StoreU(acc[r][c], sums + (r * kCols + c) * kLanes);
  }
}

template <int kPanels, int kRows>
static TileFunction find_tile(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return find_tile<kPanels, kRows - 1>(rows);
  }
  return multiply_tile<kRows, kPanels>;
}

// 1 <= rows <= kTileRows; `panels` is 1, kTilePanels, or for one row kRowPanels.
static TileFunction find_tile(int64_t rows, int64_t panels) {
  if (panels == 1) return find_tile<1, kTileRows>(rows);
  if (panels == kTilePanels) return find_tile<kTilePanels, kTileRows>(rows);
  return multiply_tile<1, kRowPanels>;
}

// Sums of one tile, [rows][ld], into y.
struct FinishArgs {
  const float* sums;
  int64_t ld, m, rows, n, cols;
};

template <Activation kActivation>
static TRINE_NOINLINE void finish_tile(const LinearArgs& args, const FinishArgs& t) {
  for (int64_t j = 0; j < t.cols; j += Vec::kLanes) {
    const int64_t lanes = at_most(t.cols - j, Vec::kLanes);
    const bool full = lanes == Vec::kLanes;
    const int64_t n = t.n + j;
    Vec bias = Zero();
    if (args.bias != nullptr) bias = full ? LoadU(args.bias + n) : LoadN(args.bias + n, lanes);
    for (int64_t r = 0; r < t.rows; ++r) {
      Vec v = LoadU(t.sums + r * t.ld + j);
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

static void finish_tile(const LinearArgs& args, const FinishArgs& t) {
  switch (args.activation) {
    case Activation::kNone:
      return finish_tile<Activation::kNone>(args, t);
    case Activation::kGelu:
      return finish_tile<Activation::kGelu>(args, t);
    case Activation::kGeluTanh:
      return finish_tile<Activation::kGeluTanh>(args, t);
    case Activation::kRelu:
      return finish_tile<Activation::kRelu>(args, t);
    case Activation::kTanh:
      return finish_tile<Activation::kTanh>(args, t);
    case Activation::kSigmoid:
      return finish_tile<Activation::kSigmoid>(args, t);
    case Activation::kSilu:
      return finish_tile<Activation::kSilu>(args, t);
    case Activation::kQuickGelu:
      return finish_tile<Activation::kQuickGelu>(args, t);
  }
}

// Whether rows of x this far apart compete for so few sets of the caches that a tile evicts its own
// rows.
static bool rows_collide(int64_t ldx, int64_t rows) { return ldx % 1024 == 0 && rows > 4; }

static void pack_rows(const float* x, int64_t ldx, int64_t rows, int64_t k, float* packed) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = x + r * ldx;
    float* to = packed + r * kPackedStride;
    int64_t i = 0;
    for (; i + Vec::kLanes <= k; i += Vec::kLanes) StoreU(LoadU(from + i), to + i);
    StoreN(LoadN(from + i, k - i), to + i, k - i);
  }
}

// Scratch: partial sums, then packed rows: one block of K of kBlockRows, or all of K of kTileRows.
constexpr int64_t kSumsFloats = kBlockRows * kBlockPanels * kPanel;

static size_t linear_scratch_bytes(int64_t k) noexcept {
  const int64_t rows = kTileRows * ceil_div(k, kBlockK);
  return static_cast<size_t>(kSumsFloats +
                             (rows < kBlockRows ? kBlockRows : rows) * kPackedStride) *
         sizeof(float);
}

// A block of y: rows [m, m + rows), panels [p0, p1) of a call that goes on to panel `last`.
struct Block {
  int64_t m, rows, p0, p1, last;
};

// Few rows: one tile high. Panel by panel, so that w is read in the order it lies in memory.
static void linear_flat(const LinearArgs& args, const Block& b, float* scratch) {
  const int64_t panel = args.k * kPanel;
  const float* const x = args.x + b.m * args.ldx;
  float* const packed = scratch + kSumsFloats;
  const bool pack = rows_collide(args.ldx, b.rows);
  for (int64_t k0 = 0; pack && k0 < args.k; k0 += kBlockK) {
    pack_rows(x + k0, args.ldx, b.rows, at_most(args.k - k0, kBlockK),
              packed + k0 / kBlockK * b.rows * kPackedStride);
  }
  const int64_t ldx = pack ? kPackedStride : args.ldx;
  int64_t panels = b.rows == 1 ? kRowPanels : kTilePanels;
  for (int64_t p = b.p0; p < b.p1; p += panels) {
    if (panels > b.p1 - p) panels = 1;
    const TileFunction multiply = find_tile(b.rows, panels);
    const float* const w = args.w + p * panel;
    for (int64_t k0 = 0; k0 < args.k; k0 += kFlatBlockK) {
      const int64_t k = at_most(args.k - k0, kFlatBlockK);
      const float* const xs =
          pack ? packed + k0 / kBlockK * b.rows * kPackedStride + k0 % kBlockK : x + k0;
      const bool last = k0 + k == args.k;
      const bool fetch = !last || p + panels < b.p1;
      const float* const next = last ? w + panels * panel : w + (k0 + k) * kPanel;
      multiply({xs, ldx, w + k0 * kPanel, panel, k, scratch, k0 == 0, fetch ? next : w,
                fetch ? kPanel : 0});
    }
    const int64_t n = p * kPanel, cols = panels * kPanel;
    finish_tile(args, {scratch, cols, b.m, b.rows, n, at_most(args.n - n, cols)});
  }
}

// Asks for what finish_tile will touch, while there is arithmetic to hide behind.
static TRINE_INLINE void prefetch_block(const float* data, int64_t ld, int64_t rows,
                                        int64_t panels) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t p = 0; p < panels; ++p) TRINE_PREFETCH(data + r * ld + p * kPanel);
  }
}

// The slab that is multiplied after the one at (p, k0).
static const float* next_slab(const LinearArgs& args, const Block& b, int64_t p, int64_t panels,
                              int64_t k0) {
  const int64_t panel = args.k * kPanel;
  if (p + panels < b.p1) return args.w + (p + panels) * panel + k0 * kPanel;
  if (k0 + kBlockK < args.k) return args.w + b.p0 * panel + (k0 + kBlockK) * kPanel;
  return b.p1 < b.last ? args.w + b.p1 * panel : nullptr;
}

static void linear_block(const LinearArgs& args, const Block& b, float* scratch) {
  const int64_t tiles = ceil_div(b.rows, kTileRows);
  const bool pack = rows_collide(args.ldx, b.rows);
  // The tiles of a column share the work of prefetching the next slab: each line in `tiles` parts.
  const int64_t share = tiles < kPanel ? ceil_div(kPanel, tiles) : 1;
  float* const packed = scratch + kSumsFloats;
  for (int64_t k0 = 0; k0 < args.k; k0 += kBlockK) {
    const int64_t k = at_most(args.k - k0, kBlockK);
    const bool last = k0 + k == args.k;
    const float* x = args.x + b.m * args.ldx + k0;
    if (pack) {
      pack_rows(x, args.ldx, b.rows, k, packed);
      x = packed;
    }
    const int64_t ldx = pack ? kPackedStride : args.ldx;
    float* sums = scratch;
    int64_t panels = kTilePanels;
    for (int64_t p = b.p0; p < b.p1; p += panels) {
      if (panels > b.p1 - p) panels = 1;
      const float* const w = args.w + p * args.k * kPanel + k0 * kPanel;
      const float* const next = next_slab(args, b, p, panels, k0);
      const int64_t n = p * kPanel, cols = panels * kPanel;
      for (int64_t t = 0, r = 0; t < tiles; ++t) {
        const int64_t rows = even_part(b.rows, tiles, t), m = b.m + r;
        const bool fetch = next != nullptr && t * share < kPanel;
        if (last) prefetch_block(args.y + m * args.ldy + n, args.ldy, rows, panels);
        if (last && args.residual != nullptr) {
          prefetch_block(args.residual + m * args.ldr + n, args.ldr, rows, panels);
        }
        find_tile(rows, panels)({x + r * ldx, ldx, w, args.k * kPanel, k, sums, k0 == 0,
                                 fetch ? next + t * share * k : w, fetch ? share : 0});
        if (last) finish_tile(args, {sums, cols, m, rows, n, at_most(args.n - n, cols)});
        sums += rows * cols;
        r += rows;
      }
    }
  }
}

static void linear(const LinearArgs& args, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                   std::byte* scratch) noexcept {
  float* const floats = reinterpret_cast<float*>(scratch);
  const int64_t first = n0 / kPanel, last = ceil_div(n1, kPanel);
  const int64_t row_blocks = ceil_div(m1 - m0, kBlockRows);
  const int64_t panel_blocks = ceil_div(last - first, kBlockPanels);
  Block block = {m0, 0, first, last, last};
  for (int64_t i = 0; i < row_blocks; ++i, block.m += block.rows) {
    block.rows = even_part(m1 - m0, row_blocks, i);
    if (block.rows <= kTileRows) {
      linear_flat(args, block, floats);
      continue;
    }
    block.p1 = first;
    for (int64_t j = 0; j < panel_blocks; ++j) {
      block.p0 = block.p1;
      block.p1 += even_part(last - first, panel_blocks, j);
      linear_block(args, block, floats);
    }
    block.p0 = first;
    block.p1 = last;
  }
}
