// SPDX-License-Identifier: Apache-2.0
// Holds every instruction set to the accuracy that math-inl.h promises, against libm in double. The
// functions are reached through the activation kernels; e^x shows in the lower tail of the sigmoid.
#include <algorithm>
#include <cmath>

#include "kernel_testing.h"
#include "ref/ref.h"

namespace trine::test {
namespace {

// |got - want| <= ulps * ulp(want) + absolute + relative_to_x * |x|
struct Bound {
  Activation activation;
  const char* name;
  double ulps;
  double absolute;
  double relative_to_x;
};

constexpr Bound kBounds[] = {
    {Activation::kNone, "none", 0, 0, 0},     {Activation::kRelu, "relu", 0, 0, 0},
    {Activation::kTanh, "tanh", 2, 0, 0},     {Activation::kSigmoid, "sigmoid", 3, 0, 0},
    {Activation::kGelu, "gelu", 12, 1e-9, 0}, {Activation::kGeluTanh, "gelu_tanh", 3, 0, 3e-8},
    {Activation::kSilu, "silu", 4, 1e-40, 0}, {Activation::kQuickGelu, "quick_gelu", 3, 0, 1e-8},
};

float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The distance between floats at x.
double ulp(double x) {
  const int exponent = x == 0.0 ? -126 : std::max(std::ilogb(x), -126);
  return std::ldexp(1.0, exponent - 23);
}

std::vector<float> run(const cpu::KernelTable& table, Activation activation,
                       const std::vector<float>& x) {
  std::vector<float> y(x.size());
  const auto n = static_cast<int64_t>(x.size());
  table.activation({x.data(), n, y.data(), n, 1, n, activation}, 0, 1);
  return y;
}

// One float in 4093 of all that are finite, so every exponent with some two thousand fractions.
std::vector<float> sweep() {
  constexpr uint32_t kStep = 4093, kInfinity = 0x7f800000, kSign = 0x80000000;
  std::vector<float> x;
  for (uint32_t magnitude = 0; magnitude < kInfinity; magnitude += kStep) {
    x.push_back(float_of(magnitude));
    x.push_back(float_of(magnitude | kSign));
  }
  return x;
}

}  // namespace

TEST(activations_keep_their_bounds) {
  const std::vector<float> x = sweep();
  for (const Bound& bound : kBounds) {
    std::vector<double> want(x.size());
    for (size_t i = 0; i < x.size(); ++i) want[i] = ref::activate(x[i], bound.activation);
    for (const cpu::KernelTable* table : kernel_tables()) {
      const std::vector<float> y = run(*table, bound.activation, x);
      double worst = 0.0;
      size_t at = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        if (y[i] == static_cast<float>(want[i])) continue;
        const double slack = bound.absolute + bound.relative_to_x * std::fabs(double(x[i]));
        const double ulps = (std::fabs(double(y[i]) - want[i]) - slack) / ulp(want[i]);
        if (!(ulps <= worst)) worst = ulps, at = i;
      }
      if (!(worst <= bound.ulps)) {
        report_failure(__FILE__, __LINE__,
                       cat(bound.name, " on ", table->name, ": ", worst, " ulp at ", x[at], ": ",
                           y[at], " is not ", want[at]));
      }
    }
  }
}

TEST(activations_of_special_values) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  struct Case {
    Activation activation;
    float at_minus_inf, at_zero, at_inf;
  };
  constexpr Case kCases[] = {
      {Activation::kNone, -kInf, 0, kInf}, {Activation::kRelu, 0, 0, kInf},
      {Activation::kTanh, -1, 0, 1},       {Activation::kSigmoid, 0, 0.5f, 1},
      {Activation::kGelu, 0, 0, kInf},     {Activation::kGeluTanh, 0, 0, kInf},
      {Activation::kSilu, 0, 0, kInf},     {Activation::kQuickGelu, 0, 0, kInf},
  };
  const std::vector<float> x = {-kInf, 0.0f, kInf, kNan};
  for (const cpu::KernelTable* table : kernel_tables()) {
    for (const Case& c : kCases) {
      const std::vector<float> y = run(*table, c.activation, x);
      CHECK(std::fabs(y[0] - c.at_minus_inf) < 1e-9f || y[0] == c.at_minus_inf);
      CHECK_EQ(y[1], c.at_zero);
      CHECK_EQ(y[2], c.at_inf);
      CHECK(std::isnan(y[3]));
    }
  }
}

}  // namespace trine::test
