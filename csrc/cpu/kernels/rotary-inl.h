// SPDX-License-Identifier: Apache-2.0
// Once per run for all layers, so in double, which makes it plain: the angle modulo pi / 2 in two
// steps, good to 1e-9 for angles up to 2^24, then Taylor's series, off by less than 2e-10. No
// branch, so that compilers turn the loop into vectors. Bound: arithmetic, about 30 operations an
// angle.

struct SinCos {
  double sine, cosine;
};

static TRINE_INLINE SinCos sin_cos(double x) {
  constexpr double kTwoOverPi = 0.63661977236758134308;
  constexpr double kPiHalfHigh = 1.57079632673412561417;  // 33 bits: times a quarter it is exact
  constexpr double kPiHalfLow = 6.07710050650619224932e-11;
  constexpr double kMagic =
      6755399441055744.0;  // 1.5 * 2^52: rounds, and leaves the integer in its bits
  const double shifted = x * kTwoOverPi + kMagic;
  const double quarter = shifted - kMagic;
  const double r = (x - quarter * kPiHalfHigh) - quarter * kPiHalfLow;
  const double z = r * r;
  const double s =
      r + r * z *
              (-1.0 / 6 +
               z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 - z * (1.0 / 39916800)))));
  const double c =
      1 + z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 - z * (1.0 / 3628800)))));
  uint64_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  const bool odd = (bits & 1) != 0;
  const double sine = odd ? c : s, cosine = odd ? s : c;
  return {(bits & 2) != 0 ? -sine : sine, ((bits + 1) & 2) != 0 ? -cosine : cosine};
}

static void rotary(const RotaryArgs& args, int64_t begin, int64_t end) noexcept {
  float frequencies[RotaryArgs::kMaxPairs];
  for (int32_t b = 0; b < args.batch.sequences; ++b) {
    const int64_t first = args.batch.offsets[b] > begin ? args.batch.offsets[b] : begin;
    const int64_t last = args.batch.offsets[b + 1] < end ? args.batch.offsets[b + 1] : end;
    if (first >= last) continue;
    rotary_frequencies(args, rotary_length(args, b), frequencies);
    for (int64_t t = first; t < last; ++t) {
      const auto position = static_cast<float>(args.positions[t]);
      float* cosines = args.y + t * args.ldy;
      float* sines = cosines + args.pairs;
      for (int64_t c = 0; c < args.pairs; ++c) {
        const float angle = position * frequencies[c];
        const SinCos at = sin_cos(angle);
        cosines[c] = static_cast<float>(at.cosine) * args.scaling;
        sines[c] = static_cast<float>(at.sine) * args.scaling;
      }
    }
  }
}
