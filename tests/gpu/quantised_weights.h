// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "cpp/kernel_testing.h"
#include "exec/int8.h"
#include "gpu/quantised.h"
#include "weights/convert.h"
#include "weights/groups.h"

namespace trine::test {

inline constexpr DType kForms[] = {DType::kI8, kInt4Groups, kQ8Groups};

// Rows of tokens as models have them, and as no model has: two outliers, one, none, equal numbers,
// two that leave nothing of the others, and the three largest side by side, so that one thread of a
// kernel sees them all.
inline void make_outliers(Matrix<float>& x) {
  const int64_t k = x.cols();
  for (int64_t i = 0; i < x.rows(); ++i) {
    const float most = int8::largest(x.row(i), k, 0.0f);
    switch (i % 6) {
      case 0:
        x.at(i, k / 2) = -200 * most, x.at(i, k - 1) = 50 * most;
        break;
      case 1:
        x.at(i, k / 3) = -50 * most;
        break;
      case 3:
        for (int64_t j = 0; j < k; ++j) x.at(i, j) = most;
        break;
      case 4:
        x.at(i, 0) = 1e6f * most, x.at(i, k - 1) = -9e5f * most;
        break;
      case 5:
        for (int64_t j = 0; j < 3 && k > 3; ++j)
          x.at(i, 7 * i % (k - 2) + j) = float(j + 4) * -most;
        break;
      default:
        break;
    }
  }
}

// Of a token in int8: by sorting, which kernels do not.
inline int8::Scale scale_of_token(const float* x, int64_t k) {
  std::vector<float> magnitudes(int8::kOutliers + 1);
  for (int64_t i = 0; i < k; ++i) {
    if (!std::isnan(x[i])) magnitudes.push_back(std::fabs(x[i]));
  }
  std::sort(magnitudes.begin(), magnitudes.end(), std::greater<>());
  return int8::scale_of(int8::largest(x, k, 0.0f), magnitudes[int8::kOutliers]);
}

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
        group.scale[0] = group.scale[1] = f32_to_f16(random.uniform(0.001f, 0.1f));
        group.min[0] = group.min[1] = f32_to_f16(random.uniform(-1, 1));
        for (int64_t i = 0; i < kGroup && g * kGroup + i < k; ++i)
          group.q[i] = uint8_t(random.below(form == kInt4Groups ? 16 : 256));
        for (int i = 0; i < 32; ++i) {
          if (form == kQ8Groups) {
            to[g * 32 + i] = group.q[i];
          } else {
            to[g * 16 + i % 16] |= uint8_t(group.q[i] << (i / 16 * 4));
          }
        }
        std::memcpy(scales, &group.scale[0], 2);
        std::memcpy(scales + 2, &group.min[0], 2);
        const auto* const bytes = reinterpret_cast<const uint8_t*>(&group);
        rows.insert(rows.end(), bytes, bytes + sizeof group);
      }
    }
  }
};

}  // namespace trine::test
