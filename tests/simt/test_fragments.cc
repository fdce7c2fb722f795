// SPDX-License-Identifier: Apache-2.0
// The layouts against the figures of the PTX ISA (transcribed here cell by cell, apart from the
// formulas that fragments.cc follows), and the products and loads against plain ones.
#include <cmath>
#include <string>
#include <vector>

#include "cpp/check.h"
#include "simt/fragments.h"

namespace trine::simt {
namespace {

using test::report_failure;

// "T5:a1" as the figures write it: lane 5 holds the cell as element 1.
std::string cell(int lane, int i, char matrix) { return cat("T", lane, ":", matrix, i); }

// The figure of a matrix, drawn from a layout. Every cell must be held exactly once.
template <int rows, int cols>
std::vector<std::vector<std::string>> draw(Element (*layout)(int, int), int elements, char name) {
  std::vector<std::vector<std::string>> figure(rows, std::vector<std::string>(cols));
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < elements; ++i) {
      const Element e = layout(lane, i);
      CHECK(e.row >= 0 && e.row < rows && e.col >= 0 && e.col < cols);
      CHECK_EQ(figure[size_t(e.row)][size_t(e.col)], "");
      figure[size_t(e.row)][size_t(e.col)] = cell(lane, i, name);
    }
  }
  for (const auto& row : figure) {
    for (const std::string& held : row) CHECK(!held.empty());
  }
  return figure;
}

// One row (or column) of a figure: lanes from `lane` on, `pair` cells each, elements from `first`.
std::vector<std::string> four_lanes(int lane, int pair, int first, char name) {
  std::vector<std::string> cells;
  for (int t = 0; t < 4; ++t) {
    for (int i = 0; i < pair; ++i) cells.push_back(cell(lane + t, first + i, name));
  }
  return cells;
}

std::vector<std::string> side_by_side(std::vector<std::string> left,
                                      const std::vector<std::string>& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

template <class Figure>
std::vector<std::string> column(const Figure& figure, size_t col) {
  std::vector<std::string> cells;
  for (const auto& row : figure) cells.push_back(row[col]);
  return cells;
}

// Rows 0 .. 7 are those of groups 0 .. 7 (lanes 0-3, 4-7, ...), and 8 .. 15 again.
TEST(m16n8k16_figures) {
  const auto a = draw<16, 16>(m16n8k16_a, 8, 'a');
  const auto b = draw<16, 8>(m16n8k16_b, 4, 'b');
  const auto c = draw<16, 8>(m16n8k16_c, 4, 'c');
  for (int group = 0; group < 8; ++group) {
    const int lane = 4 * group;
    const size_t upper = size_t(group), lower = size_t(group) + 8;
    CHECK_EQ(a[upper], side_by_side(four_lanes(lane, 2, 0, 'a'), four_lanes(lane, 2, 4, 'a')));
    CHECK_EQ(a[lower], side_by_side(four_lanes(lane, 2, 2, 'a'), four_lanes(lane, 2, 6, 'a')));
    CHECK_EQ(column(b, upper),
             side_by_side(four_lanes(lane, 2, 0, 'b'), four_lanes(lane, 2, 2, 'b')));
    CHECK_EQ(c[upper], four_lanes(lane, 2, 0, 'c'));
    CHECK_EQ(c[lower], four_lanes(lane, 2, 2, 'c'));
  }
  // Corners, as printed.
  CHECK_EQ(a[0][0], "T0:a0");
  CHECK_EQ(a[0][15], "T3:a5");
  CHECK_EQ(a[15][0], "T28:a2");
  CHECK_EQ(a[15][15], "T31:a7");
  CHECK_EQ(b[0][7], "T28:b0");
  CHECK_EQ(b[15][0], "T3:b3");
  CHECK_EQ(c[15][7], "T31:c3");
}

TEST(m16n8k8_figures) {
  const auto a = draw<16, 8>(m16n8k8_a, 4, 'a');
  const auto b = draw<8, 8>(m16n8k8_b, 2, 'b');
  const auto c = draw<16, 8>(m16n8k8_c, 4, 'c');
  for (int group = 0; group < 8; ++group) {
    const int lane = 4 * group;
    const size_t upper = size_t(group), lower = size_t(group) + 8;
    CHECK_EQ(a[upper], side_by_side(four_lanes(lane, 1, 0, 'a'), four_lanes(lane, 1, 2, 'a')));
    CHECK_EQ(a[lower], side_by_side(four_lanes(lane, 1, 1, 'a'), four_lanes(lane, 1, 3, 'a')));
    CHECK_EQ(column(b, upper),
             side_by_side(four_lanes(lane, 1, 0, 'b'), four_lanes(lane, 1, 1, 'b')));
    CHECK_EQ(c[upper], four_lanes(lane, 2, 0, 'c'));
    CHECK_EQ(c[lower], four_lanes(lane, 2, 2, 'c'));
  }
  CHECK_EQ(a[15][7], "T31:a3");
  CHECK_EQ(b[7][0], "T3:b1");
}

TEST(fragments_of_bytes_figures) {
  const auto a = draw<16, 32>(m16n8k32_a, 16, 'a');
  const auto b = draw<32, 8>(m16n8k32_b, 8, 'b');
  const auto quarter_a = draw<8, 16>(m8n8k16_a, 4, 'a');
  const auto quarter_b = draw<16, 8>(m8n8k16_b, 4, 'b');
  const auto quarter_c = draw<8, 8>(m8n8k16_c, 2, 'c');
  for (int group = 0; group < 8; ++group) {
    const int lane = 4 * group;
    const size_t upper = size_t(group), lower = size_t(group) + 8;
    CHECK_EQ(a[upper], side_by_side(four_lanes(lane, 4, 0, 'a'), four_lanes(lane, 4, 8, 'a')));
    CHECK_EQ(a[lower], side_by_side(four_lanes(lane, 4, 4, 'a'), four_lanes(lane, 4, 12, 'a')));
    CHECK_EQ(column(b, upper),
             side_by_side(four_lanes(lane, 4, 0, 'b'), four_lanes(lane, 4, 4, 'b')));
    CHECK_EQ(quarter_a[upper], four_lanes(lane, 4, 0, 'a'));
    CHECK_EQ(column(quarter_b, upper), four_lanes(lane, 4, 0, 'b'));
    CHECK_EQ(quarter_c[upper], four_lanes(lane, 2, 0, 'c'));
  }
  // Corners, as printed.
  CHECK_EQ(a[0][31], "T3:a11");
  CHECK_EQ(a[15][0], "T28:a4");
  CHECK_EQ(a[15][31], "T31:a15");
  CHECK_EQ(b[31][7], "T31:b7");
  CHECK_EQ(quarter_b[15][7], "T31:b3");
}

// Threads 0-7 give the rows of the first matrix, 8-15 of the second, and so on; lane 4 r + t gets
// elements 2 t and 2 t + 1 of row r, with .trans of column r.
TEST(ldmatrix_figures) {
  uint16_t rows[32][8];
  for (int l = 0; l < 32; ++l) {
    for (int i = 0; i < 8; ++i) rows[l][i] = static_cast<uint16_t>(100 * l + i);
  }
  for (const int matrices : {1, 2, 4}) {
    for (const bool trans : {false, true}) {
      uint32_t r[32][4];
      for (auto& lane : r) std::fill(std::begin(lane), std::end(lane), 0xdeadbeefu);
      ldmatrix(rows, matrices, trans, r);
      for (int l = 0; l < 32; ++l) {
        for (int m = 0; m < 4; ++m) {
          const int major = l / 4, minor = 2 * (l % 4);
          const int low = trans ? 100 * (8 * m + minor) + major : 100 * (8 * m + major) + minor;
          const int high = trans ? low + 100 : low + 1;
          CHECK_EQ(r[l][m], m < matrices ? uint32_t(high) << 16 | uint32_t(low) : 0xdeadbeefu);
        }
      }
    }
  }
}

// Small integers are exact in every type, so that products and sums are, too.
float small(int seed) { return float(seed * 37 % 17 - 8); }

template <int K, class Put>
void check_product(Element (*layout_a)(int, int), Element (*layout_b)(int, int),
                   Element (*layout_c)(int, int), int in_register, Put put,
                   void (*multiply)(const uint32_t (&)[32][4], const uint32_t (&)[32][2],
                                    float (&)[32][4])) {
  float left[16][K], right[K][8];
  for (int k = 0; k < K; ++k) {
    for (int m = 0; m < 16; ++m) left[m][k] = small(m * K + k);
    for (int n = 0; n < 8; ++n) right[k][n] = small(1000 + k * 8 + n);
  }
  uint32_t a[32][4] = {}, b[32][2] = {};
  float c[32][4];
  for (int l = 0; l < 32; ++l) {
    for (int i = 0; i < 4 * in_register; ++i) {
      const Element e = layout_a(l, i);
      a[l][i / in_register] |= put(left[e.row][e.col], i % in_register);
    }
    for (int i = 0; i < 2 * in_register; ++i) {
      const Element e = layout_b(l, i);
      b[l][i / in_register] |= put(right[e.row][e.col], i % in_register);
    }
    for (int i = 0; i < 4; ++i) c[l][i] = float(l + i);
  }
  multiply(a, b, c);
  for (int l = 0; l < 32; ++l) {
    for (int i = 0; i < 4; ++i) {
      const Element e = layout_c(l, i);
      float expected = float(l + i);
      for (int k = 0; k < K; ++k) expected += left[e.row][k] * right[k][e.col];
      CHECK_EQ(c[l][i], expected);
    }
  }
}

TEST(mma_is_the_matrix_product) {
  check_product<16>(
      m16n8k16_a, m16n8k16_b, m16n8k16_c, 2,
      [](float v, int i) { return uint32_t{float_to_bf16(v)} << (16 * i); }, mma_m16n8k16_bf16);
  // Bits that the tensor core ignores do not matter.
  check_product<8>(
      m16n8k8_a, m16n8k8_b, m16n8k8_c, 1, [](float v, int) { return float_to_tf32(v) | 0x1fffu; },
      mma_m16n8k8_tf32);
}

TEST(mma_of_bytes_is_the_matrix_product) {
  for (const bool unsigned_b : {false, true}) {
    int left[16][32], right[32][8];
    uint32_t a[32][4] = {}, b[32][2] = {};
    int32_t c[32][4];
    for (int k = 0; k < 32; ++k) {
      for (int m = 0; m < 16; ++m) left[m][k] = (m * 71 + k * 37) % 256 - 128;
      for (int n = 0; n < 8; ++n) right[k][n] = (n * 59 + k * 83) % 256 - (unsigned_b ? 0 : 128);
    }
    for (int l = 0; l < 32; ++l) {
      for (int i = 0; i < 16; ++i) {
        const Element e = m16n8k32_a(l, i);
        a[l][i / 4] |= uint32_t{static_cast<uint8_t>(left[e.row][e.col])} << (i % 4 * 8);
      }
      for (int i = 0; i < 8; ++i) {
        const Element e = m16n8k32_b(l, i);
        b[l][i / 4] |= uint32_t{static_cast<uint8_t>(right[e.row][e.col])} << (i % 4 * 8);
      }
      for (int i = 0; i < 4; ++i) c[l][i] = l + i;
    }
    (unsigned_b ? mma_m16n8k32_s8u8 : mma_m16n8k32_s8s8)(a, b, c);
    for (int l = 0; l < 32; ++l) {
      for (int i = 0; i < 4; ++i) {
        const Element e = m16n8k16_c(l, i);
        int expected = l + i;
        for (int k = 0; k < 32; ++k) expected += left[e.row][k] * right[k][e.col];
        CHECK_EQ(c[l][i], expected);
      }
    }
  }
}

TEST(conversions_round_as_documented) {
  CHECK_EQ(float_to_bf16(1.0f), uint16_t{0x3f80});
  CHECK_EQ(float_to_bf16(0x1.01p0f), uint16_t{0x3f80});      // a tie, to even: down
  CHECK_EQ(float_to_bf16(0x1.03p0f), uint16_t{0x3f82});      // a tie, to even: up
  CHECK_EQ(float_to_bf16(0x1.010002p0f), uint16_t{0x3f81});  // above the tie
  CHECK_EQ(float_to_bf16(0x1.ffp127f), uint16_t{0x7f80});    // past the largest: infinity
  CHECK_EQ(float_to_bf16(-INFINITY), uint16_t{0xff80});
  CHECK_EQ(float_to_bf16(NAN), uint16_t{0x7fff});
  CHECK_EQ(bf16_to_float(0xc0a0), -5.0f);
  CHECK_EQ(float_to_tf32(0x1.002p0f), 0x3f802000u);  // a tie, away from zero
  CHECK_EQ(float_to_tf32(-0x1.002p0f), 0xbf802000u);
  CHECK_EQ(float_to_tf32(0x1.001ffep0f), 0x3f800000u);
  CHECK_EQ(float_to_tf32(INFINITY), 0x7f800000u);
}

}  // namespace
}  // namespace trine::simt
