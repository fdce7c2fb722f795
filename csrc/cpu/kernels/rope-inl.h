// SPDX-License-Identifier: Apache-2.0
// Both halves of a head at a time, so in place is fine; the table's row stays in L1 for all heads.
// Bound: memory.

static TRINE_INLINE void turn(const float* x, const float* table, float* y, int64_t half,
                              int64_t n) {
  const Vec cosine = LoadUpTo(table, n), sine = LoadUpTo(table + half, n);
  const Vec a = LoadUpTo(x, n), b = LoadUpTo(x + half, n);
  StoreUpTo(NegMulAdd(b, sine, Mul(a, cosine)), y, n);
  StoreUpTo(MulAdd(a, sine, Mul(b, cosine)), y + half, n);
}

static void rope(const RopeArgs& args, int64_t begin, int64_t end) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const int64_t half = args.turned / 2;
  for (int64_t i = begin; i < end; ++i) {
    const float* table = args.table + i * args.ldt;
    for (int64_t h = 0; h < args.heads; ++h) {
      const float* x = args.x + i * args.ldx + h * args.head_dim;
      float* y = args.y + i * args.ldy + h * args.head_dim;
      int64_t c = 0;
      for (; c + kLanes <= half; c += kLanes) turn(x + c, table + c, y + c, half, kLanes);
      if (c < half) turn(x + c, table + c, y + c, half, half - c);
      if (x == y) continue;
      for (c = args.turned; c + kLanes <= args.head_dim; c += kLanes) StoreU(LoadU(x + c), y + c);
      if (c < args.head_dim) {
        const int64_t n = args.head_dim - c;
        StoreN(LoadN(x + c, n), y + c, n);
      }
    }
  }
}
