// SPDX-License-Identifier: Apache-2.0
#include "cpu/positions.h"

#include <cstring>

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

// visit(element of the table, element of the packed one) for all that stand for a distance. A line
// of a panel holds `pair` elements of each of its columns.
template <class Visit>
void for_each_element(const AttentionAttrs& attrs, int64_t head_dim, int64_t pair,
                      const Visit& visit) {
  Distances rows = position_rows(attrs);
  const std::vector<int32_t> row_of = number_columns(rows);
  const int64_t lines = (head_dim + pair - 1) / pair;
  const int64_t head = positions_of(attrs, lines).head * pair;
  const int64_t width = attrs.heads * head_dim;
  for (int64_t h = 0; h < attrs.heads; ++h) {
    for (size_t column = 0; column < row_of.size(); ++column) {
      if (row_of[column] == kUnused) continue;
      const int64_t row = row_of[column] * width + h * head_dim;
      const auto at = static_cast<int64_t>(column);
      const int64_t first = h * head + (at / kPanel * kPanel * lines + at % kPanel) * pair;
      for (int64_t c = 0; c < head_dim; ++c)
        visit(row + c, first + c / pair * kPanel * pair + c % pair);
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
  for_each_element(attrs, head_dim, 1, [=](int64_t from, int64_t to) { packed[to] = table[from]; });
}

void pack_positions_bf16(const float* table, const AttentionAttrs& attrs, int64_t head_dim,
                         uint16_t* packed) {
  for_each_element(attrs, head_dim, 2,
                   [=](int64_t from, int64_t to) { packed[to] = f32_to_bf16(table[from]); });
}

void unpack_positions(const std::byte* packed, DType dtype, const AttentionAttrs& attrs,
                      int64_t head_dim, std::byte* table) {
  const size_t size = size_of(dtype);
  for_each_element(attrs, head_dim, dtype == DType::kBF16 ? 2 : 1, [=](int64_t to, int64_t from) {
    std::memcpy(table + static_cast<size_t>(to) * size, packed + static_cast<size_t>(from) * size,
                size);
  });
}

}  // namespace trine::cpu
