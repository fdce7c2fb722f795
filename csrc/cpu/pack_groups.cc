// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cstring>

#include "cpu/ops.h"
#include "weights/groups.h"

namespace trine::cpu {
namespace {

// A group of 16 columns as lines: kernel_table.h. `to` is where the next byte goes.
void pack_group(const Group* const (&columns)[kPanel], GroupForm form, std::byte* to) noexcept {
  const auto add_line = [&](auto byte_of) {
    for (const Group* column : columns) {
      for (int64_t b = 0; b < 4; ++b) *to++ = static_cast<std::byte>(byte_of(column->q + b));
    }
  };
  const auto add_halves = [&](auto half_of) {
    for (const Group* column : columns) {
      std::memcpy(to, half_of(*column), sizeof(uint16_t));
      to += sizeof(uint16_t);
    }
  };
  const bool whole = group_bits(form) == 8;
  for (int64_t quad = 0; quad < 8; quad += whole ? 1 : 2) {
    add_line([&](const uint8_t* q) {
      return whole ? q[4 * quad] : (q[4 * quad] & 15u) | (q[4 * quad + 4] & 15u) << 4;
    });
  }
  if (form == GroupForm::kQ6_K) {
    for (int64_t k = 0; k < kGroup; k += 16) {
      add_line([&](const uint8_t* q) {
        return q[k] >> 4 | (q[k + 4] >> 4) << 2 | (q[k + 8] >> 4) << 4 | (q[k + 12] >> 4) << 6;
      });
    }
  }
  add_halves([](const Group& group) { return &group.scale[0]; });
  if (form == GroupForm::kQ6_K) add_halves([](const Group& group) { return &group.scale[1]; });
  if (form == GroupForm::kInt4 || form == GroupForm::kInt8)
    add_halves([](const Group& group) { return &group.min[0]; });
}

}  // namespace

bool pack_linear_groups(const void* w, DType dtype, int64_t n, int64_t k, GroupForm form,
                        std::byte* packed, ThreadPool& pool) noexcept {
  constexpr int64_t kStep = 256;  // of K, the largest block of a type
  const auto* const rows = static_cast<const std::byte*>(w);
  const int64_t bytes = kPanel * group_bytes(form);
  std::atomic<bool> finite = true;
  pool.parallel_for((n + kPanel - 1) / kPanel, [&](int64_t panel, int) {
    Group groups[kPanel][kStep / kGroup] = {};
    std::byte* to = packed + panel * groups_of(k) * bytes;
    const int64_t columns = std::min(kPanel, n - panel * kPanel);
    for (int64_t k0 = 0; k0 < k; k0 += kStep) {
      const int64_t count = std::min(k - k0, kStep);
      for (int64_t c = 0; c < columns; ++c) {
        const std::byte* const row = rows + bytes_of(dtype, (panel * kPanel + c) * k + k0);
        if (!to_groups(dtype, row, count, form, groups[c])) finite = false;
      }
      for (int64_t g = 0; g < groups_of(count); ++g, to += bytes) {
        const Group* of_columns[kPanel];
        for (int64_t c = 0; c < kPanel; ++c) of_columns[c] = &groups[c][g];
        pack_group(of_columns, form, to);
      }
    }
  });
  return finite;
}

}  // namespace trine::cpu
