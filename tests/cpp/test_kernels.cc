// SPDX-License-Identifier: Apache-2.0
// Every kernel but linear's (test_linear.cc) on every instruction set against ref/. Tolerances are
// rounding-error bounds: gamma(n) for n roundings in a row, times the magnitudes that were added.
#include <cmath>

#include "ref/ref.h"
#include "row_kernel_testing.h"

namespace trine::test {
namespace {

// The longest chain of additions in a sum of n numbers over four accumulators of at least four
// lanes, and their tree.
int64_t sum_chain(int64_t n) { return n / 16 + 8; }

}  // namespace

TEST(activation) {
  Random random(1);
  for (const RowShape& s : row_shapes()) {
    for (int a = 0; a <= static_cast<int>(Activation::kQuickGelu); ++a) {
      Matrix<float> x = matrix_of(s), want = matrix_of(s);
      x.fill(random, -8, 8);
      ActivationArgs args = {x.data(), x.ld(), want.data(),  want.ld(),
                             s.rows,   s.cols, Activation(a)};
      ref::activation(args);
      // test_math.cc has the bounds of each function; this covers them all.
      const auto tolerance = [&](int64_t i, int64_t j) {
        return 24 * kUnit * std::fabs(double(want.at(i, j))) + 3e-8 * std::fabs(double(x.at(i, j)));
      };
      check_row_kernel(cat("activation of kind ", a), s, &cpu::KernelTable::activation, args,
                       &ActivationArgs::x, x, want, tolerance);
    }
  }
}

TEST(add) {
  Random random(2);
  for (const RowShape& s : row_shapes()) {
    Matrix<float> a = matrix_of(s), b(s.rows, s.cols, s.cols + 2, 1), want = matrix_of(s);
    a.fill(random);
    b.fill(random);
    AddArgs args = {a.data(), b.data(), a.ld(), b.ld(), want.data(), want.ld(), s.rows, s.cols};
    ref::add(args);
    // One rounding of an exact sum.
    check_row_kernel("add", s, &cpu::KernelTable::add, args, &AddArgs::a, a, want,
                     [](int64_t, int64_t) { return 0.0; });
  }
}

TEST(layer_norm) {
  Random random(3);
  for (const RowShape& s : row_shapes()) {
    for (const bool affine : {true, false}) {
      Matrix<float> x = matrix_of(s), want = matrix_of(s);
      Matrix<float> weight(1, s.cols, s.cols, 1), bias(1, s.cols, s.cols, 2);
      // A mean far from zero: a variance from the sum of squares would lose most digits.
      x.fill(random, 9, 11);
      weight.fill(random);
      bias.fill(random);
      LayerNormArgs args = {x.data(),
                            x.ld(),
                            affine ? weight.data() : nullptr,
                            affine ? bias.data() : nullptr,
                            want.data(),
                            want.ld(),
                            s.rows,
                            s.cols,
                            1e-5f};
      ref::layer_norm(args);
      // With the mean off by m = gamma(chain) max|x|: (x - mean) by m, its square's sum in second
      // order only, the deviation by half of gamma(chain), each of the last five operations by one
      // rounding.
      const int64_t chain = sum_chain(s.cols);
      const auto tolerance = [&](int64_t i, int64_t j) {
        double mean = 0.0, squares = 0.0;
        for (int64_t c = 0; c < s.cols; ++c) mean += double(x.at(i, c)) / double(s.cols);
        for (int64_t c = 0; c < s.cols; ++c)
          squares += (double(x.at(i, c)) - mean) * (double(x.at(i, c)) - mean);
        const double deviation = std::sqrt(squares / double(s.cols) + 1e-5);
        const double w = affine ? std::fabs(double(weight.at(0, j))) : 1.0;
        const double b = affine ? std::fabs(double(bias.at(0, j))) : 0.0;
        const double m = gamma(chain + 2) * 11.0;
        const double z = std::fabs(double(x.at(i, j)) - mean) / deviation;
        const double relative = gamma(chain + 8) + m * m / (deviation * deviation);
        return w * (m / deviation * 1.01 + z * relative) +
               2 * kUnit * (b + std::fabs(double(want.at(i, j))));
      };
      check_row_kernel("layer_norm", s, &cpu::KernelTable::layer_norm, args, &LayerNormArgs::x, x,
                       want, tolerance);
    }
  }
}

TEST(l2_normalize) {
  Random random(4);
  for (const RowShape& s : row_shapes()) {
    Matrix<float> x = matrix_of(s), want = matrix_of(s);
    x.fill(random);
    if (s.rows > 1) {
      for (int64_t j = 0; j < s.cols; ++j) x.at(1, j) = 0.0f;
    }
    L2NormalizeArgs args = {x.data(), x.ld(), want.data(), want.ld(), s.rows, s.cols, 1e-12f};
    ref::l2_normalize(args);
    // Half the error of the sum of squares, a root, a division, the reference's own rounding.
    const auto tolerance = [&](int64_t i, int64_t j) {
      return gamma(sum_chain(s.cols) / 2 + 4) * std::fabs(double(want.at(i, j)));
    };
    check_row_kernel("l2_normalize", s, &cpu::KernelTable::l2_normalize, args, &L2NormalizeArgs::x,
                     x, want, tolerance);
  }
}

TEST(embedding) {
  constexpr int64_t kTableRows = 11;
  Random random(5);
  for (const RowShape& s : row_shapes()) {
    for (int count = 1; count <= EmbeddingArgs::kMaxTables; ++count) {
      // Tables as bytes at odd addresses: checkpoints promise no alignment.
      Matrix<uint8_t> tables[3] = {{kTableRows, 4 * s.cols, 4 * s.cols, 1},
                                   {kTableRows, 2 * s.cols, 2 * s.cols, 1},
                                   {kTableRows, 2 * s.cols, 2 * s.cols, 3}};
      Matrix<int32_t> ids[3] = {{1, s.rows}, {1, s.rows}, {1, s.rows}};
      constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
      EmbeddingArgs args = {};
      for (int t = 0; t < count; ++t) {
        const int which = (t + int(s.cols)) % 3;
        for (int64_t i = 0; i < kTableRows * s.cols; ++i) {
          if (kDTypes[which] == DType::kF32) {
            const float value = random.uniform(-1, 1);
            std::memcpy(tables[which].data() + 4 * i, &value, sizeof value);
          } else {
            // Any bits with an exponent below the bias: magnitudes under 1, F16's denormals among
            // them.
            const uint16_t top = kDTypes[which] == DType::kF16 ? 0x4000 : 0x4000 | 0x80;
            const auto value = static_cast<uint16_t>(random.bits() & 0xffff & ~uint32_t{top});
            std::memcpy(tables[which].data() + 2 * i, &value, sizeof value);
          }
        }
        for (int64_t i = 0; i < s.rows; ++i) ids[t].at(0, i) = int32_t(random.below(kTableRows));
        args.ids[t] = ids[t].data();
        args.tables[t] = tables[which].data();
        args.dtypes[t] = kDTypes[which];
      }
      Matrix<float> want = matrix_of(s);
      args.count = count;
      args.y = want.data();
      args.ldy = want.ld();
      args.rows = s.rows;
      args.cols = s.cols;
      ref::embedding(args);
      // At most two additions of values below 2.
      const auto tolerance = [&](int64_t, int64_t) {
        return count == 1 ? 0.0 : gamma(3) * 2 * count;
      };
      for (const cpu::KernelTable* table : kernel_tables()) {
        Matrix<float> y = matrix_of(s);
        args.y = y.data();
        table->embedding(args, 0, s.rows);
        CHECK_CLOSE(name_of("embedding", *table, s) + cat(", tables ", count), y, want, tolerance);
        CHECK(y.intact());
      }
    }
  }
}

// Every half there is, for the conversions.
TEST(embedding_of_every_f16_and_bf16) {
  Matrix<uint16_t> halves(1, 65536);
  for (int64_t i = 0; i < 65536; ++i) halves.at(0, i) = uint16_t(i);
  const int32_t id = 0;
  Matrix<float> want(1, 65536), y(1, 65536);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    EmbeddingArgs args = {};
    args.ids[0] = &id, args.tables[0] = halves.data(), args.dtypes[0] = dtype, args.count = 1;
    args.y = want.data(), args.ldy = 65536, args.rows = 1, args.cols = 65536;
    ref::embedding(args);
    for (const cpu::KernelTable* table : kernel_tables()) {
      args.y = y.data();
      table->embedding(args, 0, 1);
      int64_t wrong = 0;
      for (int64_t i = 0; i < 65536; ++i) {
        const float a = y.at(0, i), b = want.at(0, i);
        wrong += std::isnan(b) ? !std::isnan(a) : (a != b || std::signbit(a) != std::signbit(b));
      }
      CHECK_EQ(wrong, int64_t{0});
    }
  }
}

TEST(pool) {
  constexpr PoolMode kModes[] = {PoolMode::kCls,          PoolMode::kMean,
                                 PoolMode::kMax,          PoolMode::kMeanSqrtLen,
                                 PoolMode::kWeightedMean, PoolMode::kLastToken};
  const std::vector<int32_t> offsets = {0, 3, 3, 4, 20, 21, 70};  // an empty sequence among them
  const std::vector<int32_t> skip = {1, 0, 1, 4, 0, 30};          // the third has nothing left
  const auto sequences = int32_t(skip.size());
  Random random(6);
  for (const RowShape& s : row_shapes()) {
    Matrix<float> x(offsets.back(), s.cols, s.cols + s.gap, s.misalign),
        magnitude(offsets.back(), s.cols);
    x.fill(random);
    for (int64_t i = 0; i < x.rows(); ++i) {
      for (int64_t j = 0; j < s.cols; ++j) magnitude.at(i, j) = std::fabs(x.at(i, j));
    }
    for (const PoolMode mode : kModes) {
      for (const bool skips : {false, true}) {
        Matrix<float> want(sequences, s.cols, s.cols + 1), sum(sequences, s.cols);
        PoolArgs args = {x.data(),  x.ld(), skips ? skip.data() : nullptr, want.data(),
                         want.ld(), s.cols, {offsets.data(), sequences},   mode};
        ref::pool(args);
        PoolArgs absolute = args;
        absolute.x = magnitude.data(), absolute.ldx = magnitude.ld(), absolute.y = sum.data(),
        absolute.ldy = sum.ld();
        ref::pool(absolute);
        const bool exact =
            mode == PoolMode::kCls || mode == PoolMode::kMax || mode == PoolMode::kLastToken;
        // One accumulator down the longest sequence; a product, a root and a division.
        const auto tolerance = [&](int64_t i, int64_t j) {
          return exact ? 0.0
                       : gamma(offsets[size_t(i) + 1] - offsets[size_t(i)] + 4) *
                             double(sum.at(i, j));
        };
        for (const cpu::KernelTable* table : kernel_tables()) {
          Matrix<float> y(sequences, s.cols, s.cols + 1);
          args.y = y.data();
          table->pool(args, 0, sequences);
          CHECK_CLOSE(
              name_of("pool", *table, s) + cat(", mode ", int(mode), skips ? ", skipping" : ""), y,
              want, tolerance);
          CHECK(y.intact());
        }
      }
    }
  }
}

TEST(pool_keeps_nan) {
  const int32_t offsets[] = {0, 3};
  for (int64_t where = 0; where < 3; ++where) {
    Matrix<float> x(3, 40), y(1, 40);
    x.fill(1.0f);
    x.at(where, 17) = std::numeric_limits<float>::quiet_NaN();
    for (const cpu::KernelTable* table : kernel_tables()) {
      table->pool({x.data(), 40, nullptr, y.data(), 40, 40, {offsets, 1}, PoolMode::kMax}, 0, 1);
      CHECK(std::isnan(y.at(0, 17)));
      CHECK_EQ(y.at(0, 16), 1.0f);
    }
  }
}

TEST(row_ranges_are_independent) {
  Random random(7);
  Matrix<float> x(9, 100), weight(1, 100);
  x.fill(random);
  weight.fill(random);
  for (const cpu::KernelTable* table : kernel_tables()) {
    Matrix<float> whole(9, 100), parts(9, 100);
    LayerNormArgs args = {x.data(), 100, weight.data(), nullptr, whole.data(), 100, 9, 100, 1e-5f};
    table->layer_norm(args, 0, 9);
    args.y = parts.data();
    table->layer_norm(args, 4, 9);
    CHECK(std::isnan(parts.at(3, 99)));  // not written yet
    table->layer_norm(args, 0, 4);
    CHECK(identical(whole, parts));
  }
}

// Nothing is read or written past the last element, not even what a mask would drop.
TEST(row_kernels_stop_at_the_last_element) {
  Random random(8);
  for (int64_t cols = 1; cols <= 70; ++cols) {
    PageEnd a(2 * cols), b(2 * cols), weight(cols), bias(cols), y(2 * cols), half((cols + 1) / 2);
    for (PageEnd* p : {&a, &b, &weight, &bias, &half}) p->fill(random);
    // An odd number of halves starts at an odd multiple of two bytes.
    const auto* halves = reinterpret_cast<const char*>(half.data()) + cols % 2 * 2;
    const int32_t offsets[] = {0, 2}, id = 0;
    for (const cpu::KernelTable* table : kernel_tables()) {
      table->activation({a.data(), cols, y.data(), cols, 2, cols, Activation::kRelu}, 0, 2);
      table->add({a.data(), b.data(), cols, cols, y.data(), cols, 2, cols}, 0, 2);
      table->layer_norm(
          {a.data(), cols, weight.data(), bias.data(), y.data(), cols, 2, cols, 1e-5f}, 0, 2);
      table->l2_normalize({a.data(), cols, y.data(), cols, 2, cols, 1e-5f}, 0, 2);
      table->rms_norm({a.data(), cols, weight.data(), y.data(), cols, 2, cols, 1e-5f}, 0, 2);
      table->gated({a.data(), b.data(), cols, cols, y.data(), cols, 2, cols, Activation::kSilu}, 0,
                   2);
      table->scale({a.data(), cols, y.data(), cols, 2, cols, 0.3f}, 0, 2);
      // Tables of an even number of columns, heads of any.
      const int64_t turned = cols / 2 * 2;
      PageEnd angles(2 * turned);
      angles.fill(random);
      table->rope({a.data(), cols, angles.data(), turned, y.data(), cols, 2, 1, cols, turned}, 0,
                  2);
      for (const PoolMode mode : {PoolMode::kCls, PoolMode::kMean, PoolMode::kMax,
                                  PoolMode::kWeightedMean, PoolMode::kLastToken}) {
        table->pool({a.data(), cols, nullptr, y.data() + cols, cols, cols, {offsets, 1}, mode}, 0,
                    1);
      }
      for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
        EmbeddingArgs args = {};
        args.ids[0] = &id, args.dtypes[0] = dtype, args.count = 1, args.rows = 1, args.cols = cols;
        args.tables[0] = dtype == DType::kF32 ? static_cast<const void*>(weight.data()) : halves;
        args.y = y.data() + cols, args.ldy = cols;
        table->embedding(args, 0, 1);
      }
    }
  }
}

}  // namespace trine::test
