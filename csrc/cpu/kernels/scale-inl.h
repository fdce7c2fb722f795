// SPDX-License-Identifier: Apache-2.0
// Rows of any stride, one vector at a time; in place is fine. Bound: memory.

static void scale(const ScaleArgs& args, int64_t begin, int64_t end) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const Vec factor = Set(args.factor);
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.ldx;
    float* y = args.y + i * args.ldy;
    int64_t j = 0;
    for (; j + kLanes <= args.cols; j += kLanes) StoreU(Mul(factor, LoadU(x + j)), y + j);
    if (j < args.cols) StoreN(Mul(factor, LoadN(x + j, args.cols - j)), y + j, args.cols - j);
  }
}
