// SPDX-License-Identifier: Apache-2.0
// One sequence at a time, strips of four vectors of columns down all its rows: the sums stay in
// registers, and each row is read once. Bound: memory.

// Which rows count, and for how much.
struct PoolRows {
  int64_t start;       // of the sequence
  int64_t begin, end;  // of what is pooled; not empty
};

// acc <- the strip of Strip vectors at column j; the last vector has `n` lanes.
template <PoolMode Mode, int Strip>
static TRINE_INLINE void pool_strip(const PoolArgs& args, const PoolRows& rows, float* y, int64_t j,
                                    int64_t n) {
  constexpr int64_t kLanes = Vec::kLanes;
  Vec acc[Strip];
  for (int s = 0; s < Strip; ++s) acc[s] = Zero();
  float weights = 0.0f;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const float* x = args.x + row * args.ldx + j;
    const float weight =
        Mode == PoolMode::kWeightedMean ? static_cast<float>(row - rows.start + 1) : 1.0f;
    weights += weight;
    for (int s = 0; s < Strip; ++s) {
      const Vec value = s + 1 < Strip ? LoadU(x + s * kLanes) : LoadUpTo(x + s * kLanes, n);
      if constexpr (Mode == PoolMode::kMax) {
        // The third choice keeps a NaN that is in `acc` or comes with `value`.
        const Vec larger = row == rows.begin ? value : IfThenElse(Lt(acc[s], value), value, acc[s]);
        acc[s] = IfThenElse(Eq(value, value), larger, value);
      } else if constexpr (Mode == PoolMode::kWeightedMean) {
        acc[s] = MulAdd(Set(weight), value, acc[s]);
      } else {
        acc[s] = Add(acc[s], value);
      }
    }
  }
  if (Mode == PoolMode::kMeanSqrtLen) weights = sqrtf(weights);
  for (int s = 0; s < Strip; ++s) {
    const Vec result = Mode == PoolMode::kMax ? acc[s] : Div(acc[s], Set(weights));
    StoreUpTo(result, y + j + s * kLanes, s + 1 < Strip ? kLanes : n);
  }
}

template <PoolMode Mode>
static void pool_sequence(const PoolArgs& args, const PoolRows& rows, float* y) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  int64_t j = 0;
  for (; j + 4 * kLanes <= args.cols; j += 4 * kLanes)
    pool_strip<Mode, 4>(args, rows, y, j, kLanes);
  for (; j < args.cols; j += kLanes) {
    pool_strip<Mode, 1>(args, rows, y, j, args.cols - j < kLanes ? args.cols - j : kLanes);
  }
}

static void pool(const PoolArgs& args, int64_t begin, int64_t end) noexcept {
  for (int64_t b = begin; b < end; ++b) {
    const int64_t start = args.batch.offsets[b];
    PoolRows rows = {start, start, args.batch.offsets[b + 1]};
    if (args.skip != nullptr) rows.begin += args.skip[b];
    // Where the prompt is all there is, its first row stands for the sequence, as in
    // sentence-transformers.
    if (args.mode == PoolMode::kCls && rows.begin >= rows.end) rows.begin = start;
    float* y = args.y + b * args.ldy;
    if (rows.begin >= rows.end) {
      for (int64_t j = 0; j < args.cols; ++j) y[j] = 0.0f;
      continue;
    }
    switch (args.mode) {
      case PoolMode::kCls:
      case PoolMode::kLastToken: {
        const int64_t row = args.mode == PoolMode::kCls ? rows.begin : rows.end - 1;
        for (int64_t j = 0; j < args.cols; ++j) y[j] = args.x[row * args.ldx + j];
        break;
      }
      case PoolMode::kMean:
        pool_sequence<PoolMode::kMean>(args, rows, y);
        break;
      case PoolMode::kMax:
        pool_sequence<PoolMode::kMax>(args, rows, y);
        break;
      case PoolMode::kMeanSqrtLen:
        pool_sequence<PoolMode::kMeanSqrtLen>(args, rows, y);
        break;
      case PoolMode::kWeightedMean:
        pool_sequence<PoolMode::kWeightedMean>(args, rows, y);
        break;
    }
  }
}
