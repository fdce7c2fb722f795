// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdlib>

#include "ref/ref.h"

namespace trine::ref {
namespace {

// The logarithm's arguments and results are float, step by step as torch computes them: borders
// fall where they round.
int64_t bucket_of(int64_t distance, int64_t buckets, int64_t max_distance) {
  const int64_t side = buckets / 2;
  const int64_t far = std::llabs(distance);
  const int64_t exact = side / 2;
  int64_t bucket = far;
  if (far >= exact) {
    const float ratio = std::log(static_cast<float>(far) / static_cast<float>(exact)) /
                        static_cast<float>(std::log(static_cast<double>(max_distance) /
                                                    static_cast<double>(exact)));
    bucket = exact + static_cast<int64_t>(ratio * static_cast<float>(side - exact));
    if (bucket > side - 1) bucket = side - 1;
  }
  return distance > 0 ? side + bucket : bucket;
}

}  // namespace

void relative_bias(const RelativeBiasArgs& a) {
  for (int64_t h = 0; h < a.heads; ++h) {
    for (int64_t d = -(int64_t{a.span} - 1); d < a.span; ++d) {
      a.y[h * a.ldy + d + a.span - 1] =
          a.table[bucket_of(d, a.buckets, a.max_distance) * a.heads + h];
    }
  }
}

}  // namespace trine::ref
