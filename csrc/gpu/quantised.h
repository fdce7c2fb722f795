// SPDX-License-Identifier: Apache-2.0
// Weights of 8 and 4 bits as GPUs' kernels read them. The numbers are the CPU's, bit for bit
// (exec/int8.h, weights/groups.h); they lie in rows, which kernels of either device can load 16
// bytes at a time:
//
//   kI8          [n][ldw] integers from -127 to 127, zeros from k on; then [n] floats, their scales
//   kInt4Groups  [n][groups][16] bytes: byte i of a group of 32 of k has element i in its low half
//                and element 16 + i in its high one, as in GGUF's Q4_1; then [n][groups] pairs of
//                half: scale, minimum
//   kQ8Groups    [n][groups][32] bytes, an element each, 0 to 255; then such pairs
//
// So the scales begin n * ldw bytes behind the first row. What the last group has more than k is
// zero, with x's zeros beside it. A weight is scale * integer, or scale * q + minimum (exact
// product, one rounding). One copy serves a linear and the embedding whose table it shares.
//
// What linears compute, as on the CPU. All else of such a model, attention and values between ops
// included, is float32; linears whose weight is kept have it in bfloat16.
//   kI8: a row of x becomes integers and a scale (int8::scale_of of the largest and the third
//     largest magnitude of the whole row, int8::quantised); two of them at most, its outliers, have
//     16 bits. Where others are bytes, what those have beyond is beside them, an int8::Row.
//     Products are summed up in integers, exactly, and
//       y = act(float(sum) * w_scale * x_scale + bias) + residual
//     (round after each operation, in this order: the CPU's bits).
//   groups: x likewise, in groups of 32 of k with a scale each, 127 / largest and largest / 127,
//   the
//     rounding to nearest even; a group below 2^-100 is zero, one that isn't finite has the scale
//     NaN. Of a group's integer sums,
//       y += (sum of x * q) * w_scale * x_scale + w_min * (x_scale * sum of x)
//     in float, or what differs from it by rounding of floats alone.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "exec/args.h"

namespace trine::gpu {

constexpr bool in_groups(DType form) noexcept { return form == kInt4Groups || form == kQ8Groups; }
constexpr bool is_quantised_form(DType form) noexcept {
  return form == DType::kI8 || in_groups(form);
}

// Bytes from one row of integers to the next: whole 16 bytes.
constexpr int64_t quantised_ldw(DType form, int64_t k) noexcept {
  if (form == DType::kI8) return (k + 15) / 16 * 16;
  return (k + kGroup - 1) / kGroup * (form == kInt4Groups ? kGroup / 2 : kGroup);
}

// With the scales.
constexpr int64_t quantised_bytes(DType form, int64_t n, int64_t k) noexcept {
  const int64_t scales = form == DType::kI8 ? 4 : (k + kGroup - 1) / kGroup * 4;
  return n * (quantised_ldw(form, k) + scales);
}

}  // namespace trine::gpu
