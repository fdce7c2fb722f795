// SPDX-License-Identifier: Apache-2.0
// Packed weights by the plainest loops, which say what the layouts are.
#pragma once

#include <cstring>

#include "cpu/ops.h"
#include "exec/int8.h"
#include "kernel_testing.h"
#include "weights/convert.h"
#include "weights/groups.h"

namespace trine::test {

// Panels of 16 columns, the missing ones zero, by the plainest loop.
inline void pack_plainly(const Matrix<float>& w, float* packed) {
  for (int64_t j = 0; j < cpu::packed_floats(w.rows(), 1); ++j) {
    for (int64_t i = 0; i < w.cols(); ++i) {
      packed[(j / cpu::kPanel * w.cols() + i) * cpu::kPanel + j % cpu::kPanel] =
          j < w.rows() ? w.at(j, i) : 0.0f;
    }
  }
}

// Pairs of K in panels of 16 columns, K filled up to a multiple of 32.
inline void pack_plainly(const Matrix<float>& w, uint16_t* packed) {
  const int64_t depth = cpu::packed_bf16(1, w.cols()) / cpu::kPanel;
  for (int64_t j = 0; j < cpu::packed_floats(w.rows(), 1); ++j) {
    for (int64_t i = 0; i < depth; ++i) {
      const int64_t at =
          (j / cpu::kPanel * depth / 2 + i / 2) * 2 * cpu::kPanel + j % cpu::kPanel * 2 + i % 2;
      packed[at] = j < w.rows() && i < w.cols() ? f32_to_bf16(w.at(j, i)) : uint16_t{0};
    }
  }
}

// The panels of int8, and the rows that the reference reads.
inline void pack_plainly(const Matrix<float>& w, Matrix<int8_t>& packed, Matrix<int8_t>& rows) {
  const int64_t k = w.cols(), lines = (k + cpu::kInt8Depth - 1) / cpu::kInt8Depth * 16;
  std::memset(packed.data(), 0, static_cast<size_t>(packed.cols()));
  for (int64_t j = 0; j < w.rows(); ++j) {
    const int8::Scale scale = int8::scale_of(int8::largest(w.row(j), k, 0.0f));
    int8_t* const panel = packed.data() + j / cpu::kPanel * (lines + 2) * 64;
    const int64_t column = j % cpu::kPanel * 4;
    int32_t sum = 0;
    std::memset(rows.row(j), 0, static_cast<size_t>(rows.cols()));
    for (int64_t i = 0; i < k; ++i) {
      const auto q = static_cast<int8_t>(int8::quantised(w.at(j, i), scale.inverse));
      panel[i / 4 * 64 + column + i % 4] = rows.at(j, i) = q;
      sum += 128 * q;
    }
    std::memcpy(panel + lines * 64 + column, &scale.scale, 4);
    std::memcpy(panel + (lines + 1) * 64 + column, &sum, 4);
    std::memcpy(rows.row(j) + rows.cols() - 4, &scale.scale, 4);
  }
}

// Rows of groups in panels of 16 columns.
inline std::vector<uint8_t> pack_plainly(const std::vector<Group>& groups, int64_t n,
                                         GroupForm form) {
  const int64_t depth = int64_t(groups.size()) / n, line = 64;
  const int64_t bytes = cpu::kPanel * group_bytes(form);
  const int64_t scales = group_bits(form) * line;  // 32 elements in so many lines, from here on
  const int64_t panels = (n + cpu::kPanel - 1) / cpu::kPanel;
  std::vector<uint8_t> packed(size_t(panels * depth * bytes));
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t g = 0; g < depth; ++g) {
      const Group& group = groups[size_t(j * depth + g)];
      const int64_t c = j % cpu::kPanel;
      uint8_t* const to = packed.data() + (j / cpu::kPanel * depth + g) * bytes;
      for (int64_t k = 0; k < kGroup; ++k) {
        const int64_t eighth = k / 4;
        if (group_bits(form) == 8) {
          to[eighth * line + c * 4 + k % 4] = group.q[k];
          continue;
        }
        to[eighth / 2 * line + c * 4 + k % 4] |= uint8_t((group.q[k] & 15) << (eighth % 2 * 4));
        if (form == GroupForm::kQ6_K)
          to[(4 + eighth / 4) * line + c * 4 + k % 4] |=
              uint8_t(group.q[k] / 16 << (eighth % 4 * 2));
      }
      std::memcpy(to + scales + c * 2, &group.scale[0], 2);
      if (form == GroupForm::kQ6_K) std::memcpy(to + scales + 32 + c * 2, &group.scale[1], 2);
      if (form == GroupForm::kInt4 || form == GroupForm::kInt8)
        std::memcpy(to + scales + 32 + c * 2, &group.min[0], 2);
    }
  }
  return packed;
}

}  // namespace trine::test
