// SPDX-License-Identifier: Apache-2.0
// linear on bf16 and int8 weights by AMX. 16 lines of a panel, 32 or 64 of K, are a tile as they
// lie. For bf16 x is converted into tiles of 16 rows by 32 of K in scratch, 1 KiB each, so that no
// two lines of a tile fall into one set of the cache; quantised rows are read where they are.
//
// Tiles: 2 x 2 of sums (registers 0 to 3), two of x (4, 5), two of w (6, 7): 4 multiplications of
// 16 cycles to 4 KiB of loads, which L1 delivers in 32 cycles and L2 in 85. So two panels of w by a
// block of K, at most 32 KiB, have to stay in L1 while all row tiles pass; x comes from L2.
//
// Order (of bf16): an element is a chain over blocks of 32 of K in ascending order; within a block
// the processor adds up even and odd elements apart. Rows, blocks and threads have no part in it.
//
// A tile that is not full of rows takes as long as a full one; rows that do not exist are zero.
// Tiles are configured for the length of one call, since any thread may be the caller.
//
// Needs linear-inl.h, linear_int8-inl.h, Tile..() and a Format whose convert() gives pairs of bf16.

constexpr int64_t kAmxRows = 32;  // two tiles
constexpr int64_t kAmxBlockRows = 4 * kAmxRows;
constexpr int64_t kAmxBlockLines = 256;
constexpr int64_t kTileLines = 16;
constexpr int64_t kTileFloats = kTileLines * kPanel;
constexpr int64_t kTileStride = 64;
constexpr int64_t kAmxSumsFloats = kAmxBlockRows * kBlockPanels * kPanel;

struct AmxInt8Format : Int8Base {
  static constexpr int kSteps = 1;
  static constexpr int kOffset = 128;
};

struct AmxTiles {
  const float* x;      // the first step's tile of the first 16 rows
  const float* below;  // likewise of the second 16
  int64_t ldx;         // bytes from a row of a tile to the next
  int64_t step_x;      // floats from a tile to the next step's
  const float* w;
  int64_t ldw;  // from one panel to the next
  int64_t steps;
  float* sums;  // [16 or 32][panels * 16]
  bool first;   // start from 0 instead of `sums`
  const float* next;
  int64_t next_lines;  // of each panel, to prefetch at each step
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
  float* const below = t.sums + kTileLines * kPanels * kPanel;
  if (t.first) {
    TileZero(0);
    if constexpr (kPanels > 1) TileZero(1);
    if constexpr (kRowTiles > 1) TileZero(2);
    if constexpr (kRowTiles > 1 && kPanels > 1) TileZero(3);
  } else {
    TileLoad(0, t.sums, kStride);
    if constexpr (kPanels > 1) TileLoad(1, t.sums + kPanel, kStride);
    if constexpr (kRowTiles > 1) TileLoad(2, below, kStride);
    if constexpr (kRowTiles > 1 && kPanels > 1) TileLoad(3, below + kPanel, kStride);
  }
  const float* x = t.x;
  const float* x_below = t.below;
  const float* w = t.w;
  const float* next = t.next;
  const int64_t steps = t.steps, ldw = t.ldw, next_lines = t.next_lines;
  for (int64_t step = 0; step < steps; ++step, w += kTileFloats) {
    TileLoad(6, w, kTileStride);
    TileLoad(4, x, t.ldx);
    TRINE_TILE_MULTIPLY(0, 4, 6);
    if constexpr (kPanels > 1) {
      TileLoad(7, w + ldw, kTileStride);
      TRINE_TILE_MULTIPLY(1, 4, 7);
    }
    if constexpr (kRowTiles > 1) {
      TileLoad(5, x_below, t.ldx);
      TRINE_TILE_MULTIPLY(2, 5, 6);
      if constexpr (kPanels > 1) TRINE_TILE_MULTIPLY(3, 5, 7);
    }
    x += t.step_x;
    x_below += t.step_x;
    for (int64_t i = 0; i < next_lines; ++i, next += kPanel) {
      TRINE_UNROLL for (int p = 0; p < kPanels; ++p) TRINE_PREFETCH(next + p * ldw);
    }
  }
  TileStore(0, t.sums, kStride);
  if constexpr (kPanels > 1) TileStore(1, t.sums + kPanel, kStride);
  if constexpr (kRowTiles > 1) TileStore(2, below, kStride);
  if constexpr (kRowTiles > 1 && kPanels > 1) TileStore(3, below + kPanel, kStride);
}

#undef TRINE_TILE_MULTIPLY

// Rows of x, lines [line, line + 16 * steps), into tiles [row tile][steps][16][16].
template <class Format>
static void pack_tiles(const LinearArgs& args, const Block& b, int64_t line, int64_t steps,
                       float* tiles) {
  const int64_t lines = steps * kTileLines;
  const int64_t k0 = line * Format::kElements;
  const int64_t k = at_most(args.k - k0, lines * Format::kElements);
  alignas(64) float row[kAmxBlockLines];
  const int64_t rows = ceil_div(b.rows, kTileLines) * kTileLines;
  for (int64_t r = 0; r < rows; ++r) {
    const bool exists = r < b.rows;
    if (exists) Format::convert(args.x + (b.m + r) * args.ldx + k0, k, lines, row);
    float* to = tiles + (r / kTileLines * steps * kTileLines + r % kTileLines) * kPanel;
    for (int64_t s = 0; s < steps; ++s, to += kTileFloats) {
      for (int64_t i = 0; i < kPanel; i += Vec::kLanes) {
        StoreU(exists ? LoadU(row + s * kPanel + i) : Zero(), to + i);
      }
    }
  }
}

template <class Format>
static void amx_block(const LinearArgs& args, const Block& b, float* scratch) {
  const int64_t depth = Format::lines(args.k), panel = panel_floats<Format>(args.k);
  const int64_t all_steps = depth / kTileLines;
  const int64_t blocks = ceil_div(depth, kAmxBlockLines);
  const int64_t row_parts = ceil_div(b.rows, kAmxRows);
  float* const tiles = scratch + kAmxSumsFloats;
  for (int64_t block = 0, step = 0; block < blocks; ++block) {
    const int64_t steps = even_part(all_steps, blocks, block);
    const bool last = block + 1 == blocks;
    if constexpr (!Format::kQuantised) pack_tiles<Format>(args, b, step * kTileLines, steps, tiles);
    float* sums = scratch;
    int64_t panels = 2;
    for (int64_t p = b.p0; p < b.p1; p += panels) {
      if (panels > b.p1 - p) panels = 1;
      const float* const w = static_cast<const float*>(args.w) + p * panel + step * kTileFloats;
      // Within this block of K only: its end is one wait in some hundred tiles.
      const bool fetch = p + panels < b.p1;
      const int64_t share = ceil_div(kTileLines, row_parts);
      const int64_t n = p * kPanel, cols = panels * kPanel;
      for (int64_t part = 0; part < row_parts; ++part) {
        const int64_t r = part * kAmxRows, rows = at_most(b.rows - r, kAmxRows);
        const bool two = rows > kTileLines;
        const auto multiply =
            panels == 2 ? (two ? multiply_tiles<Format, 2, 2> : multiply_tiles<Format, 1, 2>)
                        : (two ? multiply_tiles<Format, 2, 1> : multiply_tiles<Format, 1, 1>);
        const float* const next = w + panels * panel + part * share * steps * kPanel;
        AmxTiles t{tiles + r * steps * kPanel,
                   tiles + (r + kTileLines) * steps * kPanel,
                   kTileStride,
                   kTileFloats,
                   w,
                   panel,
                   steps,
                   sums,
                   block == 0,
                   fetch ? next : w,
                   fetch ? share : 0};
        if constexpr (Format::kQuantised) {
          t.x = args.x + (b.m + r) * args.ldx + step * kPanel;
          t.below = t.x + kTileLines * args.ldx;
          t.ldx = args.ldx * static_cast<int64_t>(sizeof(float));
          t.step_x = kPanel;
        }
        multiply(t);
        if (last)
          finish_tile<Format>(args, {sums, cols, b.m + r, rows, n, at_most(args.n - n, cols),
                                     w + steps * kTileFloats, panel});
        sums += kAmxRows * cols;
      }
    }
    step += steps;
  }
}

template <class Format>
static void multiply_amx(const LinearArgs& args, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                         std::byte* scratch) noexcept {
  TileConfigure();
  const int64_t first = n0 / kPanel, last = ceil_div(n1, kPanel);
  const int64_t panel_blocks = ceil_div(last - first, kBlockPanels);
  Block b = {m0, 0, first, first, last};
  for (; b.m < m1; b.m += b.rows) {
    b.rows = at_most(m1 - b.m, kAmxBlockRows);
    b.p1 = first;
    for (int64_t j = 0; j < panel_blocks; ++j) {
      b.p0 = b.p1;
      b.p1 += even_part(last - first, panel_blocks, j);
      amx_block<Format>(args, b, reinterpret_cast<float*>(scratch));
    }
  }
  TileRelease();
}

static size_t amx_scratch_bytes(int64_t) noexcept {
  return static_cast<size_t>(kAmxSumsFloats + kAmxBlockRows * kAmxBlockLines) * sizeof(float);
}

constexpr LinearKernel amx_int8_kernel() {
  return {multiply_amx<AmxInt8Format>, amx_scratch_bytes, kAmxRows, quantise<AmxInt8Format>,
          row_words<AmxInt8Format>};
}
