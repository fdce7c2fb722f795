// SPDX-License-Identifier: Apache-2.0
// Weights in groups of 32 along K with a scale and a minimum each: what `dtype="int4"` computes
// with. Q4_0 and Q4_1 of GGUF are such groups of 4 bits, and Q5_0, Q5_1 and Q8_0 such groups of 8,
// as they are stored: nothing of them is rounded. Q6_K has a scale for 16.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "weights/convert.h"

namespace trine {

// weight i = scale * q[i] + min, the product being exact in float32: scale and min are f16, as in
// GGUF (with float32 a group would take a fifth more bytes, and only Q4_K and Q5_K would gain).
// Each half of the elements has its own, which are the same but in kQ6_K.
struct Group {
  uint16_t scale[2], min[2];
  uint8_t q[kGroup];

  float value(int64_t i) const noexcept {
    const int64_t half = i / (kGroup / 2);
    return f16_to_f32(scale[half]) * static_cast<float>(q[i]) + f16_to_f32(min[half]);
  }
};

constexpr int64_t groups_of(int64_t k) noexcept { return (k + kGroup - 1) / kGroup; }

// What holds elements of a type: with more than 4 bits for the types of GGUF that have more, which
// whoever made the file chose for those tensors.
constexpr GroupForm group_form(DType stored) noexcept {
  switch (stored) {
    case DType::kQ4_0:
      return GroupForm::kQ4_0;
    case DType::kQ6K:
      return GroupForm::kQ6_K;
    case DType::kQ5_0:
    case DType::kQ8_0:
      return GroupForm::kQ8_0;
    case DType::kQ5_1:
    case DType::kQ5K:
      return GroupForm::kInt8;
    default:
      return GroupForm::kInt4;
  }
}

// A row of k elements as groups of group_form(dtype), or of kInt4 or kInt8 with as many bits, the
// last one filled up with anything.
// - Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: exactly (a -0 becomes +0).
// - Q4_K, Q5_K: with the same q; a group's scale and minimum are rounded to f16, so that an
//   element moves by 2^-11 of itself at most, or of the minimum.
// - Q6_K in kQ6_K: with the same q; a scale is rounded to f16. In kInt8 as what follows.
// - F16, BF16, F32, F64: rounded so that the squared error of the group is small (quantise_group).
// False where a scale or a minimum is not finite as f16: for weights that are not, or above 65504.
bool to_groups(DType dtype, const std::byte* row, int64_t k, GroupForm form,
               Group* groups) noexcept;

// n <= 32 floats, in 4 or 8 bits. The levels spread from the smallest to the largest in a few
// widths, each moved to where the squared error is least (scale and minimum by least squares for
// the q found, as llama.cpp's quantiser does); the best of them after rounding to f16 is taken.
void quantise_group(const float* values, int64_t n, int bits, Group& group) noexcept;

// The minimum of a group of an "offset" form with this scale.
uint16_t minimum_of(GroupForm form, uint16_t scale) noexcept;

// A group, n of whose elements count, in its own form or in kInt4 or kInt8 with as many bits:
// exactly, but for kQ6_K in kInt8, which is rounded as above. False as for to_groups.
bool regrouped(const Group& from, GroupForm was, int64_t n, GroupForm form, Group& to) noexcept;

}  // namespace trine
