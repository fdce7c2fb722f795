// SPDX-License-Identifier: Apache-2.0
// What int8 means: a row of numbers, a token's values or the weights of one column of y, is a scale
// and integers from -127 to 127. Whoever quantises follows these lines to the bit, so that all
// instruction sets and the reference multiply the same integers. Kernels of all instruction sets
// include it, so no function here may leave a symbol behind.
//
// A token's values have outliers: one or two in a row are 50 times what the others reach, and a
// scale made for them would leave the others three bits. So a token's scale is made for the third
// largest magnitude, and what the two above it exceed 127 by is multiplied apart, as integers of 16
// bits: sums stay exact. (Dettmers et al., LLM.int8(), 2022, found them; it takes whole columns.)
#pragma once

#include <cstdint>
#include <limits>

#include "base/platform.h"

namespace trine::int8 {

// Integers are multiplied by these and summed in int32.
inline constexpr float kMost = 127.0f;
inline constexpr int64_t kMostDepth = 1 << 17;  // kMost^2 * kMostDepth, and the outliers, < 2^31

struct Scale {
  float scale;    // of the integers: value = scale * integer
  float inverse;  // the integer is the value times this, rounded to nearest, ties to even
};

// Of a row whose largest magnitude is `largest`. A row that holds NaN or infinity is NaN in all
// that is computed from it, and what is too small for 1 / scale to be a number counts as zero.
static TRINE_INLINE Scale scale_of(float largest) noexcept {
  constexpr float kLeast = 0x1p-100f, kMax = std::numeric_limits<float>::max();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  if (!(largest <= kMax)) return {kNan, 0.0f};
  if (largest < kLeast) return {0.0f, 0.0f};
  return {largest / kMost, kMost / largest};
}

// Of a token's values at most this many integers are not within -127 .. 127, but of 16 bits.
inline constexpr int kOutliers = 2;
inline constexpr float kMostOutlier = 32767.0f;

// The magnitudes of a row that are larger than all others, in falling order; NaN is none.
struct Largest {
  float most[kOutliers + 1] = {};

  TRINE_INLINE void add(float magnitude) noexcept {
    for (float& other : most) {  // a maximum and a minimum, no branch
      const float larger = magnitude > other ? magnitude : other;
      magnitude = magnitude > other ? other : magnitude;
      other = larger;
    }
  }
};

// Of a token's values: `largest` as above, `usual` the largest but for outliers.
static TRINE_INLINE Scale scale_of(float largest, float usual) noexcept {
  const float least = largest * (kMost / kMostOutlier);
  const bool numbers = largest <= std::numeric_limits<float>::max();
  return scale_of(!numbers ? largest : usual > least ? usual : least);
}

// Added to a float of magnitude below 2^22 it leaves the rounded integer in the low bits.
inline constexpr float kRounder = 0x1.8p23f;

// The rounded integer. Of NaN and infinity, where the inverse is 0, it is 0.
static TRINE_INLINE int32_t quantised(float value, float inverse) noexcept {
  const float sum = value * inverse + kRounder;
  return sum == sum ? static_cast<int32_t>(sum - kRounder) : 0;
}

// What is left of an integer, 0 but for outliers, when what its byte holds is taken off.
static TRINE_INLINE int32_t rest_of(int32_t integer) noexcept {
  constexpr auto kByte = static_cast<int32_t>(kMost);
  return integer > kByte ? integer - kByte : integer < -kByte ? integer + kByte : 0;
}

// What a token's integers have beside their bytes, as CUDA's kernels keep it.
struct Row {
  struct Outlier {
    int32_t at;    // which of K
    int32_t rest;  // int16
  };
  float scale;
  int32_t outliers;
  Outlier outlier[kOutliers];
};

// The larger of `so_far` and all magnitudes; NaN if there is one.
static TRINE_INLINE float largest(const float* values, int64_t count, float so_far) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const float magnitude = values[i] < 0.0f ? -values[i] : values[i];
    if (!(magnitude <= so_far) && so_far == so_far) so_far = magnitude;
  }
  return so_far;
}

// The reference's rows: K integers, filled up to a multiple of 4 bytes, and the scale behind them.
constexpr int64_t row_bytes(int64_t k) noexcept { return (k + 3) / 4 * 4 + 4; }

}  // namespace trine::int8
