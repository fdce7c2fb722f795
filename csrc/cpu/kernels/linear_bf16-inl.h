// SPDX-License-Identifier: Apache-2.0
// linear on bf16 weights for instruction sets without a dot product of bf16: lines hold 16 pairs
// [16][2] of weights, which a shift and a mask widen to floats; x is rounded to bf16 in scratch, as
// floats. Products of bf16 are exact in fp32, so the sums are those of the instruction to the bit
// (but for denormal numbers, which that takes for zero).
//
// Bound: the FMA units, as for fp32; two instructions of widening to 28 FMA on AVX-512.

struct WidenedFormat {
  static constexpr bool kConverts = true;
  static constexpr bool kQuantised = false;
  static constexpr int kSteps = 2;
  static constexpr int64_t kElements = 2;
  static TRINE_INLINE int64_t lines(int64_t k) {
    return ceil_div(k, kBF16Depth) * (kBF16Depth / kElements);
  }
  static TRINE_INLINE Vec weights(Vec line, int step) {
    return step == 0 ? WidenLowBF16(line) : WidenHighBF16(line);
  }
  static TRINE_INLINE Vec multiply_add(Vec x, Vec w, Vec sum) { return MulAdd(x, w, sum); }
  static void convert(const float* x, int64_t k, int64_t lines, float* to) {
    int64_t i = 0;
    for (; i + Vec::kLanes <= k; i += Vec::kLanes) StoreU(RoundBF16(LoadU(x + i)), to + i);
    for (; i < lines * kElements; i += Vec::kLanes) {
      const int64_t rest = i < k ? k - i : 0;
      StoreU(RoundBF16(LoadN(x + (rest > 0 ? i : 0), rest)), to + i);
    }
  }
  static constexpr int kStored = 1;
  static TRINE_INLINE void store(const Vec (&x)[kStored], float* to) {
    StoreU(RoundBF16(x[0]), to);
  }
  // A line of weights of two rows.
  static TRINE_INLINE Vec join(Vec low, Vec high) {
    return JoinBF16(RoundBF16(low), RoundBF16(high));
  }
};

constexpr LinearKernel kLinearBF16 = {multiply<WidenedFormat>, scratch_bytes<WidenedFormat>};
