// SPDX-License-Identifier: Apache-2.0
// Three passes over a row that stays in L1: mean, variance about that mean, output. The textbook's
// single pass over sum and sum of squares cancels when the mean is large. Bound: memory where the
// rows are in no cache, else about 14 instructions a vector.

// Lanes [0, n) of the output at column j.
static TRINE_INLINE void normalize(const LayerNormArgs& args, const float* x, float* y, int64_t n,
                                   int64_t j, Vec mean, Vec scale) {
  Vec r = Mul(Sub(LoadUpTo(x + j, n), mean), scale);
  if (args.weight != nullptr) r = Mul(r, LoadUpTo(args.weight + j, n));
  if (args.bias != nullptr) r = Add(r, LoadUpTo(args.bias + j, n));
  StoreUpTo(r, y + j, n);
}

static void layer_norm(const LayerNormArgs& args, int64_t begin, int64_t end) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const int64_t cols = args.cols;
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.ldx;
    float* y = args.y + i * args.ldy;
    const float mean = row_sum<false>(x, cols, 0.0f) / static_cast<float>(cols);
    const float variance = row_sum<true>(x, cols, mean) / static_cast<float>(cols);
    const Vec m = Set(mean);
    const Vec scale = Set(1.0f / sqrtf(variance + args.eps));
    int64_t j = 0;
    for (; j + kLanes <= cols; j += kLanes) normalize(args, x, y, kLanes, j, m, scale);
    if (j < cols) normalize(args, x, y, cols - j, j, m, scale);
  }
}
