// SPDX-License-Identifier: Apache-2.0
// linear on weights in groups of 32 of K with a scale and a minimum each (weights/groups.h), in
// every form that such groups have (GroupForm). x is rounded to 8 bits, in the same groups with a
// scale each, so that the products of a group are summed in integers, exactly:
//
//   y = sum over groups of (integer sum * w's scale) * x's scale + w's min * (x's scale * sum of x)
//
// In kQ6_K, where each half of a group has its own scale, the sum is over halves.
//
// Panels: for each group of K some lines of 64 bytes, kernel_table.h, which are masked and shifted
// into eight of 16 columns x 4 of K that all rows of a tile share. A minimum that is not there is
// made of the scale, exactly. (kQ4_0 and kQ8_0 have half a line of scales, so that every other
// group's loads of 64 bytes cross lines; whole lines of scales for two groups would gain nothing
// where w comes from memory.)
//
// Tile: rows x 1 panel, its float sums in registers from the first group to the last. A group takes
// 8 dot products, a product, a sum and two conversions a row; in kQ6_K twice the latter.
// - VNNI: 16 rows; 16 sums + 8 of w + scale + min + 4 sums of integers + 1 = 31 of 32 registers.
// - others: fewer rows (Dots::kTileRows); integer sums take their registers in turn.
//
// x is rounded once for all columns (prepare), into tiles that are read front to back: as many rows
// each as divides them evenly. With rows for one tile only, w is read straight through with 12 KiB
// prefetched ahead; with more, a panel stays in L1 or L2 while the tiles pass, and each fetches its
// share of the next panel.
//
// Order: an element of y is one chain of FMA over ascending groups, whose integer sums are exact.
// So its bits depend neither on the tile, nor on blocks, other rows, threads or instruction sets.
//
// Bound: the bandwidth that w is read with up to some ten rows, then the dot products (8 of 11
// instructions on their ports).

// Bytes of rounded x that `run` should get at once: half of a small L2.
constexpr int64_t kGroupBlockBytes = int64_t{512} << 10;
// Bytes of w from what is multiplied to what is prefetched.
constexpr int64_t kGroupAhead = int64_t{12} << 10;

template <GroupForm kForm>
constexpr int kGroupParts = kForm == GroupForm::kQ6_K ? 2 : 1;  // with scales of their own
template <GroupForm kForm>
constexpr bool kHasMinima = kForm == GroupForm::kInt4 || kForm == GroupForm::kInt8;
// What a minimum is where there are none, in scales.
template <GroupForm kForm>
constexpr float kOffset = kForm == GroupForm::kQ4_0   ? -8.0f
                          : kForm == GroupForm::kQ6_K ? -32.0f
                                                      : -128.0f;
template <GroupForm kForm>
constexpr int64_t kGroupLines = kGroup * group_bits(kForm) / 32;  // without scales
template <GroupForm kForm>
constexpr int64_t kGroupBytes = kPanel * group_bytes(kForm);

// Of one group of one row: 32 integers, then in a second array its scale and its parts' sums.
template <GroupForm kForm>
constexpr int64_t kRowScales = 1 + kGroupParts<kForm>;
template <GroupForm kForm>
constexpr int64_t kGroupRowBytes = kGroup + kRowScales<kForm> * static_cast<int64_t>(sizeof(float));

template <class Dots>
static int64_t group_row_step(int64_t m) noexcept {
  return m > 0 ? ceil_div(m, ceil_div(m, Dots::kTileRows)) : 1;
}

template <GroupForm kForm>
static int64_t group_row_words(int64_t k) noexcept {
  return ceil_div(k, kGroup) * kGroupRowBytes<kForm> / static_cast<int64_t>(sizeof(float));
}

// Rows of x of one tile, rounded: integers [groups][rows][32], then [groups][rows] times a scale
// and sums. Where both begin is counted in floats of what prepare fills.
struct RoundedTile {
  int64_t m, rows;
  int64_t q, scales;
};

// The one that row m is in.
template <class Dots, GroupForm kForm>
static TRINE_INLINE RoundedTile rounded_tile(const LinearArgs& args, int64_t m) {
  const int64_t step = group_row_step<Dots>(args.m), first = m / step * step;
  const int64_t rows = at_most(args.m - first, step), groups = ceil_div(args.k, kGroup);
  const int64_t at = first * group_row_words<kForm>(args.k);
  return {first, rows, at, at + groups * rows * kGroup / static_cast<int64_t>(sizeof(float))};
}

// n <= 32 numbers of x as integers times a scale. A group below 2^-100 counts as zero; in one with
// a number that is not finite the scale is NaN.
template <int kParts>
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
  const float scale = finite ? (some ? most / 127.0f : 0.0f) : NAN;
  scales[0] = scale;
  for (int part = 0; part < kParts; ++part) {
    Vec sum = Zero();
    for (int i = part * kVecs / kParts; i < (part + 1) * kVecs / kParts; ++i) {
      v[i] = finite ? Round(Mul(v[i], inverse)) : Zero();
      sum = Add(sum, v[i]);
    }
    scales[1 + part] = scale * ReduceSum(sum);
  }
  StoreInt8(v, q);
}

template <class Dots, GroupForm kForm>
static void round_rows(const LinearArgs& args, int64_t m0, int64_t m1, float* rows,
                       QuantisedRow*) noexcept {
  const int64_t groups = ceil_div(args.k, kGroup);
  for (int64_t m = m0; m < m1; ++m) {
    const RoundedTile to = rounded_tile<Dots, kForm>(args, m);
    auto* const q = reinterpret_cast<int8_t*>(rows + to.q);
    const float* const x = args.x + m * args.ldx;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t at = g * to.rows + m - to.m;
      round_group<kGroupParts<kForm>>(x + g * kGroup, at_most(args.k - g * kGroup, kGroup),
                                      q + at * kGroup, rows + to.scales + at * kRowScales<kForm>);
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

// A line of each quad of K from the `kLanes` columns that `bytes` begins with.
template <GroupForm kForm>
static TRINE_INLINE void unpack_group(const uint8_t* bytes, Bytes (&ws)[8]) {
  if constexpr (group_bits(kForm) == 8) {
    TRINE_UNROLL for (int i = 0; i < 8; ++i) ws[i] = LoadBytes(bytes + 64 * i);
  } else {
    TRINE_UNROLL for (int i = 0; i < 4; ++i) {
      const Bytes line = LoadBytes(bytes + 64 * i);
      ws[2 * i] = LowNibbles(line);
      ws[2 * i + 1] = HighNibbles(line);
    }
  }
  if constexpr (kForm == GroupForm::kQ6_K) {
    TRINE_UNROLL for (int i = 0; i < 2; ++i) {
      const Bytes high = LoadBytes(bytes + 64 * (4 + i));
      ws[4 * i] = WithHighBits<0>(ws[4 * i], high);
      ws[4 * i + 1] = WithHighBits<1>(ws[4 * i + 1], high);
      ws[4 * i + 2] = WithHighBits<2>(ws[4 * i + 2], high);
      ws[4 * i + 3] = WithHighBits<3>(ws[4 * i + 3], high);
    }
  }
}

// A part of a group, of column vector c and of rows from kFirst on.
template <class Dots, GroupForm kForm, int kPart, int kFirst, int kQuads, int kRows, int kCols>
static TRINE_INLINE void add_rows(const Bytes (&ws)[kQuads], Vec scale, Vec min, const int8_t* q,
                                  const float* scales, Vec (&sums)[kRows][kCols], int c) {
  constexpr int kLeft = kRows - kFirst;
  constexpr int kNow = kLeft < Dots::kTogether ? kLeft : Dots::kTogether;
  Vec dots[kNow];
  Dots::template dot<group_bits(kForm)>(ws, q + kFirst * kGroup + kPart * 4 * kQuads, dots);
  TRINE_UNROLL for (int i = 0; i < kNow; ++i) {
    const int r = kFirst + i;
    const float* const of_row = scales + kRowScales<kForm> * r;
    sums[r][c] = FusedMulAdd(Mul(dots[i], scale), Set(of_row[0]), sums[r][c]);
    sums[r][c] = FusedMulAdd(min, Set(of_row[1 + kPart]), sums[r][c]);
  }
  if constexpr (kNow < kLeft) {
    add_rows<Dots, kForm, kPart, kFirst + kNow>(ws, scale, min, q, scales, sums, c);
  }
}

template <class Dots, GroupForm kForm, int kPart, int kRows, int kCols>
static TRINE_INLINE void add_parts(const Bytes (&ws)[8], const std::byte* w_scales, const int8_t* q,
                                   const float* scales, Vec (&sums)[kRows][kCols], int c) {
  constexpr int kQuads = 8 / kGroupParts<kForm>;
  Bytes part[kQuads];
  TRINE_UNROLL for (int j = 0; j < kQuads; ++j) part[j] = ws[kPart * kQuads + j];
  const Vec scale = LoadF16(w_scales + kPart * 2 * kPanel);
  Vec min;
  if constexpr (kHasMinima<kForm>) {
    min = LoadF16(w_scales + 2 * kPanel);
  } else {
    min = Mul(scale, Set(kOffset<kForm>));
  }
  add_rows<Dots, kForm, kPart, 0>(part, scale, min, q, scales, sums, c);
  if constexpr (kPart + 1 < kGroupParts<kForm>) {
    add_parts<Dots, kForm, kPart + 1>(ws, w_scales, q, scales, sums, c);
  }
}

template <class Dots, GroupForm kForm, int kRows>
static TRINE_NOINLINE void multiply_groups(const GroupTile& t) {
  constexpr int kLanes = Vec::kLanes;
  constexpr int64_t kLines = kGroupLines<kForm>, kBytes = kGroupBytes<kForm>;
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
       w += kBytes, next += kBytes, q += kRows * kGroup, scales += kRowScales<kForm> * kRows) {
    for (int64_t i = 0; i < lines; ++i) TRINE_PREFETCH(next + 64 * i);
    TRINE_UNROLL for (int c = 0; c < kPanelVecs; ++c) {
      Bytes ws[8];
      unpack_group<kForm>(reinterpret_cast<const uint8_t*>(w) + c * 4 * kLanes, ws);
      add_parts<Dots, kForm, 0>(ws, w + 64 * kLines + c * 2 * kLanes, q, scales, sums, c);
    }
  }
  TRINE_UNROLL for (int r = 0; r < kRows; ++r) {
    TRINE_UNROLL for (int c = 0; c < kPanelVecs; ++c) {
      StoreU(sums[r][c], t.sums + r * kPanel + c * kLanes);
    }
  }
}

template <class Dots, GroupForm kForm, int kRows = Dots::kTileRows>
static GroupTileFunction find_group_tile(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return find_group_tile<Dots, kForm, kRows - 1>(rows);
  }
  return multiply_groups<Dots, kForm, kRows>;
}

// As many rows as fit.
template <class Dots, GroupForm kForm>
static int64_t group_item_rows(int64_t k) noexcept {
  const int64_t row = group_row_words<kForm>(k) * static_cast<int64_t>(sizeof(float));
  const int64_t rows = at_most(kGroupBlockBytes / row, 112) / Dots::kTileRows * Dots::kTileRows;
  return rows > 0 ? rows : Dots::kTileRows;
}

template <class Dots>
static size_t group_scratch_bytes(int64_t) noexcept {
  return static_cast<size_t>(Dots::kTileRows * kPanel) * sizeof(float);  // sums
}

template <class Dots, GroupForm kForm>
static void group_block(const LinearArgs& args, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                        std::byte* scratch) {
  constexpr int64_t kBytes = kGroupBytes<kForm>, kLines = (kBytes + 63) / 64;
  const int64_t groups = ceil_div(args.k, kGroup), panel = groups * kBytes;
  const int64_t tiles = ceil_div(m1 - m0, group_row_step<Dots>(args.m));
  const int64_t share = ceil_div(kLines, tiles);
  float* const sums = reinterpret_cast<float*>(scratch);
  for (int64_t p = n0 / kPanel; p < ceil_div(n1, kPanel); ++p) {
    const std::byte* const w = static_cast<const std::byte*>(args.w) + p * panel;
    int64_t line = 0;
    for (int64_t m = m0; m < m1; line += share) {
      const RoundedTile x = rounded_tile<Dots, kForm>(args, m);
      const auto* const q = reinterpret_cast<const int8_t*>(args.x + x.q);
      const std::byte* const next = w + (tiles == 1 ? kGroupAhead : panel) + 64 * line;
      const int64_t lines = at_most(share, kLines - line);
      find_group_tile<Dots, kForm>(x.rows)({q, args.x + x.scales, w, groups, sums, next, lines});
      const int64_t n = p * kPanel;
      finish_tile<Float32Format>(
          args, {sums, kPanel, m, x.rows, n, at_most(args.n - n, kPanel), nullptr, 0});
      m += x.rows;
    }
  }
}

template <class Dots, GroupForm kForm>
static void multiply_in_groups(const LinearArgs& args, int64_t m0, int64_t m1, int64_t n0,
                               int64_t n1, std::byte* scratch) noexcept {
  const int64_t step = group_row_step<Dots>(args.m), tiles = ceil_div(m1 - m0, step);
  const int64_t blocks = ceil_div(m1 - m0, group_item_rows<Dots, kForm>(args.k));
  for (int64_t i = 0, m = m0; i < blocks; ++i) {
    const int64_t end = at_most(m + even_part(tiles, blocks, i) * step, m1);
    group_block<Dots, kForm>(args, m, end, n0, n1, scratch);
    m = end;
  }
}

template <class Dots, GroupForm kForm>
constexpr LinearKernel group_kernel() {
  return {multiply_in_groups<Dots, kForm>, group_scratch_bytes<Dots>, group_row_step<Dots>,
          round_rows<Dots, kForm>,         group_row_words<kForm>,    group_item_rows<Dots, kForm>};
}

// In the order of GroupForm.
template <class Dots>
constexpr GroupKernels group_kernels() {
  return {group_kernel<Dots, GroupForm::kInt4>(), group_kernel<Dots, GroupForm::kQ4_0>(),
          group_kernel<Dots, GroupForm::kQ6_K>(), group_kernel<Dots, GroupForm::kQ8_0>(),
          group_kernel<Dots, GroupForm::kInt8>()};
}
