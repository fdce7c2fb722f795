// SPDX-License-Identifier: Apache-2.0
#include "cpu/positions.h"

#include "cpu/kernel_table.h"
#include "weights/convert.h"

namespace trine::cpu {
namespace {

constexpr int32_t kUnused = -1;

// The table's row of each column; turns `rows` into columns. Distance 1 begins a panel: then 16
// keys and n * 16 queries need n + 1 panels, not n + 2.
std::vector<int32_t> number_columns(Distances& rows) {
  std::vector<int32_t> row_of;
  for (int32_t& value : rows.values) {
    if (row_of.empty() || row_of.back() != value) row_of.push_back(value);
    value = static_cast<int32_t>(row_of.size()) - 1;
  }
  const auto shift = static_cast<int32_t>((kPanel - rows.center()[1] % kPanel) % kPanel);
  for (int32_t& value : rows.values) value += shift;
  row_of.insert(row_of.begin(), static_cast<size_t>(shift), kUnused);
  return row_of;
}

// A line of a panel holds `pair` elements of each of its columns.
template <class Element, class Narrow>
void pack(const float* table, const AttentionAttrs& attrs, int64_t head_dim, int64_t pair,
          Element* packed, const Narrow& narrow) {
  Distances rows = position_rows(attrs);
  const std::vector<int32_t> row_of = number_columns(rows);
  const int64_t lines = (head_dim + pair - 1) / pair;
  const int64_t head = positions_of(attrs, lines).head * pair;
  const int64_t width = attrs.heads * head_dim;
  for (int64_t h = 0; h < attrs.heads; ++h) {
    for (size_t column = 0; column < row_of.size(); ++column) {
      if (row_of[column] == kUnused) continue;
      const float* from = table + row_of[column] * width + h * head_dim;
      const auto at = static_cast<int64_t>(column);
      Element* to = packed + h * head + (at / kPanel * kPanel * lines + at % kPanel) * pair;
      for (int64_t c = 0; c < head_dim; ++c)
        to[c / pair * kPanel * pair + c % pair] = narrow(from[c]);
    }
  }
}

}  // namespace

Positions positions_of(const AttentionAttrs& attrs, int64_t lines) {
  Positions out;
  out.at = position_rows(attrs);
  out.columns = static_cast<int32_t>(number_columns(out.at).size());
  out.head = ((out.columns + kPanel - 1) / kPanel + 1) * kPanel * lines;
  return out;
}

void pack_positions(const float* table, const AttentionAttrs& attrs, int64_t head_dim,
                    float* packed) {
  pack(table, attrs, head_dim, 1, packed, [](float x) { return x; });
}

void pack_positions_bf16(const float* table, const AttentionAttrs& attrs, int64_t head_dim,
                         uint16_t* packed) {
  pack(table, attrs, head_dim, 2, packed, f32_to_bf16);
}

}  // namespace trine::cpu
