// SPDX-License-Identifier: Apache-2.0
// What tests of kernels that work row by row share.
#pragma once

#include <string>
#include <vector>

#include "kernel_testing.h"

namespace trine::test {

// What a row kernel may meet: tails, one row, none, gaps between rows, addresses off by one
// element.
struct RowShape {
  int64_t rows, cols, gap, misalign;
};

inline std::vector<RowShape> row_shapes() {
  std::vector<RowShape> shapes;
  for (int64_t cols = 1; cols <= 33; ++cols) shapes.push_back({3, cols, cols % 3, cols % 5});
  for (const int64_t cols : {48, 63, 64, 65, 100, 128, 129, 384, 768, 1000}) {
    shapes.push_back({2, cols, 0, 0});
    shapes.push_back({5, cols, 7, 3});
  }
  shapes.push_back({0, 16, 0, 0});
  shapes.push_back({1, 4096, 1, 1});
  return shapes;
}

inline std::string name_of(const char* op, const cpu::KernelTable& table, const RowShape& s) {
  return cat(op, " on ", table.name, ", ", s.rows, " x ", s.cols, ", gap ", s.gap, ", off by ",
             s.misalign);
}

inline Matrix<float> matrix_of(const RowShape& s) {
  return Matrix<float>(s.rows, s.cols, s.cols + s.gap, s.misalign);
}

// `kernel` on every instruction set: within the tolerance of `want`, and with the same bits where
// its result takes the place of `x`, which `input` points to in `args`. `args.y` is of want's
// stride.
template <class Args, class Tolerance>
void check_row_kernel(const std::string& op, const RowShape& s,
                      void (*cpu::KernelTable::*kernel)(const Args&, int64_t, int64_t) noexcept,
                      Args args, const float* Args::* input, const Matrix<float>& x,
                      const Matrix<float>& want, Tolerance tolerance) {
  for (const cpu::KernelTable* table : kernel_tables()) {
    Matrix<float> y = matrix_of(s);
    args.y = y.data();
    (table->*kernel)(args, 0, s.rows);
    CHECK_CLOSE(name_of(op.c_str(), *table, s), y, want, tolerance);
    CHECK(y.intact());

    Matrix<float> in_place = matrix_of(s);
    in_place.copy_from(x);
    Args over = args;
    over.*input = over.y = in_place.data();
    (table->*kernel)(over, 0, s.rows);
    CHECK(identical(y, in_place));
    CHECK(in_place.intact());
  }
}

}  // namespace trine::test
