// SPDX-License-Identifier: Apache-2.0
#include "ref/ref.h"

namespace trine::ref {

void linear(const LinearArgs& args) noexcept {
  for (int64_t i = 0; i < args.m; ++i) {
    const float* x = args.x + i * args.ldx;
    for (int64_t j = 0; j < args.n; ++j) {
      const float* w = args.w + j * args.k;
      double sum = 0.0;
      for (int64_t k = 0; k < args.k; ++k) sum += double{x[k]} * double{w[k]};
      if (args.bias != nullptr) sum += double{args.bias[j]};
      double y = activate(sum, args.activation);
      if (args.residual != nullptr) y += double{args.residual[i * args.ldr + j]};
      args.y[i * args.ldy + j] = static_cast<float>(y);
    }
  }
}

}  // namespace trine::ref
