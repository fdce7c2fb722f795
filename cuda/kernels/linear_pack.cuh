// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/dialect.h"
#include "kernels/linear.h"

namespace trine::cuda {

// A thread an element of w; each row ends in zeros.
TRINE_GLOBAL void pack_linear_rows(const PackLinearArgs p, int64_t ldw) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= p.n * ldw) return;
  const int64_t row = at / ldw, col = at % ldw, from = row * p.k + col;
  float value = 0.0f;
  if (col < p.k) {
    if (p.source_dtype == DType::kF32) {
      value = static_cast<const float*>(p.source)[from];
    } else if (p.source_dtype == DType::kBF16) {
      value = __bfloat162float(static_cast<const bf16*>(p.source)[from]);
    } else {
      value = half_to_float(static_cast<const uint16_t*>(p.source)[from]);
    }
  }
  if (p.w_dtype == DType::kBF16) {
    static_cast<bf16*>(p.w)[at] = __float2bfloat16(value);
  } else {
    static_cast<float*>(p.w)[at] = value;
  }
}

}  // namespace trine::cuda
