// SPDX-License-Identifier: Apache-2.0
#include "exec/rotary.h"

#include <cmath>

#include "ref/ref.h"

namespace trine::ref {

void rotary(const RotaryArgs& args) noexcept {
  for (int32_t b = 0; b < args.batch.sequences; ++b) {
    float frequencies[RotaryArgs::kMaxPairs];
    rotary_frequencies(args, rotary_length(args, b), frequencies);
    for (int64_t t = args.batch.offsets[b]; t < args.batch.offsets[b + 1]; ++t) {
      float* y = args.y + t * args.ldy;
      for (int64_t c = 0; c < args.pairs; ++c) {
        const float angle = static_cast<float>(args.positions[t]) * frequencies[c];
        y[c] = static_cast<float>(std::cos(double{angle}) * double{args.scaling});
        y[c + args.pairs] = static_cast<float>(std::sin(double{angle}) * double{args.scaling});
      }
    }
  }
}

}  // namespace trine::ref
