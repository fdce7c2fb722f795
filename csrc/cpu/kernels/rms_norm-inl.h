// SPDX-License-Identifier: Apache-2.0
// Two passes over a row that stays in L1: mean of squares (row_sum's order), output. Bound: memory.

static void rms_norm(const RmsNormArgs& args, int64_t begin, int64_t end) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const int64_t cols = args.cols;
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.ldx;
    float* y = args.y + i * args.ldy;
    const float mean = row_sum<true>(x, cols, 0.0f) / static_cast<float>(cols);
    const Vec scale = Set(1.0f / sqrtf(mean + args.eps));
    int64_t j = 0;
    for (; j + kLanes <= cols; j += kLanes)
      StoreU(Mul(Mul(LoadU(x + j), scale), LoadU(args.weight + j)), y + j);
    if (j < cols) {
      const int64_t n = cols - j;
      StoreN(Mul(Mul(LoadN(x + j, n), scale), LoadN(args.weight + j, n)), y + j, n);
    }
  }
}
