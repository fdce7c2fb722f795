// SPDX-License-Identifier: Apache-2.0
// What the tests of linear share, whatever the weights are held in: cases, inputs, tolerances.
#pragma once

#include <cmath>
#include <vector>

#include "cpu/ops.h"
#include "kernel_testing.h"

namespace trine::test {

struct LinearCase {
  int64_t m, n, k;
  bool bias = false, residual = false;
  Activation activation = Activation::kNone;
  int64_t gap = 0, misalign = 0;
};

// Everything but the sizes, different from one call to the next.
inline LinearCase with_options(int64_t m, int64_t n, int64_t k, Random& random) {
  constexpr int64_t kActivations = static_cast<int64_t>(Activation::kQuickGelu) + 1;
  const int64_t activation = random.below(2 * kActivations);
  return {m,
          n,
          k,
          random.below(2) == 0,
          random.below(2) == 0,
          activation < kActivations ? Activation(activation) : Activation::kNone,
          random.below(2) * random.below(40),
          random.below(6)};
}

// Tables of this machine with a kernel of this kind that no table before has.
inline std::vector<const cpu::KernelTable*> tables_with(
    const cpu::LinearKernel cpu::KernelTable::* kind) {
  std::vector<const cpu::KernelTable*> found;
  for (const cpu::KernelTable* table : kernel_tables()) {
    const auto same = [&](const cpu::KernelTable* other) {
      return (other->*kind).run == (table->*kind).run;
    };
    if (std::none_of(found.begin(), found.end(), same)) found.push_back(table);
  }
  return found;
}

// All of a case but its weights, and room for its result according to ref.
class LinearInputs {
 public:
  Matrix<float>& x() { return x_; }
  Matrix<float> result() const { return {c_.m, c_.n, c_.n + c_.gap, c_.misalign}; }

 protected:
  LinearInputs(const LinearCase& c, Random& random)
      : c_(c),
        x_(c.m, c.k, c.k + c.gap, c.misalign),
        bias_(1, c.n, c.n, c.misalign),
        residual_(c.m, c.n, c.n + c.gap, c.misalign),
        want_(c.m, c.n, c.n + c.gap) {
    x_.fill(random);
    bias_.fill(random);
    residual_.fill(random);
  }

  LinearArgs args_with(const void* w, Matrix<float>& y) const {
    return {x_.data(),
            x_.ld(),
            w,
            c_.bias ? bias_.data() : nullptr,
            c_.residual ? residual_.data() : nullptr,
            residual_.ld(),
            y.data(),
            y.ld(),
            c_.m,
            c_.n,
            c_.k,
            c_.activation};
  }

  // The bound of y[i][j], whose sum with the bias is off by `error` and has the magnitude `size`.
  // No activation is steeper than 1.13; 24 units and 3e-8 of its input cover its own error
  // (test_math.cc); the residual is one more rounding of y.
  double after_sum(double error, double size, int64_t i, int64_t j) const {
    const double residual = c_.residual ? std::fabs(double(residual_.at(i, j))) : 0.0;
    const double want = std::fabs(double(want_.at(i, j)));
    // The second term of ref's own rounding to float, and of ours.
    if (c_.activation == Activation::kNone) return error + 2 * kUnit * want;
    return 1.13 * error + 24 * kUnit * (want + residual) + 3e-8 * size;
  }

  LinearCase c_;
  Matrix<float> x_, bias_, residual_, want_;
};

// The rows of a problem, prepared by a kernel that wants it, which then multiplies blocks of y.
class Prepared {
 public:
  Prepared(const cpu::LinearKernel& kernel, const LinearArgs& args)
      : kernel_(kernel),
        args_(args),
        rows_(1, kernel.prepare != nullptr ? cpu::prepared_floats(kernel, args.m, args.k) : 1),
        scratch_(kernel.scratch_bytes(args.k)) {
    if (kernel.prepare == nullptr) return;
    args_.ldx = kernel.row_words(args.k);
    auto* const beside =
        reinterpret_cast<cpu::QuantisedRow*>(rows_.data() + (args.m + 15) / 16 * 16 * args_.ldx);
    for (int64_t m = args.m; m-- > 0;) kernel.prepare(args, m, m + 1, rows_.data(), beside);
    args_.x = rows_.data();
    args_.x_rows = beside;
  }

  // m0 is a multiple of the kernel's row_step.
  void run(Matrix<float>& y, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    args_.y = y.data();
    run(m0, m1, n0, n1);
  }
  void run(int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    kernel_.run(args_, m0, m1, n0, n1, scratch_.data());
    CHECK(scratch_.intact());
    CHECK(rows_.intact());
  }

 private:
  const cpu::LinearKernel& kernel_;
  LinearArgs args_;
  Matrix<float> rows_;
  Scratch scratch_;
};

// Runs a driver with its own threads and scratch.
template <class Driver>
void drive_linear(const Driver& driver, const cpu::KernelTable& table,
                  const cpu::LinearKernel& kernel, const LinearArgs& args, int threads) {
  cpu::ThreadPool pool(threads);
  const size_t stride = (kernel.scratch_bytes(args.k) + 63) / 64 * 64;
  Scratch scratch(stride * static_cast<size_t>(threads));
  const bool prepares = kernel.prepare != nullptr;
  Matrix<float> rows(1, prepares ? cpu::prepared_floats(kernel, args.m, args.k) : 1);
  driver(args, cpu::Workers{&table, &pool, scratch.data(), stride, rows.data()});
  CHECK(scratch.intact());
  CHECK(rows.intact());
}

}  // namespace trine::test
