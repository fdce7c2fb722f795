// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "cpp/kernel_testing.h"
#include "exec/int8.h"
#include "gpu/quantised.h"
#include "weights/convert.h"
#include "weights/groups.h"

namespace trine::test {

inline constexpr DType kForms[] = {DType::kI8, kInt4Groups, kQ8Groups};

// Random weights as kernels and as the reference read them.
struct QuantisedWeights {
  int64_t n, k, ldw;
  DType form;
  std::vector<uint8_t> packed;
  std::vector<uint8_t> rows;  // of the reference: int8.h's or Groups

  QuantisedWeights(DType form_, int64_t n_, int64_t k_, Random& random)
      : n(n_),
        k(k_),
        ldw(gpu::quantised_ldw(form_, k_)),
        form(form_),
        packed(size_t(gpu::quantised_bytes(form_, n_, k_))) {
    uint8_t* scales = packed.data() + n * ldw;
    for (int64_t r = 0; r < n; ++r) {
      uint8_t* const to = packed.data() + r * ldw;
      if (form == DType::kI8) {
        std::vector<uint8_t> row(size_t(int8::row_bytes(k)));
        for (int64_t i = 0; i < k; ++i)
          row[size_t(i)] = to[i] = uint8_t(int8_t(random.below(255) - 127));
        const float scale = random.uniform(0.001f, 0.01f);
        std::memcpy(row.data() + row.size() - 4, &scale, 4);
        std::memcpy(scales, &scale, 4);
        scales += 4;
        rows.insert(rows.end(), row.begin(), row.end());
        continue;
      }
      for (int64_t g = 0; g < groups_of(k); ++g, scales += 4) {
        Group group = {};
        group.scale = f32_to_f16(random.uniform(0.001f, 0.1f));
        group.min = f32_to_f16(random.uniform(-1, 1));
        for (int64_t i = 0; i < kGroup && g * kGroup + i < k; ++i)
          group.q[i] = uint8_t(random.below(form == kInt4Groups ? 16 : 256));
        for (int i = 0; i < 32; ++i) {
          if (form == kQ8Groups) {
            to[g * 32 + i] = group.q[i];
          } else {
            to[g * 16 + i % 16] |= uint8_t(group.q[i] << (i / 16 * 4));
          }
        }
        std::memcpy(scales, &group.scale, 2);
        std::memcpy(scales + 2, &group.min, 2);
        const auto* const bytes = reinterpret_cast<const uint8_t*>(&group);
        rows.insert(rows.end(), bytes, bytes + sizeof group);
      }
    }
  }
};

}  // namespace trine::test
