// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ref/ref.h"

namespace trine::ref {

void layer_norm(const LayerNormArgs& args) noexcept {
  const double n = static_cast<double>(args.cols);
  for (int64_t i = 0; i < args.rows; ++i) {
    const float* x = args.x + i * args.ldx;
    float* y = args.y + i * args.ldy;

    double sum = 0.0;
    for (int64_t j = 0; j < args.cols; ++j) sum += double{x[j]};
    const double mean = sum / n;

    double squares = 0.0;
    for (int64_t j = 0; j < args.cols; ++j)
      squares += (double{x[j]} - mean) * (double{x[j]} - mean);
    const double deviation = std::sqrt(squares / n + double{args.eps});

    for (int64_t j = 0; j < args.cols; ++j) {
      const double weight = args.weight != nullptr ? double{args.weight[j]} : 1.0;
      const double bias = args.bias != nullptr ? double{args.bias[j]} : 0.0;
      y[j] = static_cast<float>((double{x[j]} - mean) / deviation * weight + bias);
    }
  }
}

}  // namespace trine::ref
