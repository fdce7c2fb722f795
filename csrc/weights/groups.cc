// SPDX-License-Identifier: Apache-2.0
#include "weights/groups.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/bytes.h"

namespace trine {
namespace {

// The nearest level of each value, and the squared error that it leaves.
float choose_levels(const float* values, int64_t n, int most, Group& group) noexcept {
  const float scale = f16_to_f32(group.scale), min = f16_to_f32(group.min);
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  float error = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    // Values that are not finite end as 0 here; the caller sees them in the scale or the minimum.
    const float level = std::min(std::max((values[i] - min) * inverse, 0.0f), float(most));
    const float rounded = (level + 12582912.0f) - 12582912.0f;
    group.q[i] = static_cast<uint8_t>(rounded);
    const float off = scale * rounded + min - values[i];
    error += off * off;
  }
  return error;
}

// The scale and minimum with the least squared error for the levels that `group` has.
void fit(const float* values, int64_t n, Group& group) noexcept {
  float sum_q = 0.0f, sum_qq = 0.0f, sum_v = 0.0f, sum_qv = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    const auto q = static_cast<float>(group.q[i]);
    sum_q += q;
    sum_qq += q * q;
    sum_v += values[i];
    sum_qv += q * values[i];
  }
  const auto count = static_cast<float>(n);
  const float determinant = count * sum_qq - sum_q * sum_q;
  if (!(determinant > 0.0f)) return;
  const float scale = (count * sum_qv - sum_q * sum_v) / determinant;
  group.scale = f32_to_f16(scale);
  group.min = f32_to_f16((sum_v - f16_to_f32(group.scale) * sum_q) / count);
}

}  // namespace

void quantise_group(const float* values, int64_t n, int bits, Group& group) noexcept {
  const int most = (1 << bits) - 1;
  float least = values[0], largest = values[0], poison = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    least = std::min(least, values[i]);
    largest = std::max(largest, values[i]);
    poison += values[i] * 0.0f;  // NaN for what is not finite
  }
  group = {};
  group.min = f32_to_f16(least + poison);
  const float range = largest - least;
  if (!(range > 0.0f) || !std::isfinite(f16_to_f32(group.min))) return;
  // Steps between levels: a little wider than the range needs (then the outermost levels stay
  // empty), and a little narrower (then the outermost values are cut). With 8 bits neither pays.
  constexpr float kSteps4[] = {15.0f, 14.0f, 16.0f, 17.0f, 18.0f};
  constexpr float kSteps8[] = {255.0f};
  const float* const steps = bits == 4 ? kSteps4 : kSteps8;
  const size_t tries = bits == 4 ? std::size(kSteps4) : std::size(kSteps8);
  float best = std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < tries; ++i) {
    Group tried = {};
    const float step = range / steps[i];
    tried.scale = f32_to_f16(step);
    tried.min = f32_to_f16(least + 0.5f * (range - static_cast<float>(most) * step));
    float error = choose_levels(values, n, most, tried);
    if (bits == 4) {
      Group fitted = tried;
      fit(values, n, fitted);
      const float fitted_error = choose_levels(values, n, most, fitted);
      if (fitted_error < error) tried = fitted, error = fitted_error;
    }
    if (i == 0 || error < best) group = tried, best = error;
  }
}

namespace {

// A small number times an f16: exact unless it is too large for one.
uint16_t times(uint16_t half, float factor) noexcept {
  return f32_to_f16(f16_to_f32(half) * factor);
}

void nibbles(const uint8_t* q, uint32_t high, Group& group) noexcept {
  for (int i = 0; i < 16; ++i) {
    group.q[i] = static_cast<uint8_t>((q[i] & 15u) | (((high >> i) & 1u) << 4));
    group.q[i + 16] = static_cast<uint8_t>((q[i] >> 4u) | (((high >> (i + 16)) & 1u) << 4));
  }
}

// Block `i` of a row as it lies in a GGUF; Q4_K and Q5_K: sub-block i % 8 of block i / 8.
void read_block(DType dtype, const std::byte* row, int64_t i, Group& group) noexcept {
  const bool super = dtype == DType::kQ4K || dtype == DType::kQ5K;
  const int64_t block = super ? i / 8 : i;
  const auto* const p =
      reinterpret_cast<const uint8_t*>(row) + bytes_of(dtype, block * block_of(dtype));
  group.scale = load_le<uint16_t>(p);
  switch (dtype) {
    case DType::kQ4_0:
      group.min = times(group.scale, -8.0f);
      return nibbles(p + 2, 0, group);
    case DType::kQ4_1:
      group.min = load_le<uint16_t>(p + 2);
      return nibbles(p + 4, 0, group);
    case DType::kQ5_0:
      group.min = times(group.scale, -16.0f);
      return nibbles(p + 6, load_le<uint32_t>(p + 2), group);
    case DType::kQ5_1:
      group.min = load_le<uint16_t>(p + 2);
      return nibbles(p + 8, load_le<uint32_t>(p + 4), group);
    case DType::kQ8_0:
      group.min = times(group.scale, -128.0f);
      for (int j = 0; j < kGroup; ++j) group.q[j] = static_cast<uint8_t>(p[2 + j] ^ 0x80u);
      return;
    default: {
      const auto j = static_cast<int>(i % 8);
      const KScale s = k_scale(p + 4, j);
      group.min = times(load_le<uint16_t>(p + 2), -static_cast<float>(s.min));
      group.scale = times(group.scale, static_cast<float>(s.scale));
      const bool five = dtype == DType::kQ5K;
      const uint8_t* const low = p + (five ? 48 : 16) + j / 2 * 32;
      for (int e = 0; e < kGroup; ++e) {
        const unsigned fifth = five ? ((p[16 + e] >> static_cast<unsigned>(j)) & 1u) << 4 : 0;
        group.q[e] = static_cast<uint8_t>(((low[e] >> (j % 2 * 4)) & 15) | static_cast<int>(fifth));
      }
    }
  }
}

constexpr bool is_grouped(DType dtype) noexcept {
  return dtype >= DType::kQ4_0 && dtype <= DType::kQ5K;
}

bool is_finite(uint16_t half) noexcept { return (half & 0x7C00u) != 0x7C00u; }

}  // namespace

bool to_groups(DType dtype, const std::byte* row, int64_t k, int bits, Group* groups) noexcept {
  // Q6_K, the largest block, is eight groups.
  constexpr int64_t kStep = 256;
  bool finite = true;
  float values[kStep];
  for (int64_t k0 = 0; k0 < k; k0 += kStep) {
    const int64_t count = std::min(k - k0, kStep);
    if (!is_grouped(dtype))
      to_f32(dtype, row + bytes_of(dtype, k0), values, static_cast<size_t>(count));
    for (int64_t i = 0; i < count; i += kGroup) {
      Group& group = groups[(k0 + i) / kGroup];
      if (is_grouped(dtype)) {
        read_block(dtype, row, (k0 + i) / kGroup, group);
      } else {
        quantise_group(values + i, std::min(count - i, kGroup), bits, group);
      }
      finite = finite && is_finite(group.scale) && is_finite(group.min);
    }
  }
  return finite;
}

}  // namespace trine
