// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ref/ref.h"

namespace trine::ref {

void rms_norm(const RmsNormArgs& args) noexcept {
  for (int64_t i = 0; i < args.rows; ++i) {
    const float* x = args.x + i * args.ldx;
    double squares = 0.0;
    for (int64_t j = 0; j < args.cols; ++j) squares += double{x[j]} * double{x[j]};
    const double root = std::sqrt(squares / static_cast<double>(args.cols) + double{args.eps});
    for (int64_t j = 0; j < args.cols; ++j)
      args.y[i * args.ldy + j] = static_cast<float>(double{x[j]} / root * double{args.weight[j]});
  }
}

}  // namespace trine::ref
