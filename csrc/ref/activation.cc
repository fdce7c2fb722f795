// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ref/ref.h"

namespace trine::ref {

namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// x * gate, with the limit where x is -infinity and the gate 0.
double gated(double x, double gate) { return gate == 0.0 ? 0.0 : x * gate; }

}  // namespace

double activate(double x, Activation activation) noexcept {
  constexpr double kSqrtHalf = 0.70710678118654752440;       // sqrt(1 / 2)
  constexpr double kSqrtTwoOverPi = 0.79788456080286535588;  // sqrt(2 / pi)
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return gated(x, 0.5 * std::erfc(-x * kSqrtHalf));
    case Activation::kGeluTanh:
      return gated(x, sigmoid(2.0 * kSqrtTwoOverPi * (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return x < 0.0 ? 0.0 : x;
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kSigmoid:
      return sigmoid(x);
    case Activation::kSilu:
      return gated(x, sigmoid(x));
    case Activation::kQuickGelu:
      return gated(x, sigmoid(1.702 * x));
  }
  return x;
}

void activation(const ActivationArgs& args) noexcept {
  for (int64_t i = 0; i < args.rows; ++i) {
    for (int64_t j = 0; j < args.cols; ++j) {
      const double x = args.x[i * args.ldx + j];
      args.y[i * args.ldy + j] = static_cast<float>(activate(x, args.activation));
    }
  }
}

}  // namespace trine::ref
