// SPDX-License-Identifier: Apache-2.0
// What linear does around its sums: they start from the bias; activation, residual and the store
// follow. The order is the same in all kernels.
#pragma once

#include "exec/args.h"
#include "exec/int8.h"
#include "kernels/activate.cuh"
#include "kernels/dialect.h"

namespace trine::cuda {

// What every linear kernel is called with. Strides in elements.
struct LinearParams {
  const void* x;
  const void* w;
  const float* bias;
  const void* residual;
  void* y;
  const void* w_scales;       // of integers: a float a row, or a pair of half a group
  const int8::Row* x_beside;  // beside int8
  int64_t ldx, ldw, ldr, ldy;
  int m, n, k;
  int chunk, chunks;  // see linear_mma.cuh
  int x_rows;         // rows of x in a stage of shared memory
  Activation activation;
  bool x_is_bf16, residual_is_bf16, y_is_bf16;
  bool vectors;  // four columns of y, residual and bias can be moved at once
};

TRINE_DEV float load_element(const void* data, int64_t at, bool is_bf16) {
  return is_bf16 ? __bfloat162float(static_cast<const bf16*>(data)[at])
                 : static_cast<const float*>(data)[at];
}

// Elements at .. at + 3, of which `count` exist. Vectors: 8 or 16 bytes are aligned there.
TRINE_DEV void load4(float (&v)[4], const void* data, int64_t at, bool is_bf16, bool vectors,
                     int count) {
  if (vectors && count >= 4) {
    if (is_bf16) {
      const uint2 r = *reinterpret_cast<const uint2*>(static_cast<const bf16*>(data) + at);
      v[0] = low_bf16(r.x), v[1] = high_bf16(r.x), v[2] = low_bf16(r.y), v[3] = high_bf16(r.y);
    } else {
      const float4 r = *reinterpret_cast<const float4*>(static_cast<const float*>(data) + at);
      v[0] = r.x, v[1] = r.y, v[2] = r.z, v[3] = r.w;
    }
    return;
  }
  for (int i = 0; i < 4; ++i) v[i] = i < count ? load_element(data, at + i, is_bf16) : 0.0f;
}

TRINE_DEV void store4(const float (&v)[4], void* data, int64_t at, bool is_bf16, bool vectors,
                      int count) {
  if (vectors && count >= 4) {
    if (is_bf16) {
      *reinterpret_cast<uint2*>(static_cast<bf16*>(data) + at) =
          make_uint2(pack2_bf16(v[0], v[1]), pack2_bf16(v[2], v[3]));
    } else {
      *reinterpret_cast<float4*>(static_cast<float*>(data) + at) =
          make_float4(v[0], v[1], v[2], v[3]);
    }
    return;
  }
  for (int i = 0; i < 4 && i < count; ++i) {
    if (is_bf16) {
      static_cast<bf16*>(data)[at + i] = __float2bfloat16(v[i]);
    } else {
      static_cast<float*>(data)[at + i] = v[i];
    }
  }
}

TRINE_DEV void load_bias4(float (&v)[4], const LinearParams& p, int col) {
  if (p.bias != nullptr) {
    load4(v, p.bias, col, false, p.vectors, p.n - col);
  } else {
    for (float& b : v) b = 0.0f;
  }
}

TRINE_DEV void load_residual4(float (&v)[4], const LinearParams& p, int row, int col) {
  if (p.residual == nullptr) return;
  load4(v, p.residual, row * p.ldr + col, p.residual_is_bf16, p.vectors, p.n - col);
}

// Four sums of one row, of columns col .. col + 3, those beyond n left out.
template <bool kFast>
TRINE_DEV void finish4(const LinearParams& p, int row, int col, float (&v)[4],
                       const float (&residual)[4]) {
  activate<kFast>(v, p.activation);
  if (p.residual != nullptr) {
    for (int i = 0; i < 4; ++i) v[i] += residual[i];
  }
  store4(v, p.y, row * p.ldy + col, p.y_is_bf16, p.vectors, p.n - col);
}

}  // namespace trine::cuda
