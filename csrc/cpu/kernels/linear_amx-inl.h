// SPDX-License-Identifier: Apache-2.0
// linear on bf16 and int8 weights by AMX. 16 lines of a panel, 32 or 64 of K, are a tile as they
// lie. x is prepared once for all columns: converted or quantised into tiles of 16 rows by 64
// bytes, 1 KiB each, those of 16 rows end to end, so that a tile is 16 neighbouring lines of the
// cache.
//
// Tiles: 2 x 2 of sums (registers 0 to 3), two of x (4, 5), two of w (6, 7): 4 multiplications of
// 16 cycles to 4 KiB of loads, which L1 delivers in 32 cycles and L2 in 85. K is not cut: sums stay
// in registers until they are finished. Two panels of w pass by all rows of x, whose tiles come
// from L2: rows are taken as many at a time as fit there. Meanwhile the next two panels are fetched
// into L2, each line once.
//
// Order (of bf16): an element is a chain over blocks of 32 of K in ascending order; within a block
// the processor adds up even and odd elements apart. Rows, blocks and threads have no part in it.
//
// A tile that is not full of rows takes as long as a full one, and what it makes of rows that do
// not exist is left in scratch. Tiles are configured for the length of one call, since any thread
// may be the caller.
//
// Bound: the multiplications, 16 cycles each. Measured on one core of an Emerald Rapids whose
// multiplications alone reach 2800 GFLOP/s: see docs/decisions.md.
//
// Needs linear-inl.h, linear_int8-inl.h, Tile..() and a Format whose convert() gives pairs of bf16.

constexpr int64_t kAmxRows = 32;  // two tiles
constexpr int64_t kTileLines = 16;
constexpr int64_t kTileFloats = kTileLines * kPanel;
constexpr int64_t kTileStride = 64;
constexpr int64_t kAmxBlockFloats = int64_t{1} << 18;  // of x: half of a core's L2

static TRINE_INLINE float* amx_row(float* rows, int64_t m, int64_t words) {
  return rows + m / kTileLines * kTileLines * words + m % kTileLines * kPanel;
}

struct AmxInt8Format : Int8Base {
  static constexpr int kSteps = 1;
  static constexpr int kOffset = 128;
  static constexpr int64_t kPieceStride = kTileLines * kTileStride;
  static TRINE_INLINE float* row(float* rows, int64_t m, int64_t words) {
    return amx_row(rows, m, words);
  }
};

template <class Format>
static int64_t amx_row_words(int64_t k) noexcept {
  return Format::lines(k);
}

template <class Format>
static int64_t amx_item_rows(int64_t k) noexcept {
  const int64_t rows = kAmxBlockFloats / Format::lines(k) / kAmxRows * kAmxRows;
  return rows > kAmxRows ? rows : kAmxRows;
}

struct AmxTiles {
  const float* x;      // the first step's tile of the first 16 rows
  const float* below;  // likewise of the second 16
  const float* w;
  int64_t ldw;  // from one panel to the next
  int64_t steps;
  float* sums;         // [16 or 32][panels * 16]
  const float* next;   // of the panels to come
  int64_t next_lines;  // of each of them, to prefetch at each step
};

// The product of two tiles; compilers take no number of a tile from a variable.
#define TRINE_TILE_MULTIPLY(sums, x, w) \
  do {                                  \
    if constexpr (Format::kQuantised) { \
      TileMultiplyBytes(sums, x, w);    \
    } else {                            \
      TileMultiply(sums, x, w);         \
    }                                   \
  } while (false)

template <class Format, int kRowTiles, int kPanels>
static TRINE_NOINLINE void multiply_tiles(const AmxTiles& t) {
  constexpr int64_t kStride = kPanels * kPanel * static_cast<int64_t>(sizeof(float));
  TileZero(0);
  if constexpr (kPanels > 1) TileZero(1);
  if constexpr (kRowTiles > 1) TileZero(2);
  if constexpr (kRowTiles > 1 && kPanels > 1) TileZero(3);
  const float* x = t.x;
  const float* x_below = t.below;
  const float* w = t.w;
  const float* next = t.next;
  const int64_t ldw = t.ldw, next_lines = t.next_lines;
  for (int64_t step = t.steps; step > 0; --step) {
    TileLoad(6, w, kTileStride);
    TileLoadStream(4, x, kTileStride);
    TRINE_TILE_MULTIPLY(0, 4, 6);
    if constexpr (kPanels > 1) {
      TileLoad(7, w + ldw, kTileStride);
      TRINE_TILE_MULTIPLY(1, 4, 7);
    }
    if constexpr (kRowTiles > 1) {
      TileLoadStream(5, x_below, kTileStride);
      TRINE_TILE_MULTIPLY(2, 5, 6);
      if constexpr (kPanels > 1) TRINE_TILE_MULTIPLY(3, 5, 7);
    }
    x += kTileFloats;
    x_below += kTileFloats;
    w += kTileFloats;
    for (int64_t i = 0; i < next_lines; ++i, next += kPanel) {
      TRINE_UNROLL for (int p = 0; p < kPanels; ++p) TRINE_PREFETCH_L2(next + p * ldw);
    }
  }
  float* const below = t.sums + kTileLines * kPanels * kPanel;
  TileStore(0, t.sums, kStride);
  if constexpr (kPanels > 1) TileStore(1, t.sums + kPanel, kStride);
  if constexpr (kRowTiles > 1) TileStore(2, below, kStride);
  if constexpr (kRowTiles > 1 && kPanels > 1) TileStore(3, below + kPanel, kStride);
}

#undef TRINE_TILE_MULTIPLY

// Rows of x as bf16 into tiles.
template <class Format>
static void amx_convert(const LinearArgs& args, int64_t m0, int64_t m1, float* rows,
                        QuantisedRow*) noexcept {
  constexpr int64_t kRun = 16 * kPanel;  // at a time
  const int64_t words = amx_row_words<Format>(args.k);
  alignas(64) float run[kRun];
  for (int64_t m = m0; m < m1; ++m) {
    float* to = amx_row(rows, m, words);
    for (int64_t l = 0; l < words; l += kRun) {
      const int64_t lines = at_most(words - l, kRun), k0 = l * Format::kElements;
      Format::convert(args.x + m * args.ldx + k0, at_most(args.k - k0, lines * Format::kElements),
                      lines, run);
      for (int64_t s = 0; s < lines; s += kPanel, to += kTileFloats) {
        TRINE_UNROLL for (int64_t i = 0; i < kPanel; i += Vec::kLanes) {
          StoreU(LoadU(run + s + i), to + i);
        }
      }
    }
  }
}

template <class Format, int kPanels>
static TRINE_INLINE void amx_panels(const LinearArgs& args, const Block& b, int64_t p,
                                    float* sums) {
  const int64_t depth = Format::lines(args.k), panel = panel_floats<Format>(args.k);
  const int64_t steps = depth / kTileLines, parts = ceil_div(b.rows, kAmxRows);
  const int64_t share = ceil_div(kTileLines, parts);
  const float* const w = static_cast<const float*>(args.w) + p * panel;
  const float* const next = w + kPanels * panel;
  const bool more = p + kPanels < b.last;
  const int64_t n = p * kPanel, cols = kPanels * kPanel;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t m = b.m + part * kAmxRows, rows = at_most(b.m + b.rows - m, kAmxRows);
    const bool fetch = more && part * share < kTileLines;
    prefetch_block(args.y + m * args.ldy + n, args.ldy, rows, kPanels);
    if (args.residual != nullptr)
      prefetch_block(args.residual + m * args.ldr + n, args.ldr, rows, kPanels);
    const float* const x = args.x + m * args.ldx;
    const AmxTiles t{x,
                     x + kTileLines * args.ldx,
                     w,
                     panel,
                     steps,
                     sums,
                     fetch ? next + part * share * steps * kPanel : w,
                     fetch ? share : 0};
    if (rows > kTileLines) {
      multiply_tiles<Format, 2, kPanels>(t);
    } else {
      multiply_tiles<Format, 1, kPanels>(t);
    }
    finish_tile<Format>(
        args, {sums, cols, m, rows, n, at_most(args.n - n, cols), w + depth * kPanel, panel});
  }
}

template <class Format>
static void multiply_amx(const LinearArgs& args, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                         std::byte* scratch) noexcept {
  TileConfigure();
  float* const sums = reinterpret_cast<float*>(scratch);
  const int64_t last = ceil_div(n1, kPanel), block = amx_item_rows<Format>(args.k);
  for (int64_t m = m0; m < m1; m += block) {
    const Block b = {m, at_most(m1 - m, block), n0 / kPanel, last, last};
    int64_t p = b.p0;
    for (; p + 2 <= last; p += 2) amx_panels<Format, 2>(args, b, p, sums);
    if (p < last) amx_panels<Format, 1>(args, b, p, sums);
  }
  TileRelease();
}

static size_t amx_scratch_bytes(int64_t) noexcept {
  return static_cast<size_t>(kAmxRows * 2 * kPanel) * sizeof(float);
}

static int64_t amx_row_step(int64_t) noexcept { return kAmxRows; }

template <class Format>
constexpr LinearKernel amx_bf16_kernel() {
  return {multiply_amx<Format>, amx_scratch_bytes,     amx_row_step,
          amx_convert<Format>,  amx_row_words<Format>, amx_item_rows<Format>};
}

constexpr LinearKernel amx_int8_kernel() {
  return {multiply_amx<AmxInt8Format>, amx_scratch_bytes,        amx_row_step,
          quantise<AmxInt8Format>,     row_words<AmxInt8Format>, amx_item_rows<AmxInt8Format>};
}
