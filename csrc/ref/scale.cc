// SPDX-License-Identifier: Apache-2.0
#include "ref/ref.h"

namespace trine::ref {

void scale(const ScaleArgs& args) noexcept {
  for (int64_t i = 0; i < args.rows; ++i) {
    for (int64_t j = 0; j < args.cols; ++j) {
      const double product = double{args.factor} * double{args.x[i * args.ldx + j]};
      args.y[i * args.ldy + j] = static_cast<float>(product);
    }
  }
}

}  // namespace trine::ref
