// SPDX-License-Identifier: Apache-2.0
// linear, in float32 and bf16, on every instruction set: against ref::linear, and bit for bit
// against itself whatever the rows beside a row, the blocks and the threads.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "amx_emulated.h"
#include "cpu/ops.h"
#include "linear_testing.h"
#include "pack_plainly.h"
#include "ref/ref.h"
#include "weights/convert.h"

namespace trine::test {
namespace {

using cpu::Isa;
using cpu::KernelTable;
using cpu::kPanel;

using Case = LinearCase;

// One of the two linears of an instruction set.
struct Kernel {
  const KernelTable* table;
  DType dtype;

  const cpu::LinearKernel& linear() const { return is_bf16() ? table->linear_bf16 : table->linear; }
  bool is_bf16() const { return dtype == DType::kBF16; }
  std::string name() const { return cat(table->name, " in ", trine::name_of(dtype)); }
};

std::vector<Kernel> kernels() {
  std::vector<Kernel> all;
  for (const KernelTable* table : tables_with(&KernelTable::linear))
    all.push_back({table, DType::kF32});
  for (const KernelTable* table : tables_with(&KernelTable::linear_bf16))
    all.push_back({table, DType::kBF16});
  all.push_back({&cpu::amx_emulated::table(), DType::kBF16});
  return all;
}

std::string name_of(const Case& c, const Kernel& kernel) {
  return cat("linear on ", kernel.name(), ", ", c.m, " x ", c.n, " x ", c.k, c.bias ? ", bias" : "",
             c.residual ? ", residual" : "", ", activation ", static_cast<int>(c.activation),
             ", gap ", c.gap, ", off by ", c.misalign);
}

// What a test of one dtype sees of x and w.
std::vector<float> rounded(const Matrix<float>& values, bool bf16, bool absolute) {
  std::vector<float> out;
  for (int64_t i = 0; i < values.rows(); ++i) {
    for (int64_t j = 0; j < values.cols(); ++j) {
      const float value = values.at(i, j);
      const float kept = bf16 ? bf16_to_f32(f32_to_bf16(value)) : value;
      out.push_back(absolute ? std::fabs(kept) : kept);
    }
  }
  return out;
}

// One case's inputs, and its result according to ref.
class Problem : public LinearInputs {
 public:
  Problem(const Case& c, Random& random)
      : LinearInputs(c, random),
        w_(c.n, c.k),
        packed_(1, cpu::packed_floats(c.n, c.k)),
        packed_bf16_(1, cpu::packed_bf16(c.n, c.k)),
        sums_(c.m, c.n, c.n + c.gap) {
    w_.fill(random);
    pack();
  }

  Matrix<float>& w() { return w_; }
  void pack() {
    pack_plainly(w_, packed_.data());
    pack_plainly(w_, packed_bf16_.data());
  }

  LinearArgs args(const Kernel& kernel, Matrix<float>& y) const {
    return args_with(
        kernel.is_bf16() ? static_cast<const void*>(packed_bf16_.data()) : packed_.data(), y);
  }

  void compute_reference(const Kernel& kernel) {
    if (computed_ == kernel.dtype) return;
    computed_ = kernel.dtype;
    LinearArgs a = args(kernel, want_);
    if (kernel.is_bf16()) {
      std::vector<uint16_t> halves;
      for (const float value : rounded(w_, true, false)) halves.push_back(f32_to_bf16(value));
      a.w = halves.data();
      ref::linear_bf16(a);
    } else {
      a.w = w_.data();
      ref::linear(a);
    }
    // The same with absolute values: the magnitude that rounding errors are relative to.
    const std::vector<float> x_size = rounded(x_, kernel.is_bf16(), true);
    const std::vector<float> w_size = rounded(w_, kernel.is_bf16(), true);
    const std::vector<float> bias_size = rounded(bias_, false, true);
    ref::linear({x_size.data(), c_.k, w_size.data(), c_.bias ? bias_size.data() : nullptr, nullptr,
                 0, sums_.data(), sums_.ld(), c_.m, c_.n, c_.k, Activation::kNone});
  }

  // |x| |w| + |bias| grows an error by gamma: two roundings a term without FMA, one with (and in
  // bf16, whose products are exact), and one for the bias.
  void check(const Matrix<float>& y, const Kernel& kernel) const {
    const bool rounds_twice = kernel.table->isa == Isa::kScalar && !kernel.is_bf16();
    const int64_t roundings = (rounds_twice ? 2 : 1) * c_.k + 1;
    const auto tolerance = [&](int64_t i, int64_t j) {
      const double size = double(sums_.at(i, j));
      return after_sum(gamma(roundings) * size, size, i, j);
    };
    CHECK_CLOSE(name_of(c_, kernel), y, want_, tolerance);
  }

 private:
  Matrix<float> w_, packed_;
  Matrix<uint16_t> packed_bf16_;
  Matrix<float> sums_;
  std::optional<DType> computed_;
};

// Rows [m0, m1) as a problem of their own, since a kernel may begin with whole tiles only.
void call(const Kernel& kernel, LinearArgs args, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
  static std::unique_ptr<Scratch> scratch;  // to set one up takes longer than most calls
  static size_t size = 0;
  args.x += m0 * args.ldx;
  args.y += m0 * args.ldy;
  if (args.residual != nullptr) args.residual += m0 * args.ldr;
  args.m = m1 - m0;
  std::vector<float> rows;
  if (kernel.linear().prepare != nullptr) {
    rows.resize(static_cast<size_t>(cpu::prepared_floats(kernel.linear(), args.m, args.k)));
    kernel.linear().prepare(args, 0, args.m, rows.data(), nullptr);
    args.x = rows.data();
    args.ldx = kernel.linear().row_words(args.k);
  }
  if (scratch == nullptr || size != kernel.linear().scratch_bytes(args.k)) {
    size = kernel.linear().scratch_bytes(args.k);
    scratch = std::make_unique<Scratch>(size);
  }
  kernel.linear().run(args, 0, args.m, n0, n1, scratch->data());
}

void check_case(const Case& c, Random& random) {
  Problem problem(c, random);
  std::vector<Kernel> all = kernels();
  std::stable_sort(all.begin(), all.end(),
                   [](const Kernel& a, const Kernel& b) { return a.dtype < b.dtype; });
  for (const Kernel& kernel : all) {
    problem.compute_reference(kernel);
    Matrix<float> y = problem.result();
    call(kernel, problem.args(kernel, y), 0, c.m, 0, c.n);
    problem.check(y, kernel);
    CHECK(y.intact());
  }
}

void drive(const Kernel& kernel, const LinearArgs& args, int threads) {
  drive_linear(kernel.is_bf16() ? cpu::linear_bf16 : cpu::linear, *kernel.table, kernel.linear(),
               args, threads);
}

}  // namespace

TEST(linear_every_row_count) {
  Random random(1);
  for (int64_t m = 1; m <= 40; ++m) {
    for (const int64_t n : {1, 15, 16, 17, 31, 33, 48, 100}) {
      for (const int64_t k : {1, 2, 7, 16, 70, 257})
        check_case(with_options(m, n, k, random), random);
    }
  }
}

TEST(linear_every_column_count) {
  Random random(2);
  for (int64_t n = 1; n <= 100; ++n) {
    for (const int64_t m : {1, 3, 14, 15}) check_case(with_options(m, n, 37, random), random);
  }
}

TEST(linear_every_depth) {
  Random random(3);
  for (int64_t k = 1; k <= 70; ++k) {
    for (const int64_t m : {1, 2, 9, 20}) check_case(with_options(m, 37, k, random), random);
  }
}

TEST(linear_many_rows) {
  Random random(4);
  for (const int64_t m : {64, 112, 113, 150, 225, 300}) {
    check_case(with_options(m, 70, 257, random), random);
    check_case(with_options(m, 400, 40, random), random);
  }
  check_case({130, 410, 768, true, true, Activation::kGelu, 0, 0}, random);
}

// Rows that are packed because their distance is a multiple of 4 KiB.
TEST(linear_colliding_rows) {
  Random random(5);
  for (const int64_t m : {1, 4, 5, 14, 15, 120}) {
    check_case({m, 40, 1024, true, false, Activation::kNone, 0, 0}, random);
    check_case({m, 40, 1000, true, true, Activation::kRelu, 24, 1}, random);
    check_case({m, 17, 2048, false, true, Activation::kNone, 0, 3}, random);
  }
}

TEST(linear_keeps_to_its_scratch) {
  Random random(15);
  for (const Case& c :
       {Case{120, 500, 300}, Case{14, 40, 4096}, Case{112, 400, 1024}, Case{1, 70, 9}}) {
    Problem problem(c, random);
    for (const Kernel& kernel : kernels()) {
      Matrix<float> y = problem.result();
      Prepared(kernel.linear(), problem.args(kernel, y)).run(y, 0, c.m, 0, c.n);
    }
  }
}

TEST(linear_no_rows) {
  Random random(6);
  Problem problem({3, 20, 8}, random);
  for (const Kernel& kernel : kernels()) {
    Matrix<float> y(0, 20, 20);
    LinearArgs args = problem.args(kernel, y);
    args.m = 0;
    call(kernel, args, 0, 0, 0, 20);
    drive(kernel, args, 2);
    CHECK(y.intact());
  }
}

TEST(linear_residual_may_be_the_result) {
  Random random(7);
  for (const int64_t k : {40, 600}) {
    const Case c = {33, 50, k, true, true, Activation::kNone, 5, 2};
    Problem problem(c, random);
    for (const Kernel& kernel : kernels()) {
      Matrix<float> apart = problem.result(), in_place = problem.result();
      LinearArgs args = problem.args(kernel, apart);
      call(kernel, args, 0, c.m, 0, c.n);
      for (int64_t i = 0; i < c.m; ++i) {
        for (int64_t j = 0; j < c.n; ++j) in_place.at(i, j) = args.residual[i * args.ldr + j];
      }
      args.residual = args.y = in_place.data();
      args.ldr = args.ldy = in_place.ld();
      call(kernel, args, 0, c.m, 0, c.n);
      CHECK(identical(apart, in_place));
    }
  }
}

TEST(linear_bits_do_not_depend_on_the_rows_of_a_call) {
  Random random(8);
  for (const int64_t k : {300, 1024}) {  // as they lie, and packed
    const Case c = {131, 70, k, true, true, Activation::kGelu, 0, 0};
    Problem problem(c, random);
    for (const Kernel& kernel : kernels()) {
      Matrix<float> want = problem.result();
      call(kernel, problem.args(kernel, want), 0, c.m, 0, c.n);
      for (int64_t step = 1; step <= c.m; step += step < 32 ? 1 : 33) {
        Matrix<float> y = problem.result();
        for (int64_t m = random.below(step) - step + 1; m < c.m; m += step) {
          call(kernel, problem.args(kernel, y), std::max<int64_t>(m, 0), std::min(m + step, c.m), 0,
               c.n);
        }
        if (!identical(y, want)) {
          report_failure(__FILE__, __LINE__, cat(kernel.name(), ": other bits by ", step, " rows"));
        }
      }
    }
  }
}

TEST(linear_bits_do_not_depend_on_the_columns_of_a_call) {
  Random random(14);
  for (const int64_t m : {1, 9, 33}) {
    const Case c = {m, 450, 600, true, true, Activation::kGelu, 0, 0};
    Problem problem(c, random);
    for (const Kernel& kernel : kernels()) {
      Matrix<float> want = problem.result();
      call(kernel, problem.args(kernel, want), 0, c.m, 0, c.n);
      for (int64_t step = kPanel; step < c.n; step += kPanel * 3) {
        Matrix<float> y = problem.result();
        for (int64_t n = 0; n < c.n; n += step) {
          call(kernel, problem.args(kernel, y), 0, c.m, n, std::min(n + step, c.n));
        }
        if (!identical(y, want)) {
          report_failure(__FILE__, __LINE__,
                         cat(kernel.name(), ": other bits by ", step, " columns"));
        }
        CHECK(y.intact());
      }
    }
  }
}

TEST(linear_bits_do_not_depend_on_the_batch) {
  Random random(9);
  const Case c = {60, 100, 300, true, false, Activation::kNone, 0, 0};
  Problem problem(c, random);
  for (const Kernel& kernel : kernels()) {
    Matrix<float> want = problem.result(), y = problem.result();
    call(kernel, problem.args(kernel, want), 0, c.m, 0, c.n);
    for (int64_t rows = 1; rows <= 40; ++rows) {  // each row in a call of so many
      for (int64_t m = 0; m + rows <= c.m; m += rows) {
        LinearArgs args = problem.args(kernel, y);
        args.x += m * args.ldx;
        args.y += m * args.ldy;
        args.m = rows;
        call(kernel, args, 0, rows, 0, c.n);
      }
      const int64_t covered = c.m / rows * rows;
      for (int64_t i = 0; i < covered; ++i) {
        CHECK_EQ(std::memcmp(y.row(i), want.row(i), size_t(c.n) * sizeof(float)), 0);
      }
    }
  }
}

TEST(linear_bits_do_not_depend_on_the_threads) {
  Random random(10);
  for (const Case& c : {Case{1, 2000, 500}, Case{7, 70, 900}, Case{200, 520, 300},
                        Case{40, 33, 700}, Case{300, 16, 400}}) {
    Problem problem(c, random);
    for (const Kernel& kernel : kernels()) {
      Matrix<float> want = problem.result();
      call(kernel, problem.args(kernel, want), 0, c.m, 0, c.n);
      for (const int threads : {1, 2, 3, 8}) {
        Matrix<float> y = problem.result();
        drive(kernel, problem.args(kernel, y), threads);
        CHECK(identical(y, want));
        CHECK(y.intact());
      }
    }
  }
}

// One chain of FMA per element leaves instruction sets no freedom, unless one has no FMA. Products
// of bf16 are exact, so that even this makes no difference; AMX alone adds in another order.
TEST(linear_bits_do_not_depend_on_the_instruction_set) {
  Random random(11);
  const Case c = {37, 70, 700, true, true, Activation::kNone, 3, 1};
  Problem problem(c, random);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Matrix<float> first = problem.result();
    bool have_first = false;
    for (const Kernel& kernel : kernels()) {
      const Isa odd_one = kernel.is_bf16() ? Isa::kAmx : Isa::kScalar;
      if (kernel.dtype != dtype || kernel.table->isa == odd_one) continue;
      Matrix<float> y = problem.result();
      call(kernel, problem.args(kernel, y), 0, c.m, 0, c.n);
      if (have_first) CHECK(identical(y, first));
      first.copy_from(y);
      have_first = true;
    }
  }
}

// Times 1, plus 0: what x is rounded to.
TEST(linear_bf16_rounds_inputs_to_nearest_even) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> values = {0.0f,          1.0f,
                               -1.0f,         kInf,
                               -kInf,         0x1.01p0f,
                               0x1.03p0f,     -0x1.01p0f,
                               0x1.010002p0f, 0x1.00fffep0f,
                               0x1.fep127f,   0x1.fffp127f,
                               0x1.ffp127f,   -0x1.fffffep127f,
                               0x1p-126f};
  Random random(17);
  while (values.size() < 400) {
    const float value = std::bit_cast<float>(random.bits());
    if (std::isnormal(value)) values.push_back(value);
  }
  const auto count = static_cast<int64_t>(values.size());
  Problem problem({count, 1, 1}, random);
  problem.w().at(0, 0) = 1.0f;
  problem.pack();
  for (int64_t i = 0; i < count; ++i) problem.x().at(i, 0) = values[static_cast<size_t>(i)];
  for (const Kernel& kernel : kernels()) {
    if (!kernel.is_bf16()) continue;
    Matrix<float> y = problem.result();
    call(kernel, problem.args(kernel, y), 0, count, 0, 1);
    for (int64_t i = 0; i < count; ++i)
      CHECK_EQ(y.at(i, 0), bf16_to_f32(f32_to_bf16(problem.x().at(i, 0))));
  }
}

TEST(linear_nan_and_infinity_stay_in_their_row_and_column) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  Random random(12);
  const Case c = {30, 50, 300, false, false, Activation::kNone, 0, 0};
  Problem problem(c, random);
  for (const Kernel& kernel : kernels()) {
    Matrix<float> clean = problem.result(), y = problem.result();
    call(kernel, problem.args(kernel, clean), 0, c.m, 0, c.n);
    const float x3 = problem.x().at(3, 290), x8 = problem.x().at(8, 0), w5 = problem.w().at(5, 299);
    problem.x().at(3, 290) = kNan;
    problem.x().at(8, 0) = kInf;
    problem.w().at(5, 299) = kNan;
    problem.pack();
    call(kernel, problem.args(kernel, y), 0, c.m, 0, c.n);
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        if (i == 3 || j == 5) {
          CHECK(std::isnan(y.at(i, j)));
        } else if (i == 8) {
          CHECK_EQ(y.at(i, j), problem.w().at(j, 0) > 0 ? kInf : -kInf);
        } else {
          CHECK_EQ(y.at(i, j), clean.at(i, j));
        }
      }
    }
    problem.x().at(3, 290) = x3;
    problem.x().at(8, 0) = x8;
    problem.w().at(5, 299) = w5;
    problem.pack();
  }
}

}  // namespace trine::test
