// SPDX-License-Identifier: Apache-2.0
// Packed weights by the plainest loops, which say what the layouts are.
#pragma once

#include "cpu/ops.h"
#include "kernel_testing.h"
#include "weights/convert.h"

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

}  // namespace trine::test
