// SPDX-License-Identifier: Apache-2.0
// linear on weights in groups, in each of their forms, on every instruction set: against
// ref::linear_groups, and bit for bit against itself whatever the rows beside a row, the blocks,
// the threads and the instruction set.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "cpu/ops.h"
#include "linear_testing.h"
#include "pack_plainly.h"
#include "ref/ref.h"
#include "weights/groups.h"

namespace trine::test {
namespace {

using cpu::KernelTable;
using cpu::kPanel;

using Case = LinearCase;

struct Kernel {
  std::string name;
  const KernelTable* table;
  GroupForm form;

  const cpu::LinearKernel& linear() const { return table->linear_groups[size_t(form)]; }
};

std::vector<Kernel> kernels(GroupForm form) {
  constexpr const char* kNames[] = {"kInt4", "kQ4_0", "kQ6_K", "kQ8_0", "kInt8"};
  std::vector<Kernel> all;
  for (const KernelTable* table : kernel_tables()) {
    const auto same = [&](const Kernel& k) {
      return k.linear().run == table->linear_groups[size_t(form)].run;
    };
    if (std::none_of(all.begin(), all.end(), same))
      all.push_back({cat(table->name, ", ", kNames[size_t(form)]), table, form});
  }
  return all;
}

// Scales and minima of either sign around 2^-4, some of them zero; all levels, the largest often.
std::vector<Group> random_groups(int64_t count, GroupForm form, Random& random) {
  std::vector<Group> groups(static_cast<size_t>(count));
  for (Group& group : groups) {
    for (int part = 0; part < 2; ++part) {
      group.scale[part] = f32_to_f16(random.below(16) == 0 ? 0.0f : random.uniform(-0.1f, 0.1f));
      group.min[part] = f32_to_f16(random.below(16) == 0 ? 0.0f : random.uniform(-1.0f, 1.0f));
      if (form == GroupForm::kQ4_0)
        group.min[part] = f32_to_f16(-8 * f16_to_f32(group.scale[part]));
      if (form == GroupForm::kQ6_K)
        group.min[part] = f32_to_f16(-32 * f16_to_f32(group.scale[part]));
      if (form == GroupForm::kQ8_0)
        group.min[part] = f32_to_f16(-128 * f16_to_f32(group.scale[part]));
    }
    if (form != GroupForm::kQ6_K) group.scale[1] = group.scale[0], group.min[1] = group.min[0];
    const int64_t most = (1 << group_bits(form)) - 1;
    const bool full = random.below(8) == 0;
    for (uint8_t& q : group.q) q = uint8_t(full ? most : random.below(most + 1));
  }
  return groups;
}

class Problem : public LinearInputs {
 public:
  Problem(const Case& c, GroupForm form, Random& random)
      : LinearInputs(c, random),
        groups_(random_groups(c.n * groups_of(c.k), form, random)),
        form_(form),
        packed_(1, int64_t(pack_plainly(groups_, c.n, form).size())),
        sums_(c.m, c.n, c.n + c.gap) {
    const std::vector<uint8_t> packed = pack_plainly(groups_, c.n, form);
    std::memcpy(packed_.data(), packed.data(), packed.size());
  }

  LinearArgs args(Matrix<float>& y) const { return args_with(packed_.data(), y); }

  void compute_reference() {
    LinearArgs a = args(want_);
    a.w = groups_.data();
    ref::linear_groups(a);
    // The same with absolute values: the magnitude that rounding errors are relative to.
    Matrix<float> x(c_.m, c_.k);
    for (int64_t i = 0; i < c_.m; ++i) {
      for (int64_t k = 0; k < c_.k; ++k) x.at(i, k) = std::fabs(x_.at(i, k));
    }
    Matrix<float> bias(1, c_.n);
    for (int64_t j = 0; j < c_.n; ++j) bias.at(0, j) = std::fabs(bias_.at(0, j));
    std::vector<Group> groups = groups_;
    for (Group& group : groups) {
      for (uint16_t* half : {&group.scale[0], &group.scale[1], &group.min[0], &group.min[1]})
        *half &= 0x7fffu;
    }
    ref::linear_groups({x.data(), x.ld(), groups.data(), c_.bias ? bias.data() : nullptr, nullptr,
                        0, sums_.data(), sums_.ld(), c_.m, c_.n, c_.k, Activation::kNone});
  }

  // Integer sums are exact, and so is x as it was rounded. A group, or a half in kQ6_K, takes four
  // roundings: its sum times w's scale, x's scale times x's sum, and two FMA, of which all that
  // come later round the sum so far again; then the bias.
  void check(const Matrix<float>& y, const std::string& name) const {
    const int64_t parts = form_ == GroupForm::kQ6_K ? 2 : 1;
    const int64_t roundings = 2 * parts * groups_of(c_.k) + 3;
    const auto tolerance = [&](int64_t i, int64_t j) {
      const double size = double(sums_.at(i, j));
      return after_sum(gamma(roundings) * size, size, i, j);
    };
    CHECK_CLOSE(cat("linear in groups on ", name, ", ", c_.m, " x ", c_.n, " x ", c_.k), y, want_,
                tolerance);
  }

 private:
  std::vector<Group> groups_;
  GroupForm form_;
  Matrix<uint8_t> packed_;
  Matrix<float> sums_;
};

// Rows [m0, m1) as a problem of their own.
void call(const Kernel& kernel, LinearArgs args, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
  args.x += m0 * args.ldx;
  args.y += m0 * args.ldy;
  if (args.residual != nullptr) args.residual += m0 * args.ldr;
  args.m = m1 - m0;
  Prepared(kernel.linear(), args).run(0, args.m, n0, n1);
}

void drive(const Kernel& kernel, const LinearArgs& args, int threads) {
  const auto run = [&kernel](const LinearArgs& a, const cpu::Workers& workers) {
    cpu::linear_groups(a, kernel.form, workers);
  };
  drive_linear(run, *kernel.table, kernel.linear(), args, threads);
}

void check_case(const Case& c, Random& random) {
  for (const GroupForm form : kGroupForms) {
    Problem problem(c, form, random);
    problem.compute_reference();
    for (const Kernel& kernel : kernels(form)) {
      Matrix<float> y = problem.result();
      call(kernel, problem.args(y), 0, c.m, 0, c.n);
      problem.check(y, kernel.name);
      CHECK(y.intact());
    }
  }
}

// Runs body(kernel, problem, want), where `want` is the whole result in one call.
template <class Body>
void for_each_kernel(const Case& c, uint64_t seed, const Body& body) {
  for (const GroupForm form : kGroupForms) {
    Random random(seed);
    Problem problem(c, form, random);
    for (const Kernel& kernel : kernels(form)) {
      Matrix<float> want = problem.result();
      call(kernel, problem.args(want), 0, c.m, 0, c.n);
      body(kernel, problem, want);
    }
  }
}

}  // namespace

TEST(linear_int4_every_row_count) {
  Random random(1);
  for (int64_t m = 1; m <= 40; ++m) {
    for (const int64_t n : {1, 16, 17, 40}) {
      for (const int64_t k : {1, 32, 70}) check_case(with_options(m, n, k, random), random);
    }
  }
}

TEST(linear_int4_every_depth) {
  Random random(2);
  for (int64_t k = 1; k <= 100; ++k) {
    for (const int64_t m : {1, 3, 17}) check_case(with_options(m, 21, k, random), random);
  }
}

TEST(linear_int4_every_column_count) {
  Random random(3);
  for (int64_t n = 1; n <= 50; ++n) {
    for (const int64_t m : {1, 5}) check_case(with_options(m, n, 37, random), random);
  }
}

// More rows than a block holds, at depths where that is 112, some, and one tile.
TEST(linear_int4_many_rows) {
  Random random(4);
  for (const auto& [m, k] : {std::pair<int64_t, int64_t>{113, 300}, {230, 64}, {60, 14000}}) {
    check_case(with_options(m, 33, k, random), random);
  }
}

// The largest sums there can be, of either sign, which 16 bits just hold.
TEST(linear_int4_extreme_integers) {
  Random random(5);
  for (const float value : {1.0f, -1.0f}) {
    for (const GroupForm form : kGroupForms) {
      const Case c = {2, 16, 64};
      Problem problem(c, form, random);
      problem.x().fill(value);
      problem.compute_reference();
      for (const Kernel& kernel : kernels(form)) {
        Matrix<float> y = problem.result();
        call(kernel, problem.args(y), 0, c.m, 0, c.n);
        problem.check(y, kernel.name);
      }
    }
  }
}

TEST(linear_int4_numbers_that_are_not_finite) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float bad : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
    Random random(6);
    const Case c = {5, 20, 70};
    for (const GroupForm form : kGroupForms) {
      Problem problem(c, form, random);
      for (const Kernel& kernel : kernels(form)) {
        Matrix<float> want = problem.result(), y = problem.result();
        call(kernel, problem.args(want), 0, c.m, 0, c.n);
        const float kept = problem.x().at(2, 40);
        problem.x().at(2, 40) = bad;
        call(kernel, problem.args(y), 0, c.m, 0, c.n);
        problem.x().at(2, 40) = kept;
        for (int64_t i = 0; i < c.m; ++i) {
          for (int64_t j = 0; j < c.n; ++j)
            CHECK(i == 2 ? std::isnan(y.at(i, j)) : y.at(i, j) == want.at(i, j));
        }
      }
    }
  }
}

// What is next to nothing counts as nothing; the rest has a scale of its own in each group.
TEST(linear_int4_inputs_of_every_size) {
  Random random(7);
  const Case c = {3, 20, 128};
  for (const GroupForm form : kGroupForms) {
    Problem problem(c, form, random);
    constexpr float kSizes[4] = {1e30f, 1e-28f, 1e-38f, 0.0f};
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t k = 0; k < c.k; ++k) problem.x().at(i, k) *= kSizes[(k / 32 + i) % 4];
    }
    problem.compute_reference();
    for (const Kernel& kernel : kernels(form)) {
      Matrix<float> y = problem.result();
      call(kernel, problem.args(y), 0, c.m, 0, c.n);
      problem.check(y, kernel.name);
    }
  }
}

TEST(linear_int4_residual_may_be_the_result) {
  const Case c = {33, 50, 300, true, true, Activation::kNone, 5, 2};
  for_each_kernel(c, 8, [&](const Kernel& kernel, Problem& problem, const Matrix<float>& want) {
    Matrix<float> y = problem.result();
    LinearArgs args = problem.args(y);
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) y.at(i, j) = args.residual[i * args.ldr + j];
    }
    args.residual = y.data();
    args.ldr = y.ld();
    call(kernel, args, 0, c.m, 0, c.n);
    CHECK(identical(y, want));
  });
}

TEST(linear_int4_bits_do_not_depend_on_the_call) {
  const Case c = {131, 470, 300, true, true, Activation::kGelu, 0, 0};
  for_each_kernel(c, 9, [&](const Kernel& kernel, Problem& problem, const Matrix<float>& want) {
    const auto check = [&](const Matrix<float>& y, const std::string& how) {
      if (!identical(y, want)) {
        report_failure(__FILE__, __LINE__, cat(kernel.name, ": other bits by ", how));
      }
      CHECK(y.intact());
    };
    for (int64_t step = 1; step <= 40; step += step < 20 ? 1 : 10) {
      Matrix<float> y = problem.result();
      for (int64_t m = 0; m < c.m; m += step)
        call(kernel, problem.args(y), m, std::min(m + step, c.m), 0, c.n);
      check(y, cat(step, " rows"));
    }
    for (int64_t step = kPanel; step < c.n; step += kPanel * 9) {
      Matrix<float> y = problem.result();
      for (int64_t n = 0; n < c.n; n += step)
        call(kernel, problem.args(y), 0, c.m, n, std::min(n + step, c.n));
      check(y, cat(step, " columns"));
    }
    for (const int threads : {1, 2, 3, 8}) {
      Matrix<float> y = problem.result();
      drive(kernel, problem.args(y), threads);
      check(y, cat(threads, " threads"));
    }
  });
}

// Not even the one without FMA is an exception.
TEST(linear_int4_bits_do_not_depend_on_the_instruction_set) {
  const Case c = {37, 70, 700, true, true, Activation::kNone, 3, 1};
  for (const GroupForm form : kGroupForms) {
    Random random(10);
    Problem problem(c, form, random);
    const std::vector<Kernel> all = kernels(form);
    Matrix<float> first = problem.result();
    call(all[0], problem.args(first), 0, c.m, 0, c.n);
    for (const Kernel& kernel : all) {
      Matrix<float> y = problem.result();
      call(kernel, problem.args(y), 0, c.m, 0, c.n);
      if (!identical(y, first)) report_failure(__FILE__, __LINE__, kernel.name);
    }
  }
}

TEST(linear_int4_no_rows) {
  const Case c = {3, 20, 40};
  for_each_kernel(c, 11, [&](const Kernel& kernel, Problem& problem, const Matrix<float>&) {
    Matrix<float> y(0, 20, 20);
    LinearArgs args = problem.args(y);
    args.m = 0;
    call(kernel, args, 0, 0, 0, 20);
    drive(kernel, args, 2);
    CHECK(y.intact());
  });
}

// Rows of the panels that linear reads, to the bit: a product of F16 and a small integer is exact.
TEST(embedding_reads_groups) {
  Random random(12);
  for (const GroupForm form : kGroupForms) {
    for (const int64_t cols : {1, 20, 32, 70, 96}) {
      constexpr int64_t kRows = 37, kIds = 60;
      const std::vector<Group> groups = random_groups(kRows * groups_of(cols), form, random);
      const std::vector<uint8_t> bytes = pack_plainly(groups, kRows, form);
      Matrix<uint8_t> packed(1, int64_t(bytes.size()));
      std::memcpy(packed.data(), bytes.data(), bytes.size());
      std::vector<int32_t> ids;
      for (int64_t i = 0; i < kIds; ++i)
        ids.push_back(int32_t(i < kRows ? i : random.below(kRows)));
      Matrix<float> want(kIds, cols, cols + 3);
      EmbeddingArgs args = {};
      args.ids[0] = ids.data(), args.tables[0] = groups.data();
      args.dtypes[0] = dtype_of(form), args.count = 1;
      args.y = want.data(), args.ldy = want.ld(), args.rows = kIds, args.cols = cols;
      ref::embedding(args);
      for (const KernelTable* table : kernel_tables()) {
        Matrix<float> y(kIds, cols, cols + 3, 1);
        args.tables[0] = packed.data(), args.y = y.data();
        table->embedding(args, 0, 20);
        table->embedding(args, 20, kIds);
        CHECK(identical(y, want));
        CHECK(y.intact());
      }
    }
  }
}

}  // namespace trine::test
