// SPDX-License-Identifier: Apache-2.0
#include "weights/groups.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/bytes.h"

namespace trine {
namespace {

void set_scale(Group& group, uint16_t scale) noexcept { group.scale[0] = group.scale[1] = scale; }
void set_min(Group& group, uint16_t min) noexcept { group.min[0] = group.min[1] = min; }

// The nearest level of each value, and the squared error that it leaves.
float choose_levels(const float* values, int64_t n, int most, Group& group) noexcept {
  const float scale = f16_to_f32(group.scale[0]), min = f16_to_f32(group.min[0]);
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
  set_scale(group, f32_to_f16(scale));
  set_min(group, f32_to_f16((sum_v - f16_to_f32(group.scale[0]) * sum_q) / count));
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
  set_min(group, f32_to_f16(least + poison));
  const float range = largest - least;
  if (!(range > 0.0f) || !std::isfinite(f16_to_f32(group.min[0]))) return;
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
    set_scale(tried, f32_to_f16(step));
    set_min(tried, f32_to_f16(least + 0.5f * (range - static_cast<float>(most) * step)));
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

constexpr float offset_of(GroupForm form) noexcept {
  return form == GroupForm::kQ4_0 ? -8.0f : form == GroupForm::kQ6_K ? -32.0f : -128.0f;
}

void nibbles(const uint8_t* q, uint32_t high, Group& group) noexcept {
  for (int i = 0; i < 16; ++i) {
    group.q[i] = static_cast<uint8_t>((q[i] & 15u) | (((high >> i) & 1u) << 4));
    group.q[i + 16] = static_cast<uint8_t>((q[i] >> 4u) | (((high >> (i + 16)) & 1u) << 4));
  }
}

// Scale and minimum of a group whose minimum is a multiple of the scale.
void set_offset(Group& group, uint16_t scale, float offset) noexcept {
  set_scale(group, scale);
  set_min(group, times(scale, offset));
}

// Block `i` of a row as it lies in a GGUF; Q4_K and Q5_K: sub-block i % 8 of block i / 8.
void read_block(DType dtype, const std::byte* row, int64_t i, Group& group) noexcept {
  const bool super = dtype == DType::kQ4K || dtype == DType::kQ5K;
  const int64_t block = super ? i / 8 : i;
  const auto* const p =
      reinterpret_cast<const uint8_t*>(row) + bytes_of(dtype, block * block_of(dtype));
  const auto scale = load_le<uint16_t>(p);
  switch (dtype) {
    case DType::kQ4_0:
      set_offset(group, scale, -8.0f);
      return nibbles(p + 2, 0, group);
    case DType::kQ4_1:
      set_scale(group, scale);
      set_min(group, load_le<uint16_t>(p + 2));
      return nibbles(p + 4, 0, group);
    case DType::kQ5_0:
      set_offset(group, scale, -16.0f);
      return nibbles(p + 6, load_le<uint32_t>(p + 2), group);
    case DType::kQ5_1:
      set_scale(group, scale);
      set_min(group, load_le<uint16_t>(p + 2));
      return nibbles(p + 8, load_le<uint32_t>(p + 4), group);
    case DType::kQ8_0:
      set_offset(group, scale, -128.0f);
      for (int j = 0; j < kGroup; ++j) group.q[j] = static_cast<uint8_t>(p[2 + j] ^ 0x80u);
      return;
    default: {
      const auto j = static_cast<int>(i % 8);
      const KScale s = k_scale(p + 4, j);
      set_scale(group, times(scale, static_cast<float>(s.scale)));
      set_min(group, times(load_le<uint16_t>(p + 2), -static_cast<float>(s.min)));
      const bool five = dtype == DType::kQ5K;
      const uint8_t* const low = p + (five ? 48 : 16) + j / 2 * 32;
      for (int e = 0; e < kGroup; ++e) {
        const unsigned fifth = five ? ((p[16 + e] >> static_cast<unsigned>(j)) & 1u) << 4 : 0;
        group.q[e] = static_cast<uint8_t>(((low[e] >> (j % 2 * 4)) & 15) | static_cast<int>(fifth));
      }
    }
  }
}

// Group `i` of a row whose minimum is a multiple of its scale, a block of its own, in kQ8_0.
void read_eight(DType dtype, const std::byte* row, int64_t i, Group& group) noexcept {
  read_block(dtype, row, i, group);
  const int more = dtype == DType::kQ5_0 ? 112 : 0;
  for (uint8_t& q : group.q) q = static_cast<uint8_t>(q + more);
  set_min(group, minimum_of(GroupForm::kQ8_0, group.scale[0]));
}

// Group `i` of a row in kQ6_K: an eighth of a block of Q6_K (in 128 elements, 32 share the low or
// the high halves of bytes with those 64 on).
void read_six(const std::byte* row, int64_t i, Group& group) noexcept {
  const auto* const block =
      reinterpret_cast<const uint8_t*>(row) + bytes_of(DType::kQ6K, i / 8 * block_of(DType::kQ6K));
  const int64_t half = i % 8 / 4, quarter = i % 4;
  const uint8_t* const low = block + half * 64 + quarter % 2 * 32;
  const uint8_t* const high = block + 128 + half * 32;
  const uint8_t* const scales = block + 192 + i % 8 * 2;
  const auto scale = load_le<uint16_t>(block + 208);
  for (int64_t e = 0; e < kGroup; ++e) {
    const unsigned four = (low[e] >> (quarter / 2 * 4)) & 15u;
    group.q[e] = static_cast<uint8_t>(four | ((high[e] >> (2 * quarter)) & 3u) << 4);
  }
  for (int64_t part = 0; part < 2; ++part) {
    group.scale[part] = times(scale, static_cast<float>(static_cast<int8_t>(scales[part])));
    group.min[part] = minimum_of(GroupForm::kQ6_K, group.scale[part]);
  }
}

constexpr bool is_grouped(DType dtype) noexcept {
  return dtype >= DType::kQ4_0 && dtype <= DType::kQ5K;
}

bool is_finite(uint16_t half) noexcept { return (half & 0x7C00u) != 0x7C00u; }

bool is_finite(const Group& group) noexcept {
  return is_finite(group.scale[0]) && is_finite(group.min[0]) && is_finite(group.scale[1]) &&
         is_finite(group.min[1]);
}

}  // namespace

bool regrouped(const Group& from, GroupForm was, int64_t n, GroupForm form, Group& to) noexcept {
  to = from;
  if (was == GroupForm::kQ6_K && form != was) {
    float values[kGroup];
    for (int64_t i = 0; i < n; ++i) values[i] = from.value(i);
    quantise_group(values, n, group_bits(form), to);
  }
  return is_finite(to);
}

uint16_t minimum_of(GroupForm form, uint16_t scale) noexcept {
  return times(scale, offset_of(form));
}

bool to_groups(DType dtype, const std::byte* row, int64_t k, GroupForm form,
               Group* groups) noexcept {
  // Q6_K, the largest block, is eight groups.
  constexpr int64_t kStep = 256;
  bool finite = true;
  float values[kStep];
  for (int64_t k0 = 0; k0 < k; k0 += kStep) {
    const int64_t count = std::min(k - k0, kStep);
    const bool six = form == GroupForm::kQ6_K;
    if (!is_grouped(dtype) && !six)
      to_f32(dtype, row + bytes_of(dtype, k0), values, static_cast<size_t>(count));
    for (int64_t i = 0; i < count; i += kGroup) {
      Group& group = groups[(k0 + i) / kGroup];
      if (six) {
        read_six(row, (k0 + i) / kGroup, group);
      } else if (form == GroupForm::kQ8_0) {
        read_eight(dtype, row, (k0 + i) / kGroup, group);
      } else if (is_grouped(dtype)) {
        read_block(dtype, row, (k0 + i) / kGroup, group);
      } else {
        quantise_group(values + i, std::min(count - i, kGroup), group_bits(form), group);
      }
      finite = finite && is_finite(group);
    }
  }
  return finite;
}

}  // namespace trine
