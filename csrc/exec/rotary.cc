// SPDX-License-Identifier: Apache-2.0
#include "exec/rotary.h"

#include <algorithm>
#include <cmath>

namespace trine {

void rotary_frequencies(const RotaryArgs& args, int64_t length, float* to) noexcept {
  if (args.original_length == 0 || length <= args.original_length) {
    std::copy_n(args.inv_freq, args.pairs, to);
  } else if (args.long_inv_freq != nullptr) {
    std::copy_n(args.long_inv_freq, args.pairs, to);
  } else {
    const auto dim = static_cast<double>(2 * args.pairs);
    const float stretch =
        args.factor * static_cast<float>(length) / static_cast<float>(args.original_length) -
        (args.factor - 1);
    const float base = args.base * std::pow(stretch, static_cast<float>(dim / (dim - 2)));
    for (int64_t c = 0; c < args.pairs; ++c)
      to[c] = 1.0f / std::pow(base, static_cast<float>(2 * c) / static_cast<float>(dim));
  }
}

int64_t rotary_length(const RotaryArgs& args, int32_t sequence) noexcept {
  if (args.lengths != nullptr) return args.lengths[sequence];
  return args.batch.offsets[sequence + 1] - args.batch.offsets[sequence];
}

}  // namespace trine
