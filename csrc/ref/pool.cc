// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "ref/ref.h"

namespace trine::ref {

namespace {

// Column j of the rows [begin, end) of one sequence that starts at row `start`.
double pool_column(const PoolArgs& args, int64_t start, int64_t begin, int64_t end, int64_t j) {
  const double count = static_cast<double>(end - begin);
  double sum = 0.0, weights = 0.0, largest = -INFINITY;
  for (int64_t row = begin; row < end; ++row) {
    const double x = args.x[row * args.ldx + j];
    const double weight =
        args.mode == PoolMode::kWeightedMean ? static_cast<double>(row - start + 1) : 1.0;
    sum += weight * x;
    weights += weight;
    if (!(x <= largest)) largest = x;
    if (std::isnan(x)) return x;
  }
  switch (args.mode) {
    case PoolMode::kCls:
      return double{args.x[begin * args.ldx + j]};
    case PoolMode::kLastToken:
      return double{args.x[(end - 1) * args.ldx + j]};
    case PoolMode::kMax:
      return largest;
    case PoolMode::kMeanSqrtLen:
      return sum / std::sqrt(count);
    case PoolMode::kMean:
    case PoolMode::kWeightedMean:
      return sum / weights;
  }
  return 0.0;
}

}  // namespace

void pool(const PoolArgs& args) noexcept {
  for (int32_t b = 0; b < args.batch.sequences; ++b) {
    const int64_t start = args.batch.offsets[b];
    const int64_t end = args.batch.offsets[b + 1];
    int64_t begin = start + (args.skip != nullptr ? args.skip[b] : 0);
    if (args.mode == PoolMode::kCls && begin >= end) begin = start;
    for (int64_t j = 0; j < args.cols; ++j) {
      const double y = begin < end ? pool_column(args, start, begin, end, j) : 0.0;
      args.y[b * args.ldy + j] = static_cast<float>(y);
    }
  }
}

}  // namespace trine::ref
