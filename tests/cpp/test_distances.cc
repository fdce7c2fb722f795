// SPDX-License-Identifier: Apache-2.0
// Where distances lead in the position tables. The wanted rows were printed by transformers 5.23
// (build_relative_position and the two clamps of disentangled_attention_bias).
#include <algorithm>
#include <cstdlib>

#include "check.h"
#include "cpu/positions.h"
#include "exec/distances.h"

namespace trine::test {
namespace {

AttentionAttrs attrs_of(int32_t buckets, int32_t max_positions) {
  AttentionAttrs a;
  a.heads = a.kv_heads = 1;
  a.position_buckets = buckets;
  a.max_relative_positions = max_positions;
  return a;
}

int32_t at(const Distances& d, int64_t distance) {
  return d.center()[std::clamp<int64_t>(distance, -d.reach, d.reach)];
}

}  // namespace

TEST(distances_as_transformers_buckets_them) {
  const Distances v3 = position_rows(attrs_of(256, 512));
  for (int32_t d = 0; d <= 128; ++d) {
    CHECK_EQ(at(v3, -d), 256 + d);
    CHECK_EQ(at(v3, d), 256 - d);
  }
  CHECK_EQ(at(v3, -129), 256 + 129);
  CHECK_EQ(at(v3, -200), 256 + 169);
  CHECK_EQ(at(v3, -300), 256 + 207);
  CHECK_EQ(at(v3, -511), 256 + 255);
  CHECK_EQ(at(v3, -512), 511);
  CHECK_EQ(at(v3, 511), 1);  // the original clamps distances and stays here
  CHECK_EQ(at(v3, 512), 0);
  CHECK_EQ(at(v3, 600), 0);
  CHECK_EQ(at(v3, 100000), 0);
}

TEST(distances_without_buckets) {
  const Distances plain = position_rows(attrs_of(-1, 20));
  CHECK_EQ(plain.reach, 20);
  for (int32_t d = -30; d <= 30; ++d) CHECK_EQ(at(plain, d), std::clamp(20 - d, 0, 39));
}

TEST(distances_of_few_buckets_end) {
  for (const int32_t buckets : {2, 3, 4, 5, 6, 7}) {
    const Distances d = position_rows(attrs_of(buckets, 40));
    CHECK(d.reach >= 1 && d.reach < 4000);
    for (const int32_t row : d.values) CHECK(row >= 0 && row < 2 * buckets);
  }
}

// What LoadAt counts on.
TEST(columns_of_distances_rise_by_one_or_stay) {
  for (const auto& [buckets, most] :
       {std::pair{256, 512}, {8, 10}, {8, 200}, {7, 30}, {-1, 33}, {2, 9}}) {
    const Positions p = cpu::positions_of(attrs_of(buckets, most), 24);
    int32_t last = p.at.values.front();
    CHECK(last < 16 && p.at.center()[1] % 16 == 0);
    for (const int32_t column : p.at.values) {
      CHECK(column - last == 0 || column - last == 1);
      last = column;
    }
    CHECK_EQ(last + 1, p.columns);
    CHECK_EQ(p.head, int64_t{(p.columns + 15) / 16 + 1} * 16 * 24);
  }
}

}  // namespace trine::test
