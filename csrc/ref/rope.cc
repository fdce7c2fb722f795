// SPDX-License-Identifier: Apache-2.0
#include "ref/ref.h"

namespace trine::ref {

void rope(const RopeArgs& args) noexcept {
  const int64_t half = args.turned / 2;
  for (int64_t i = 0; i < args.rows; ++i) {
    const float* cosines = args.table + i * args.ldt;
    const float* sines = cosines + half;
    for (int64_t h = 0; h < args.heads; ++h) {
      const float* x = args.x + i * args.ldx + h * args.head_dim;
      float* y = args.y + i * args.ldy + h * args.head_dim;
      for (int64_t c = 0; c < half; ++c) {
        const double a = x[c], b = x[c + half];
        y[c] = static_cast<float>(a * double{cosines[c]} - b * double{sines[c]});
        y[c + half] = static_cast<float>(b * double{cosines[c]} + a * double{sines[c]});
      }
      for (int64_t c = args.turned; c < args.head_dim; ++c) y[c] = x[c];
    }
  }
}

}  // namespace trine::ref
