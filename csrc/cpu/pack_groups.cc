// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cstring>

#include "cpu/ops.h"
#include "weights/groups.h"

namespace trine::cpu {
namespace {

// Group g of 16 columns as lines: quads of K of all columns, with 4 bits an even one in the low
// halves of bytes and the odd one behind it in the high halves; then scales and minima.
void pack_group(const Group* const (&columns)[kPanel], int bits, std::byte* to) noexcept {
  const int64_t lines = kGroup * bits / 32;
  for (int64_t i = 0; i < lines; ++i) {
    for (int64_t c = 0; c < kPanel; ++c) {
      const uint8_t* const q = columns[c]->q + i * 4 * 8 / bits;
      for (int64_t b = 0; b < 4; ++b) {
        const unsigned high = bits == 4 ? static_cast<unsigned>(q[4 + b]) << 4 : 0;
        *to++ = static_cast<std::byte>(q[b] | high);
      }
    }
  }
  for (const Group* column : columns) {
    std::memcpy(to, &column->scale, 2);
    std::memcpy(to + 2 * kPanel, &column->min, 2);
    to += 2;
  }
}

}  // namespace

int64_t packed_group_bytes(int bits) noexcept { return kPanel * (kGroup * bits / 8 + 4); }

bool pack_linear_groups(const void* w, DType dtype, int64_t n, int64_t k, int bits,
                        std::byte* packed, ThreadPool& pool) noexcept {
  constexpr int64_t kStep = 256;  // of K, the largest block of a type
  const auto* const rows = static_cast<const std::byte*>(w);
  const int64_t bytes = packed_group_bytes(bits);
  std::atomic<bool> finite = true;
  pool.parallel_for((n + kPanel - 1) / kPanel, [&](int64_t panel, int) {
    Group groups[kPanel][kStep / kGroup] = {};
    std::byte* to = packed + panel * groups_of(k) * bytes;
    const int64_t columns = std::min(kPanel, n - panel * kPanel);
    for (int64_t k0 = 0; k0 < k; k0 += kStep) {
      const int64_t count = std::min(k - k0, kStep);
      for (int64_t c = 0; c < columns; ++c) {
        const std::byte* const row = rows + bytes_of(dtype, (panel * kPanel + c) * k + k0);
        if (!to_groups(dtype, row, count, bits, groups[c])) finite = false;
      }
      for (int64_t g = 0; g < groups_of(count); ++g, to += bytes) {
        const Group* of_columns[kPanel];
        for (int64_t c = 0; c < kPanel; ++c) of_columns[c] = &groups[c][g];
        pack_group(of_columns, bits, to);
      }
    }
  });
  return finite;
}

}  // namespace trine::cpu
