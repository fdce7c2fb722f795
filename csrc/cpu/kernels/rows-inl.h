// SPDX-License-Identifier: Apache-2.0
// What kernels that work row by row share.

// Whole vectors take the plain instruction: masked stores are slow on some processors. With a
// constant n nothing is left of the choice.
static TRINE_INLINE Vec LoadUpTo(const float* p, int64_t n) {
  return n == Vec::kLanes ? LoadU(p) : LoadN(p, n);
}
static TRINE_INLINE void StoreUpTo(Vec a, float* p, int64_t n) {
  n == Vec::kLanes ? StoreU(a, p) : StoreN(a, p, n);
}

// Sum over j of (x[j] - mean)^2, or of x[j]. Four accumulators hide the latency of an addition;
// element j belongs to accumulator (j / lanes) % 4 and the four are added in pairs, so the bits
// depend on the row alone.
template <bool Squares>
static TRINE_INLINE float row_sum(const float* x, int64_t cols, float mean) {
  constexpr int64_t kLanes = Vec::kLanes;
  constexpr int kChains = 4;
  Vec sum[kChains] = {Zero(), Zero(), Zero(), Zero()};
  const Vec m = Set(mean);
  int64_t j = 0;
  for (; j + kChains * kLanes <= cols; j += kChains * kLanes) {
    for (int c = 0; c < kChains; ++c) {
      const Vec value = LoadU(x + j + c * kLanes);
      const Vec d = Squares ? Sub(value, m) : value;
      sum[c] = Squares ? MulAdd(d, d, sum[c]) : Add(sum[c], d);
    }
  }
  for (int c = 0; j < cols; ++c, j += kLanes) {
    const int64_t n = cols - j < kLanes ? cols - j : kLanes;
    const Vec value = LoadUpTo(x + j, n);
    const Vec d = Squares ? IfThenElse(FirstN(n), Sub(value, m), Zero()) : value;
    sum[c] = Squares ? MulAdd(d, d, sum[c]) : Add(sum[c], d);
  }
  return ReduceSum(Add(Add(sum[0], sum[1]), Add(sum[2], sum[3])));
}
