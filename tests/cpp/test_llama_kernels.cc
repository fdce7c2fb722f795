// SPDX-License-Identifier: Apache-2.0
// The kernels that Llama's layers add, on every instruction set against ref/.
#include <cmath>

#include "exec/rotary.h"
#include "ref/ref.h"
#include "row_kernel_testing.h"

namespace trine::test {
TEST(rms_norm) {
  Random random(20);
  for (const RowShape& s : row_shapes()) {
    Matrix<float> x = matrix_of(s), want = matrix_of(s), weight(1, s.cols, s.cols, 1);
    x.fill(random, -3, 3);
    weight.fill(random);
    RmsNormArgs args = {x.data(),  x.ld(), weight.data(), want.data(),
                        want.ld(), s.rows, s.cols,        1e-5f};
    ref::rms_norm(args);
    // A sum of squares has no cancellation: half of its error in the root, and a few roundings.
    const auto tolerance = [&](int64_t i, int64_t j) {
      return gamma(s.cols / 16 + 14) * std::fabs(double(want.at(i, j)));
    };
    check_row_kernel("rms_norm", s, &cpu::KernelTable::rms_norm, args, &RmsNormArgs::x, x, want,
                     tolerance);
  }
}

TEST(scale) {
  Random random(21);
  for (const RowShape& s : row_shapes()) {
    Matrix<float> x = matrix_of(s), want = matrix_of(s);
    x.fill(random);
    ScaleArgs args = {x.data(), x.ld(), want.data(), want.ld(), s.rows, s.cols, 0.3f};
    ref::scale(args);
    // One rounding of an exact product.
    check_row_kernel("scale", s, &cpu::KernelTable::scale, args, &ScaleArgs::x, x, want,
                     [](int64_t, int64_t) { return 0.0; });
  }
}

TEST(gated) {
  Random random(22);
  for (const RowShape& s : row_shapes()) {
    for (int a = 0; a <= static_cast<int>(Activation::kQuickGelu); ++a) {
      Matrix<float> gate = matrix_of(s), up(s.rows, s.cols, s.cols + 2, 1), want = matrix_of(s);
      gate.fill(random, -8, 8);
      up.fill(random);
      GatedArgs args = {gate.data(), up.data(), gate.ld(), up.ld(),      want.data(),
                        want.ld(),   s.rows,    s.cols,    Activation(a)};
      ref::gated(args);
      // test_math.cc has the bounds of each function; this covers them all, and the product.
      const auto tolerance = [&](int64_t i, int64_t j) {
        return 26 * kUnit * std::fabs(double(want.at(i, j))) +
               3e-8 * std::fabs(double(gate.at(i, j)) * double(up.at(i, j)));
      };
      check_row_kernel(cat("gated of kind ", a), s, &cpu::KernelTable::gated, args,
                       &GatedArgs::gate, gate, want, tolerance);
    }
  }
}

TEST(rope) {
  Random random(23);
  for (int64_t head_dim = 1; head_dim <= 130; head_dim += head_dim < 40 ? 1 : 10) {
    for (const int64_t turned : {head_dim / 2 * 2, head_dim / 4 * 2}) {
      for (const int64_t heads : {1, 3}) {
        const RowShape s = {4, heads * head_dim, 5, 1};
        Matrix<float> x = matrix_of(s), want = matrix_of(s), angles(4, turned, turned + 3, 1);
        x.fill(random);
        angles.fill(random);
        RopeArgs args = {x.data(),  x.ld(), angles.data(), angles.ld(), want.data(),
                         want.ld(), s.rows, heads,         head_dim,    turned};
        ref::rope(args);
        // Two products below 1 and a sum.
        check_row_kernel(cat("rope of ", turned, " of ", head_dim), s, &cpu::KernelTable::rope,
                         args, &RopeArgs::x, x, want,
                         [](int64_t, int64_t) { return gamma(2) * 2; });
      }
    }
  }
}

TEST(rotary) {
  Random random(24);
  const std::vector<int32_t> offsets = {0, 3, 3, 20, 90};
  for (const int64_t pairs : {1, 2, 5, 16, 17, 32, 48, 64, 512}) {
    Matrix<float> inv_freq(1, pairs), long_inv_freq(1, pairs);
    for (int64_t c = 0; c < pairs; ++c)
      inv_freq.at(0, c) = float(std::pow(10000.0, -double(c) / double(pairs)));
    long_inv_freq.fill(random, 0, 1);
    Matrix<int32_t> positions(1, 90);
    for (int64_t i = 0; i < 90; ++i)
      positions.at(0, i) = int32_t(i < 45 ? i : random.below(1'000'000));
    for (const int kind : {0, 1, 2}) {
      if (kind == 2 && pairs == 1) continue;
      Matrix<float> want(90, 2 * pairs, 2 * pairs + 3, 1);
      RotaryArgs args = {positions.data(),
                         inv_freq.data(),
                         kind == 1 ? long_inv_freq.data() : nullptr,
                         want.data(),
                         want.ld(),
                         90,
                         pairs,
                         {offsets.data(), 4},
                         nullptr,
                         1.25f,
                         kind == 0 ? 0 : 17,
                         10000.0f,
                         4.0f};
      ref::rotary(args);
      for (const cpu::KernelTable* table : kernel_tables()) {
        Matrix<float> y(90, 2 * pairs, 2 * pairs + 3, 1);
        args.y = y.data();
        table->rotary(args, 0, 50);  // a border within the last sequence
        table->rotary(args, 50, 90);
        // Rounded to float, and again when scaled; the series is off by less than 1e-9.
        CHECK_CLOSE(cat("rotary on ", table->name, ", ", pairs, " pairs, kind ", kind), y, want,
                    [](int64_t, int64_t) { return 1.25 * (2 * kUnit + 2e-9); });
        CHECK(y.intact());
      }
    }
  }
}

// Numbers of transformers 5.23: LlamaRotaryEmbedding with rope_type dynamic, factor 4, 2048
// positions, head_dim 8, a sequence of 3000; and what a caller says about lengths is what counts.
TEST(rotary_frequencies_of_a_long_sequence) {
  const float inv_freq[] = {1.0f, 0.1f, 0.01f, 0.001f};
  const float long_inv_freq[] = {4, 3, 2, 1};
  const int32_t offsets[] = {0, 5}, lengths[] = {3000};
  RotaryArgs args = {};
  args.inv_freq = inv_freq, args.pairs = 4, args.batch = {offsets, 1}, args.original_length = 2048;
  args.base = 10000, args.factor = 4;
  CHECK_EQ(rotary_length(args, 0), int64_t{5});
  args.lengths = lengths;
  CHECK_EQ(rotary_length(args, 0), int64_t{3000});
  float got[4];
  rotary_frequencies(args, 2048, got);
  CHECK_EQ(got[3], 0.001f);
  rotary_frequencies(args, 3000, got);
  const double want[] = {1.0, 0.07045464217662811, 0.004963856656104326, 0.00034972678986378014};
  for (int c = 0; c < 4; ++c) CHECK(std::fabs(double(got[c]) - want[c]) < 4e-7 * want[c]);
  args.long_inv_freq = long_inv_freq;
  rotary_frequencies(args, 3000, got);
  CHECK_EQ(got[0], 4.0f);
}

}  // namespace trine::test
