// SPDX-License-Identifier: Apache-2.0
// linear on int8 weights: lines hold 4 of K for 16 columns, [16][4], K filled up with zeros to the
// depth of an AMX tile. A row of x is quantised once for all columns of y, into the words that its
// format broadcasts, and all sums are int32: exact, so every instruction set has the same. What its
// outliers have beyond their bytes is added to the sums in the end.
//
// Where there is a dot product of bytes, a word is 4 of K and a line takes one instruction. On x86
// it multiplies unsigned bytes with signed ones, so x is stored with 128 added, and 128 times the
// sum of a column's weights, in the panel's tail, is subtracted from its sum.
//
// Elsewhere lines are widened to pairs of int16, in two steps, and a word is a pair of x: products
// of int16 are exact, where the instruction for bytes that AVX2 has (maddubs) saturates.
//
// Bound: as for bf16, with 4 (2) multiplications in an instruction instead of 2; with few rows the
// bandwidth that w is read with.

struct Int8Base {
  static constexpr bool kConverts = false;
  static constexpr bool kQuantised = true;
  static constexpr int64_t kElements = 4;
  static TRINE_INLINE int64_t lines(int64_t k) {
    return ceil_div(k, kInt8Depth) * (kInt8Depth / kElements);
  }
  // Where quantised row m begins, and bytes from 64 of its bytes to the next.
  static constexpr int64_t kPieceStride = kInt8Depth;
  static TRINE_INLINE float* row(float* rows, int64_t m, int64_t words) { return rows + m * words; }
};

struct WidenedInt8Format : Int8Base {
  static constexpr int kSteps = 2;
  static constexpr int kOffset = 0;
  static TRINE_INLINE Vec weights(Vec line, int step) {
    return step == 0 ? WidenEvenInt8(line) : WidenOddInt8(line);
  }
  static TRINE_INLINE Vec multiply_add(Vec x, Vec w, Vec sum) { return MulAddInt16(x, w, sum); }
  // 4 bytes to the two words of their line.
  static TRINE_INLINE void store(const uint8_t* bytes, float* to) {
    int16_t wide[4];
    for (int i = 0; i < 4; ++i) wide[i] = static_cast<int8_t>(bytes[i % 2 * 2 + i / 2]);
    memcpy(to, wide, sizeof wide);
  }
};

// Words from one quantised row to the next: an odd number of lines of the cache, so that rows fall
// into different sets of it.
template <class Format>
static int64_t row_words(int64_t k) noexcept {
  const int64_t words = Format::lines(k) * Format::kSteps;
  if (Format::kPieceStride != kInt8Depth) return words;  // in tiles, which are end to end
  return words / kPanel % 2 == 0 ? words + kPanel : words;
}

// The largest magnitude of a row, or NaN, and the largest but for outliers.
struct RowLargest {
  float most, usual;
};

static RowLargest largest_of_row(const float* x, int64_t k) {
  static_assert(int8::kOutliers == 2);
  constexpr int64_t kLanes = Vec::kLanes;
  Vec first = Zero(), second = Zero(), third = Zero();  // of each lane
  const auto add = [&](Vec v) {
    const Vec magnitude = MaxMagnitude(v, Zero());
    const Vec a = Min(magnitude, first), b = Min(a, second);
    first = MaxMagnitude(magnitude, first);
    second = Max(a, second);
    third = Max(b, third);
  };
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) add(LoadU(x + i));
  if (i < k) add(LoadN(x + i, k - i));
  float lanes[kLanes];
  int8::Largest largest;
  const auto add_lanes = [&](Vec v) {
    StoreU(v, lanes);
    for (const float lane : lanes) largest.add(lane);
  };
  add_lanes(first);
  // Mostly the three are in three lanes.
  if (ReduceMax(second) > largest.most[int8::kOutliers]) {
    add_lanes(second);
    add_lanes(third);
  }
  // What is not finite makes the row NaN, and is in `first`.
  const bool finite = ReduceSum(Mul(first, Zero())) == 0.0f;
  return {finite ? largest.most[0] : NAN, largest.most[int8::kOutliers]};
}

static QuantisedRow::Outlier outlier_at(int64_t k, int32_t rest) {
  return {static_cast<int32_t>(k / 4 * kPanel), static_cast<int32_t>(24 - k % 4 * 8),
          static_cast<uint16_t>(rest)};
}

template <class Format>
static QuantisedRow quantise_row(const float* x, int64_t k, float* to) {
  constexpr int64_t kLanes = Vec::kLanes;
  const RowLargest largest = largest_of_row(x, k);
  const int8::Scale found = int8::scale_of(largest.most, largest.usual);
  QuantisedRow row = {found.scale, {}};
  int outliers = 0;
  const Vec inverse = Set(found.inverse), rounder = Set(int8::kRounder + Format::kOffset);
  const Vec most = Set(int8::kMost), least = Set(-int8::kMost);
  const int64_t depth = Format::lines(k) * Format::kElements;
  const auto integers = [&](int64_t i, uint8_t* bytes) {
    const int64_t rest = i < k ? at_most(k - i, kLanes) : 0;
    const Vec v = rest == kLanes ? LoadU(x + i) : LoadN(x + (rest > 0 ? i : 0), rest);
    const Vec scaled = Mul(v, inverse), within = Min(Max(scaled, least), most);
    StoreLowBytes(Add(within, rounder), bytes);
    if (!Differ(scaled, within)) return;
    for (int64_t j = i; j < i + rest; ++j) {
      const int32_t beyond = int8::rest_of(int8::quantised(x[j], found.inverse));
      if (beyond != 0) row.outlier[outliers++] = outlier_at(j, beyond);
    }
  };
  if constexpr (Format::kSteps == 1) {
    auto* const bytes = reinterpret_cast<uint8_t*>(to);
    for (int64_t i = 0; i < depth; i += kLanes)
      integers(i, bytes + i / kInt8Depth * Format::kPieceStride + i % kInt8Depth);
  } else {
    constexpr int64_t kChunk = kInt8Depth;
    uint8_t bytes[kChunk];
    for (int64_t i = 0; i < depth; i += kChunk) {
      for (int64_t j = 0; j < kChunk; j += kLanes) integers(i + j, bytes + j);
      for (int64_t j = 0; j < kChunk; j += 4, to += Format::kSteps) Format::store(bytes + j, to);
    }
  }
  return row;
}

template <class Format>
static void quantise(const LinearArgs& args, int64_t m0, int64_t m1, float* rows,
                     QuantisedRow* beside) noexcept {
  const int64_t words = row_words<Format>(args.k);
  for (int64_t m = m0; m < m1; ++m)
    beside[m] = quantise_row<Format>(args.x + m * args.ldx, args.k, Format::row(rows, m, words));
}

template <class Format>
constexpr LinearKernel int8_kernel() {
  return {multiply<Format>, scratch_bytes<Format>, nullptr, quantise<Format>, row_words<Format>};
}
