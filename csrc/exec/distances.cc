// SPDX-License-Identifier: Apache-2.0
#include "exec/distances.h"

#include <algorithm>
#include <cmath>

namespace trine {
namespace {

// Rounded once, from double: libraries' own logarithms of floats differ in the last bit, and a file
// that was packed by one must mean the same to another.
float log_of(float x) { return static_cast<float>(std::log(static_cast<double>(x))); }

// Of a distance d >= 0; the bucket of -d is minus that.
int64_t bucket_of(int64_t d, int64_t buckets, int64_t max_position) {
  const int64_t exact = buckets / 2;
  if (buckets <= 0 || d <= exact) return d;
  const float base = log_of(
      static_cast<float>(static_cast<double>(max_position - 1) / static_cast<double>(exact)));
  const float ratio = log_of(static_cast<float>(d) / static_cast<float>(exact)) / base;
  return static_cast<int64_t>(std::ceil(ratio * static_cast<float>(exact - 1))) + exact;
}

}  // namespace

Distances position_rows(const AttentionAttrs& a) {
  const int64_t span = a.span(), last = 2 * span - 1;
  // Two buckets are the last of their side: span - 1 for keys before the query, -span behind it.
  std::vector<int32_t> before, behind;
  for (int64_t d = 0;; ++d) {
    const int64_t bucket = bucket_of(d, a.position_buckets, a.max_relative_positions);
    before.push_back(static_cast<int32_t>(std::min(span + bucket, last)));
    behind.push_back(static_cast<int32_t>(std::max(span - bucket, int64_t{0})));
    // Half of the buckets may be one, which leaves no logarithm and all the distances in it.
    if (bucket >= span || (a.position_buckets > 0 && a.position_buckets < 4 && d > span)) break;
  }
  Distances out;
  out.reach = static_cast<int32_t>(before.size()) - 1;
  const int64_t edge = out.reach + Distances::kMargin;
  // Reads start at a distance of `reach` at most and cover kMargin values.
  for (int64_t d = -edge; d <= edge; ++d) {
    const auto far = static_cast<size_t>(std::min<int64_t>(std::abs(d), out.reach));
    out.values.push_back(d < 0 ? before[far] : behind[far]);
  }
  return out;
}

}  // namespace trine
