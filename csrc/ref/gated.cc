// SPDX-License-Identifier: Apache-2.0
#include "ref/ref.h"

namespace trine::ref {

void gated(const GatedArgs& args) noexcept {
  for (int64_t i = 0; i < args.rows; ++i) {
    for (int64_t j = 0; j < args.cols; ++j) {
      const double gate = activate(double{args.gate[i * args.ldg + j]}, args.activation);
      args.y[i * args.ldy + j] = static_cast<float>(gate * double{args.up[i * args.ldu + j]});
    }
  }
}

}  // namespace trine::ref
