// SPDX-License-Identifier: Apache-2.0
// The products of attention-inl.h by AMX, for bf16: what it packs are tiles as they lie. 16 lines
// of a panel of K (or of a position table) are one, 16 lines of 16 columns of V are one, and so are
// 16 floats, pairs of bf16, of 16 rows in strips. Scores are stored from tiles into strips.
//
// Blocks are two tiles of queries high, so that each tile of K and V is multiplied twice: 2 x 2
// tiles of sums, 4 multiplications of 16 cycles to 4 KiB of loads, most of them from L1.
//
// Order: a score sums its coordinates, and an output its keys, in blocks of 32 in ascending order;
// within a block the processor adds up even and odd elements apart. What keys are missing in the
// last block is zero.
//
// Columns of a head come in whole tiles, 32 of them, and all keys are seen. With a causal mask, or
// a cache, it is the dot product's kernel, since a token must get the same bits with and without
// one.
//
// Bound: the exponentials. At 384 keys a row's products are 96 cycles of multiplications, and its
// softmax about 500.

template <class Base>
struct TiledFormat : Base {
  static constexpr int kTileRows = 16;
  static constexpr int64_t kDepth = kTileRows * Base::kElements;  // columns of a head come in these

  // Products of R rows in strips and NV vectors of columns of panels, to rows `ld` apart.
  template <int R, int NV>
  static TRINE_INLINE void panels(const float* rows, int64_t strip, int64_t lines,
                                  const float* panels, float* to, int64_t ld) {
    constexpr int64_t kTile = kTileRows * kPanel;
    multiply<R / kTileRows, NV * Vec::kLanes / static_cast<int>(kPanel)>(
        rows, strip, lines, {panels, kTile, kPanel, lines * kPanel}, to, ld);
  }

  // Products of R rows in strips and 32 columns of lines `ldv` apart.
  template <int R>
  static TRINE_INLINE void values(const float* rows, int64_t strip, int64_t lines, const float* v,
                                  int64_t ldv, float* to) {
    multiply<R / kTileRows, 2>(rows, strip, lines, {v, kTileRows * ldv, ldv, kPanel}, to,
                               2 * kPanel);
  }

 private:
  struct Operand {
    const float* data;
    int64_t step;  // from a tile to the one of the next lines
    int64_t line;  // from line to line
    int64_t next;  // from a tile to the one of the next columns
  };

  template <int kRowTiles, int kPanels>
  static TRINE_NOINLINE void multiply(const float* rows, int64_t strip, int64_t lines,
                                      const Operand& b, float* to, int64_t ld) {
    constexpr int64_t kBytes = sizeof(float);
    constexpr int64_t kRowStride = kStripStride * kBytes;
    TileZero(0);
    if constexpr (kPanels > 1) TileZero(1);
    if constexpr (kRowTiles > 1) TileZero(2);
    if constexpr (kRowTiles > 1 && kPanels > 1) TileZero(3);
    const float* tile = b.data;
    const int64_t stride = b.line * kBytes;
    for (int64_t l0 = 0; l0 < lines; l0 += kStripLength, rows += strip) {
      const int64_t run = at_most(lines - l0, kStripLength);
      for (int64_t l = 0; l < run; l += kTileRows, tile += b.step) {
        TileLoad(4, rows + l, kRowStride);
        TileLoad(6, tile, stride);
        TileMultiply(0, 4, 6);
        if constexpr (kPanels > 1) {
          TileLoad(7, tile + b.next, stride);
          TileMultiply(1, 4, 7);
        }
        if constexpr (kRowTiles > 1) {
          TileLoad(5, rows + kTileRows * kStripStride + l, kRowStride);
          TileMultiply(2, 5, 6);
          if constexpr (kPanels > 1) TileMultiply(3, 5, 7);
        }
      }
    }
    float* const below = to + kTileRows * ld;
    TileStore(0, to, ld * kBytes);
    if constexpr (kPanels > 1) TileStore(1, to + kPanel, ld * kBytes);
    if constexpr (kRowTiles > 1) TileStore(2, below, ld * kBytes);
    if constexpr (kRowTiles > 1 && kPanels > 1) TileStore(3, below + kPanel, ld * kBytes);
  }
};

// By tiles where they fit, else as `other` has it.
template <class Base, const AttentionKernel& kOther>
static void attention_amx(const AttentionArgs& args, int32_t sequence, int32_t head, int64_t q0,
                          int64_t q1, std::byte* scratch) noexcept {
  using Format = TiledFormat<Base>;
  if (args.causal || args.head_dim % Format::kDepth != 0)
    return kOther.run(args, sequence, head, q0, q1, scratch);
  TileConfigure();
  attention<Format>(args, sequence, head, q0, q1, scratch);
  TileRelease();
}

template <class Base, const AttentionKernel& kOther>
static size_t amx_attention_scratch_bytes(int64_t max_length, int64_t head_dim,
                                          int64_t position_columns) noexcept {
  const size_t tiled =
      attention_scratch_bytes<TiledFormat<Base>>(max_length, head_dim, position_columns);
  const size_t other = kOther.scratch_bytes(max_length, head_dim, position_columns);
  return tiled > other ? tiled : other;
}
