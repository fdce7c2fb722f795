// SPDX-License-Identifier: Apache-2.0
// linear in int8, on every instruction set: against ref::linear_int8, and bit for bit against each
// other and against itself whatever the rows beside a row, the blocks and the threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "amx_emulated.h"
#include "cpu/ops.h"
#include "exec/int8.h"
#include "linear_testing.h"
#include "pack_plainly.h"
#include "ref/ref.h"

namespace trine::test {
namespace {

using cpu::KernelTable;
using cpu::kPanel;

using Case = LinearCase;

std::vector<const KernelTable*> tables() {
  std::vector<const KernelTable*> all = tables_with(&KernelTable::linear_int8);
  all.push_back(&cpu::amx_emulated::table());
  return all;
}

// One case's inputs, and its result according to ref.
class Problem : public LinearInputs {
 public:
  Problem(const Case& c, Random& random)
      : LinearInputs(c, random),
        w_(c.n, c.k),
        packed_(1, cpu::packed_int8(c.n, c.k)),
        rows_(c.n, int8::row_bytes(c.k)) {
    w_.fill(random);
    compute();
  }

  Matrix<float>& w() { return w_; }
  const Matrix<float>& want() const { return want_; }

  // Weights of one 1 a column: a row comes back as it was quantised.
  void make_identity() {
    w_.fill(0.0f);
    for (int64_t i = 0; i < c_.k; ++i) w_.at(i, i) = 1.0f;
  }

  // After a change of x or w.
  void compute() {
    pack_plainly(w_, packed_, rows_);
    LinearArgs a = args(want_);
    a.w = rows_.data();
    ref::linear_int8(a);
  }

  LinearArgs args(Matrix<float>& y) const { return args_with(packed_.data(), y); }

  // Sums are exact, so what is left are five roundings of the product (the sum as a float, its two
  // scales, and ref's two), and one of each sum that follows. Activations: see test_linear.cc.
  void check(const Matrix<float>& y, const char* isa) const {
    const auto tolerance = [&](int64_t i, int64_t j) {
      const double want = std::fabs(double(want_.at(i, j)));
      const double bias = c_.bias ? std::fabs(double(bias_.data()[j])) : 0.0;
      const double residual = c_.residual ? std::fabs(double(residual_.at(i, j))) : 0.0;
      if (c_.activation == Activation::kNone) return gamma(5) * (want + 2 * bias + 2 * residual);
      // The input of the activation is at most the largest product.
      const double input = double(c_.k) + bias;
      return 24 * kUnit * (want + residual) + (1.13 * gamma(5) + 3e-8) * input;
    };
    CHECK_CLOSE(cat("linear int8 on ", isa, ", ", c_.m, " x ", c_.n, " x ", c_.k), y, want_,
                tolerance);
  }

 private:
  Matrix<float> w_;
  Matrix<int8_t> packed_, rows_;
};

// All instruction sets: near ref, and without an activation the same bits.
void check_case(const Case& c, Problem& problem) {
  Matrix<float> first = problem.result();
  bool have_first = false;
  for (const KernelTable* table : tables()) {
    Matrix<float> y = problem.result();
    Prepared(table->linear_int8, problem.args(y)).run(y, 0, c.m, 0, c.n);
    problem.check(y, table->name);
    if (have_first && c.activation == Activation::kNone && !identical(y, first))
      report_failure(__FILE__, __LINE__, cat(table->name, ": other bits"));
    if (!have_first) first.copy_from(y);
    have_first = true;
  }
}

void check_case(const Case& c, Random& random) {
  Problem problem(c, random);
  check_case(c, problem);
}

void drive(const KernelTable& table, const LinearArgs& args, int threads) {
  drive_linear(cpu::linear_int8, table, table.linear_int8, args, threads);
}

}  // namespace

TEST(linear_int8_every_row_count) {
  Random random(1);
  for (int64_t m = 1; m <= 40; ++m) {
    for (const int64_t n : {1, 15, 16, 17, 33, 100}) {
      for (const int64_t k : {1, 3, 16, 70, 257}) check_case(with_options(m, n, k, random), random);
    }
  }
}

TEST(linear_int8_every_depth) {
  Random random(3);
  for (int64_t k = 1; k <= 140; ++k) {
    for (const int64_t m : {1, 2, 20}) check_case(with_options(m, 37, k, random), random);
  }
}

TEST(linear_int8_many_rows_and_blocks_of_depth) {
  Random random(4);
  for (const int64_t m : {64, 113, 150, 300}) {
    check_case(with_options(m, 70, 257, random), random);
    check_case(with_options(m, 400, 40, random), random);
  }
  check_case({33, 70, 1024, true, true, Activation::kNone, 0, 0}, random);
  check_case({7, 40, 2500, false, true, Activation::kNone, 0, 0}, random);
  check_case({130, 410, 1100, true, true, Activation::kGelu, 0, 0}, random);
}

// Sums as large as they can be: instructions that saturate pairs, or sums, are found here.
TEST(linear_int8_largest_sums) {
  Random random(5);
  for (const int64_t k : {2, 64, 4096, 131072}) {
    const Case c = {3, 17, k};
    Problem problem(c, random);
    for (const int signs : {0, 1, 2, 3}) {
      for (int64_t i = 0; i < c.m; ++i) {
        for (int64_t j = 0; j < k; ++j) problem.x().at(i, j) = (signs & 1) != 0 ? -1.0f : 1.0f;
      }
      problem.w().fill((signs & 2) != 0 ? -1.0f : 1.0f);
      problem.compute();
      CHECK_EQ(std::fabs(double(problem.want().at(2, 16))), double(k));
      check_case(c, problem);
    }
  }
}

TEST(linear_int8_bits_do_not_depend_on_the_block_of_a_call) {
  Random random(8);
  const Case c = {67, 450, 300, true, true, Activation::kGelu, 0, 0};
  Problem problem(c, random);
  for (const KernelTable* table : tables()) {
    Matrix<float> want = problem.result();
    Prepared rows(table->linear_int8, problem.args(want));
    rows.run(want, 0, c.m, 0, c.n);
    const auto row_step = table->linear_int8.row_step;
    const int64_t least = row_step != nullptr ? row_step(c.m) : 1;
    for (int64_t step = least; step <= c.m; step += step < 20 ? 1 : least > 1 ? least : 15) {
      Matrix<float> y = problem.result();
      for (int64_t m = 0; m < c.m; m += step) rows.run(y, m, std::min(m + step, c.m), 0, c.n);
      CHECK(identical(y, want));
    }
    for (int64_t step = kPanel; step < c.n; step += kPanel * 5) {
      Matrix<float> y = problem.result();
      for (int64_t n = 0; n < c.n; n += step) rows.run(y, 0, c.m, n, std::min(n + step, c.n));
      CHECK(identical(y, want));
    }
  }
}

TEST(linear_int8_bits_do_not_depend_on_the_batch_or_the_threads) {
  Random random(9);
  for (const Case& c :
       {Case{60, 100, 300, true, false}, Case{1, 2000, 500}, Case{300, 520, 1100}}) {
    Problem problem(c, random);
    for (const KernelTable* table : tables()) {
      Matrix<float> want = problem.result();
      Prepared(table->linear_int8, problem.args(want)).run(want, 0, c.m, 0, c.n);
      for (const int threads : {1, 2, 3, 8}) {
        Matrix<float> y = problem.result();
        drive(*table, problem.args(y), threads);
        CHECK(identical(y, want));
        CHECK(y.intact());
      }
      for (const int64_t m : {int64_t{0}, c.m / 2, c.m - 1}) {
        Matrix<float> y = problem.result();
        LinearArgs args = problem.args(y);
        args.x += m * args.ldx;
        args.m = 1;
        drive(*table, args, 1);
        CHECK_EQ(std::memcmp(y.row(0), want.row(m), size_t(c.n) * sizeof(float)), 0);
      }
    }
  }
}

TEST(linear_int8_no_rows) {
  Random random(6);
  Problem problem({3, 20, 8}, random);
  for (const KernelTable* table : tables()) {
    Matrix<float> y(0, 20, 20);
    LinearArgs args = problem.args(y);
    args.m = 0;
    drive(*table, args, 2);
    CHECK(y.intact());
  }
}

// A row or column with NaN or infinity is NaN; what is too small to be scaled is zero.
TEST(linear_int8_rows_that_are_no_numbers) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  Random random(12);
  const Case c = {30, 50, 300};
  Problem problem(c, random);
  Matrix<float> clean = problem.result();
  clean.copy_from(problem.want());
  problem.x().at(3, 299) = kNan;
  problem.x().at(4, 0) = -kNan;
  problem.x().at(8, 17) = -kInf;
  for (int64_t k = 0; k < c.k; ++k) {
    problem.x().at(9, k) = 0.0f;
    problem.x().at(10, k) = 1e-38f;
  }
  problem.w().at(5, 299) = kNan;
  problem.w().at(6, 0) = kInf;
  problem.compute();
  for (const KernelTable* table : tables()) {
    Matrix<float> y = problem.result();
    Prepared(table->linear_int8, problem.args(y)).run(y, 0, c.m, 0, c.n);
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        if (i == 3 || i == 4 || i == 8 || j == 5 || j == 6) {
          CHECK(std::isnan(y.at(i, j)));
        } else if (i == 9 || i == 10) {
          CHECK_EQ(y.at(i, j), 0.0f);
        } else {
          CHECK(std::fabs(y.at(i, j) - clean.at(i, j)) < 1e-5f);
        }
      }
    }
  }
}

TEST(linear_int8_rounds_to_nearest_even) {
  Random random(17);
  const Case c = {40, 64, 64};
  Problem problem(c, random);
  problem.make_identity();
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t k = 61; k < 64; ++k) problem.x().at(i, k) = 127.0f * float(1 + i % 2);
  }
  for (int64_t k = 0; k < 61; ++k) problem.x().at(0, k) = float(k) - 31.5f;  // ties
  problem.compute();
  for (const KernelTable* table : tables()) {
    Matrix<float> y = problem.result();
    Prepared(table->linear_int8, problem.args(y)).run(y, 0, c.m, 0, c.n);
    for (int64_t i = 0; i < c.m; ++i) {
      const int8::Scale scale = int8::scale_of(problem.x().at(i, 63));
      for (int64_t k = 0; k < c.k; ++k) {
        const double q = std::nearbyint(double(problem.x().at(i, k) * scale.inverse));
        CHECK(std::fabs(double(y.at(i, k)) - q * double(scale.scale)) <= 1e-4);
      }
    }
    CHECK_EQ(y.at(0, 0), -32.0f);
    CHECK_EQ(y.at(0, 1), -30.0f);
  }
}

// Rows of which one, two or three values are far from the others, at every place of a line and in
// the last, partial one; beyond 16 bits, and rows of fewer values than outliers.
TEST(linear_int8_outliers) {
  Random random(21);
  for (const int64_t k : {1, 2, 3, 4, 37, 70, 513}) {
    const Case c = {24, 37, k, true, true, Activation::kNone, 0, 0};
    Problem problem(c, random);
    for (int64_t i = 0; i < c.m; ++i) {
      const int64_t count = i % 4;
      for (int64_t which = 0; which < count; ++which) {
        const float sign = (i + which) % 2 == 0 ? 1.0f : -1.0f;
        const float sizes[] = {3.0f, 60.0f, 250.0f, 1e6f};
        problem.x().at(i, (k - 1 - (i * 7 + which * (i % 3 == 0 ? 1 : 5)) % k)) =
            sign * sizes[i / 4 % 4] * float(1 + which);
      }
    }
    problem.compute();
    check_case(c, problem);
  }
}

// An outlier costs the other values of its row nothing: they are rounded as if it were not there.
TEST(linear_int8_outliers_leave_the_others_their_scale) {
  Random random(22);
  const Case c = {4, 64, 64};
  Problem problem(c, random);
  problem.make_identity();
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t k = 0; k < c.k; ++k) problem.x().at(i, k) = random.uniform(-1.0f, 1.0f);
    problem.x().at(i, 5) = 1.0f;
    if (i > 0) problem.x().at(i, 17 + i) = 100.0f;
    if (i > 1) problem.x().at(i, 40) = -200.0f;
  }
  problem.compute();
  for (const KernelTable* table : tables()) {
    Matrix<float> y = problem.result();
    Prepared(table->linear_int8, problem.args(y)).run(y, 0, c.m, 0, c.n);
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t k = 0; k < c.k; ++k)
        CHECK(std::fabs(double(y.at(i, k)) - double(problem.x().at(i, k))) <= 0.5001 / 127);
    }
  }
}

TEST(pack_linear_int8_lays_out_panels) {
  Random random(13);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {17, 5}, {33, 67}, {40, 600}}) {
      Matrix<float> values(n, k);
      values.fill(random);
      std::vector<std::byte> source(static_cast<size_t>(n * k * 4 + 1));
      for (int64_t i = 0; i < n * k; ++i) {
        const float value = values.data()[i];
        const uint16_t half =
            dtype == DType::kBF16 ? f32_to_bf16(value) : uint16_t(random.below(0x7c00));
        if (dtype == DType::kF32) std::memcpy(source.data() + 1 + 4 * i, &value, 4);
        if (dtype != DType::kF32) std::memcpy(source.data() + 1 + 2 * i, &half, 2);
      }
      to_f32(dtype, source.data() + 1, values.data(), static_cast<size_t>(n * k));
      Matrix<int8_t> want(1, cpu::packed_int8(n, k)), rows(n, int8::row_bytes(k));
      pack_plainly(values, want, rows);
      for (const int threads : {1, 3}) {
        cpu::ThreadPool pool(threads);
        Matrix<int8_t> packed(1, cpu::packed_int8(n, k));
        cpu::pack_linear_int8(source.data() + 1, dtype, n, k, packed.data(), pool);
        CHECK_EQ(std::memcmp(packed.data(), want.data(), size_t(want.cols())), 0);
        CHECK(packed.intact());
      }
    }
  }
  CHECK_EQ(cpu::packed_int8(17, 65), 32 * 136);
}

// A tied table: the rows of the reference's form and of the panels.
TEST(embedding_int8_reads_panels) {
  Random random(14);
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{40, 67}, {17, 576}}) {
    Matrix<float> values(n, k);
    values.fill(random);
    Matrix<int8_t> packed(1, cpu::packed_int8(n, k)), rows(n, int8::row_bytes(k));
    pack_plainly(values, packed, rows);
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < n; ++i) ids.push_back(int32_t(n - 1 - i));
    Matrix<float> want(n, k, k + 3), y(n, k, k + 3);
    EmbeddingArgs args{{ids.data()}, {rows.data()}, {DType::kI8}, 1, want.data(), want.ld(), n, k};
    ref::embedding(args);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < k; ++j)
        CHECK(std::fabs(want.at(i, j) - values.at(n - 1 - i, j)) <= 1.0f / 253);
    }
    args.tables[0] = packed.data();
    args.y = y.data();
    for (const KernelTable* table : kernel_tables()) {
      y.fill(0.0f);
      table->embedding(args, 0, n);
      CHECK(identical(y, want));
      CHECK(y.intact());
    }
  }
}

}  // namespace trine::test
