// SPDX-License-Identifier: Apache-2.0
#include "ref/ref.h"

namespace trine::ref {

void add(const AddArgs& args) noexcept {
  for (int64_t i = 0; i < args.rows; ++i) {
    for (int64_t j = 0; j < args.cols; ++j) {
      const double sum = double{args.a[i * args.lda + j]} + double{args.b[i * args.ldb + j]};
      args.y[i * args.ldy + j] = static_cast<float>(sum);
    }
  }
}

}  // namespace trine::ref
