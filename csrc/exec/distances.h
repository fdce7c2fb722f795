// SPDX-License-Identifier: Apache-2.0
// Where the distance j - i of a key from a query leads in DeBERTa's position tables.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/attrs.h"

namespace trine {

// A value for each distance. Past `reach` on either side the value stays the same, and it is stored
// for kMargin distances more, so that a vector of neighbouring distances may be read at any
// distance within [-reach - kMargin, reach].
struct Distances {
  static constexpr int32_t kMargin = 16;
  int32_t reach = 0;
  std::vector<int32_t> values;

  const int32_t* center() const noexcept { return values.data() + reach + kMargin; }
};

// Rows of the tables: clamp(bucket(i - j) + span, 0, 2 * span - 1). Buckets are the distances
// themselves up to half of position_buckets, then grow with the logarithm, which is taken in float
// step by step as transformers does (modeling_deberta_v2.py, make_log_bucket_position), since the
// borders depend on its rounding. Distances beyond max_relative_positions are not clamped before
// that: the original (microsoft/DeBERTa, da_utils.py) does, transformers does not.
Distances position_rows(const AttentionAttrs&);

// Where a backend's attention kernel finds the distances in the tables as the backend packed them.
struct Positions {
  Distances at;
  int64_t head = 0;     // AttentionArgs::position_head
  int32_t columns = 0;  // AttentionArgs::position_columns
};

}  // namespace trine
