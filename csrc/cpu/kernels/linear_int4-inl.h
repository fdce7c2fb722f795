// SPDX-License-Identifier: Apache-2.0
// linear on weights in groups of 32 of K with a scale and a minimum each (weights/groups.h), of 4
// bits or 8. x is rounded to 8 bits, in the same groups with a scale each, so that the products of
// a group are summed in integers, exactly:
//
//   y = sum over groups of (integer sum * w's scale) * x's scale + w's min * (x's scale * sum of x)
//
// Panels: for each group of K 5 lines of 64 bytes (9 with 8 bits), kernel_table.h. Four lines are
// masked and shifted into eight of 16 columns x 4 of K, which all rows of a tile share.
//
// Tile: rows x 1 panel, its float sums in registers from the first group to the last. A group takes
// 8 dot products, a product, a sum and two conversions a row.
// - AVX-512: 16 rows; 16 sums + 8 of w + scale + min + 4 sums of integers + 1 = 31 of 32 registers.
// - others: 4 rows; integer sums take their registers in turn.
//
// x is rounded once for a block of rows, into tiles that are read front to back. With rows for one
// tile only, w is read straight through with 4 KiB prefetched ahead; with more, a panel stays in
// L1 or L2 while the tiles pass, and each fetches its share of the next panel.
//
// Order: an element of y is one chain of FMA over ascending groups, whose integer sums are exact.
// So its bits depend neither on the tile, nor on blocks, other rows, threads or instruction sets.
//
// Bound: the bandwidth that w is read with up to some ten rows, then the dot products (8 of 11
// instructions on their ports).

constexpr int kGroupTileRows = Vec::kLanes == 16 ? 16 : 4;
// Bytes of rounded x that a block may take: half of a small L2.
constexpr int64_t kGroupBlockBytes = int64_t{512} << 10;
// Of one group of one row: 32 integers, then in a second array its scale and its sum.
constexpr int64_t kGroupRowBytes = kGroup + 2 * static_cast<int64_t>(sizeof(float));

template <int kBits>
constexpr int64_t kGroupLines = kGroup * kBits / 32;  // without the line of scales
template <int kBits>
constexpr int64_t kGroupBytes = (kGroupLines<kBits> + 1) * 64;

// Rows of x of one tile, rounded: integers [groups][rows][32], then [groups][rows] pairs of scale
// and sum.
struct RoundedRows {
  int8_t* q;
  float* scales;
};

static TRINE_INLINE RoundedRows rounded_rows(std::byte* memory, int64_t groups, int64_t rows) {
  return {reinterpret_cast<int8_t*>(memory),
          reinterpret_cast<float*>(memory + groups * rows * kGroup)};
}

// n <= 32 numbers of x as integers times a scale. A group below 2^-100 counts as zero; in one with
// a number that is not finite the scale is NaN.
static TRINE_INLINE void round_group(const float* x, int64_t n, int8_t* q, float* scales) {
  constexpr int64_t kLanes = Vec::kLanes;
  constexpr int kVecs = static_cast<int>(kGroup / kLanes);
  Vec v[kVecs];
  Vec largest = Zero(), poison = Zero();
  for (int i = 0; i < kVecs; ++i) {
    const int64_t rest = n - i * kLanes;
    v[i] = rest >= kLanes ? LoadU(x + i * kLanes)
                          : LoadN(x + (rest > 0 ? i * kLanes : 0), rest > 0 ? rest : 0);
    largest = Max(largest, Abs(v[i]));
    poison = MulAdd(v[i], Zero(), poison);
  }
  const float most = ReduceMax(largest);
  const bool finite = ReduceSum(poison) == 0.0f;
  const bool some = finite && most >= 0x1p-100f;
  const Vec inverse = Set(some ? 127.0f / most : 0.0f);
  Vec sum = Zero();
  for (int i = 0; i < kVecs; ++i) {
    v[i] = finite ? Round(Mul(v[i], inverse)) : Zero();
    sum = Add(sum, v[i]);
  }
  StoreInt8(v, q);
  const float scale = finite ? (some ? most / 127.0f : 0.0f) : NAN;
  scales[0] = scale;
  scales[1] = scale * ReduceSum(sum);
}

static TRINE_NOINLINE void round_rows(const LinearArgs& args, int64_t m, int64_t rows,
                                      const RoundedRows& to) {
  const int64_t groups = (args.k + kGroup - 1) / kGroup;
  for (int64_t r = 0; r < rows; ++r) {
    const float* const x = args.x + (m + r) * args.ldx;
    for (int64_t g = 0; g < groups; ++g) {
      round_group(x + g * kGroup, at_most(args.k - g * kGroup, kGroup),
                  to.q + (g * rows + r) * kGroup, to.scales + (g * rows + r) * 2);
    }
  }
}

struct GroupTile {
  const int8_t* q;
  const float* scales;
  const std::byte* w;
  int64_t groups;
  float* sums;            // [rows][16]
  const std::byte* next;  // prefetched, kGroupBytes on at each group
  int64_t lines;          // that many lines of it
};
using GroupTileFunction = void (*)(const GroupTile&);

// One group's part of column vector c, of rows from kFirst on.
template <class Dots, int kBits, int kRows, int kFirst, int kCols>
static TRINE_INLINE void add_rows(const Bytes (&ws)[8], Vec scale, Vec min, const int8_t* q,
                                  const float* scales, Vec (&sums)[kRows][kCols], int c) {
  constexpr int kLeft = kRows - kFirst;
  constexpr int kNow = kLeft < Dots::kTogether ? kLeft : Dots::kTogether;
  Vec dots[kNow];
  Dots::template dot<kBits>(ws, q + kFirst * kGroup, dots);
  TRINE_UNROLL for (int i = 0; i < kNow; ++i) {
    const int r = kFirst + i;
    sums[r][c] = FusedMulAdd(Mul(dots[i], scale), Set(scales[2 * r]), sums[r][c]);
    sums[r][c] = FusedMulAdd(min, Set(scales[2 * r + 1]), sums[r][c]);
  }
  if constexpr (kNow < kLeft) {
    add_rows<Dots, kBits, kRows, kFirst + kNow>(ws, scale, min, q, scales, sums, c);
  }
}

template <class Dots, int kBits, int kRows>
static TRINE_NOINLINE void multiply_groups(const GroupTile& t) {
  constexpr int kLanes = Vec::kLanes;
  constexpr int64_t kLines = kGroupLines<kBits>, kBytes = kGroupBytes<kBits>;
  Vec sums[kRows][kPanelVecs];
  TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
    TRINE_UNROLL for (int c = 0; c < kPanelVecs; ++c) sums[r][c] = Zero();
  }
  const int8_t* q = t.q;
  const float* scales = t.scales;
  const std::byte* w = t.w;
  const std::byte* next = t.next;
  const int64_t lines = t.lines;
  for (const std::byte* const end = w + t.groups * kBytes; w != end;
       w += kBytes, next += kBytes, q += kRows * kGroup, scales += 2 * kRows) {
    for (int64_t i = 0; i < lines; ++i) TRINE_PREFETCH(next + 64 * i);
    TRINE_UNROLL for (int c = 0; c < kPanelVecs; ++c) {
      Bytes ws[8];
      const auto* const bytes = reinterpret_cast<const uint8_t*>(w) + c * 4 * kLanes;
      TRINE_UNROLL for (int i = 0; i < kLines; ++i) {
        const Bytes line = LoadBytes(bytes + 64 * i);
        if constexpr (kBits == 4) {
          ws[2 * i] = LowNibbles(line);
          ws[2 * i + 1] = HighNibbles(line);
        } else {
          ws[i] = line;
        }
      }
      const std::byte* const last = w + 64 * kLines + c * 2 * kLanes;
      const Vec scale = LoadF16(last), min = LoadF16(last + 2 * kPanel);
      add_rows<Dots, kBits, kRows, 0>(ws, scale, min, q, scales, sums, c);
    }
  }
  TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
    TRINE_UNROLL for (int c = 0; c < kPanelVecs; ++c) {
      StoreU(sums[r][c], t.sums + r * kPanel + c * kLanes);
    }
  }
}

template <class Dots, int kBits, int kRows = kGroupTileRows>
static GroupTileFunction find_group_tile(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return find_group_tile<Dots, kBits, kRows - 1>(rows);
  }
  return multiply_groups<Dots, kBits, kRows>;
}

// Rows of a block: whole tiles whose rounded x fits.
static TRINE_INLINE int64_t group_block_rows(int64_t k) {
  const int64_t row = ceil_div(k, kGroup) * kGroupRowBytes;
  const int64_t rows = at_most(kGroupBlockBytes / row, 112) / kGroupTileRows * kGroupTileRows;
  return rows > 0 ? rows : kGroupTileRows;
}

constexpr int64_t kGroupSumsBytes = kGroupTileRows * kPanel * static_cast<int64_t>(sizeof(float));

// Scratch: the sums of a tile, then the rounded rows of a block.
static size_t group_scratch_bytes(int64_t k) noexcept {
  return static_cast<size_t>(kGroupSumsBytes +
                             group_block_rows(k) * ceil_div(k, kGroup) * kGroupRowBytes);
}

template <class Dots, int kBits>
static void group_block(const LinearArgs& args, const Block& b, std::byte* scratch) {
  constexpr int64_t kBytes = kGroupBytes<kBits>;
  const int64_t groups = ceil_div(args.k, kGroup);
  const int64_t tiles = ceil_div(b.rows, kGroupTileRows);
  float* const sums = reinterpret_cast<float*>(scratch);
  std::byte* const rounded = scratch + kGroupSumsBytes;
  const auto memory = [&](int64_t row) { return rounded + row * groups * kGroupRowBytes; };
  for (int64_t t = 0, r = 0; t < tiles; ++t) {
    const int64_t rows = even_part(b.rows, tiles, t);
    round_rows(args, b.m + r, rows, rounded_rows(memory(r), groups, rows));
    r += rows;
  }
  const int64_t panel = groups * kBytes;
  const int64_t share = ceil_div(kBytes / 64, tiles);
  for (int64_t p = b.p0; p < b.p1; ++p) {
    const std::byte* const w = static_cast<const std::byte*>(args.w) + p * panel;
    for (int64_t t = 0, r = 0; t < tiles; ++t) {
      const int64_t rows = even_part(b.rows, tiles, t), line = t * share;
      const RoundedRows x = rounded_rows(memory(r), groups, rows);
      const std::byte* const next = w + (tiles == 1 ? 4096 : panel) + 64 * line;
      const int64_t lines = at_most(share, kBytes / 64 - line);
      find_group_tile<Dots, kBits>(rows)({x.q, x.scales, w, groups, sums, next, lines});
      const int64_t n = p * kPanel;
      finish_tile<Float32Format>(
          args, {sums, kPanel, b.m + r, rows, n, at_most(args.n - n, kPanel), nullptr, 0});
      r += rows;
    }
  }
}

template <class Dots, int kBits>
static void multiply_in_groups(const LinearArgs& args, int64_t m0, int64_t m1, int64_t n0,
                               int64_t n1, std::byte* scratch) noexcept {
  const int64_t blocks = ceil_div(m1 - m0, group_block_rows(args.k));
  Block block = {m0, 0, n0 / kPanel, ceil_div(n1, kPanel), 0};
  for (int64_t i = 0; i < blocks; ++i, block.m += block.rows) {
    block.rows = even_part(m1 - m0, blocks, i);
    group_block<Dots, kBits>(args, block, scratch);
  }
}

template <class Dots, int kBits>
constexpr LinearKernel kLinearGroups = {multiply_in_groups<Dots, kBits>, group_scratch_bytes};
