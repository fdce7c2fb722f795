// SPDX-License-Identifier: Apache-2.0
// Weights in groups of 32 along K with a scale and a minimum each: what `dtype="int4"` computes
// with. Q4_0 and Q4_1 of GGUF are such groups of 4 bits, and Q5_0, Q5_1 and Q8_0 such groups of 8,
// as they are stored: nothing of them is rounded.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "weights/convert.h"

namespace trine {

// weight i = scale * q[i] + min, the product being exact in float32: scale and min are f16, as in
// GGUF (with float32 a group would take a fifth more bytes, and only Q4_K and Q5_K would gain).
struct Group {
  uint16_t scale, min;
  uint8_t q[kGroup];

  float value(int64_t i) const noexcept {
    return f16_to_f32(scale) * static_cast<float>(q[i]) + f16_to_f32(min);
  }
};

constexpr int64_t groups_of(int64_t k) noexcept { return (k + kGroup - 1) / kGroup; }

// How many bits an element is held in: 8 for the types of GGUF that have more than 4, which whoever
// made the file chose for those tensors.
constexpr int group_bits(DType stored) noexcept {
  switch (stored) {
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ8_0:
    case DType::kQ5K:
    case DType::kQ6K:
      return 8;
    default:
      return 4;
  }
}

// A row of k elements as groups of so many bits (at least group_bits(dtype)), the last one filled
// up with anything.
// - Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: exactly (a -0 becomes +0).
// - Q4_K, Q5_K: with the same q; a group's scale and minimum are rounded to f16, so that an
//   element moves by 2^-11 of itself at most, or of the minimum.
// - Q6_K, F16, BF16, F32, F64: rounded so that the squared error of the group is small
//   (quantise_group).
// False where a scale or a minimum is not finite as f16: for weights that are not, or above 65504.
bool to_groups(DType dtype, const std::byte* row, int64_t k, int bits, Group* groups) noexcept;

// n <= 32 floats. The levels spread from the smallest to the largest in a few widths, each moved
// to where the squared error is least (scale and minimum by least squares for the q found, as
// llama.cpp's quantiser does); the best of them after rounding to f16 is taken.
void quantise_group(const float* values, int64_t n, int bits, Group& group) noexcept;

}  // namespace trine
