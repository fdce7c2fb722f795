// SPDX-License-Identifier: Apache-2.0
// What linear does with a finished sum: bias, activation, residual, and the store.
#pragma once

#include "exec/args.h"
#include "kernels/dialect.h"

namespace trine::cuda {

// What every linear kernel is called with. Strides in elements.
struct LinearParams {
  const void* x;
  const void* w;
  const float* bias;
  const void* residual;
  void* y;
  int64_t ldx, ldw, ldr, ldy;
  int m, n, k;
  int chunk, chunks;  // see linear_mma.cuh
  int x_rows;         // rows of x in a stage of shared memory
  Activation activation;
  bool x_is_bf16, residual_is_bf16, y_is_bf16;
  bool vectors;  // four columns of y, residual and bias can be moved at once
};

TRINE_DEV float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// x * gate, with the limit where x is -infinity and the gate 0.
TRINE_DEV float gated(float x, float gate) { return gate == 0.0f ? 0.0f : x * gate; }

// The switch stands outside of the loops: one jump for four values.
TRINE_DEV void activate(float (&v)[4], Activation activation) {
  switch (activation) {
    case Activation::kNone:
      break;
    case Activation::kGelu:
      for (float& x : v) x = gated(x, 0.5f + 0.5f * erff(0.70710678f * x));
      break;
    case Activation::kGeluTanh:
      for (float& x : v) x = gated(x, sigmoid(1.59576912f * (x + 0.044715f * x * x * x)));
      break;
    case Activation::kRelu:
      for (float& x : v) x = x < 0.0f ? 0.0f : x;
      break;
    case Activation::kTanh:
      for (float& x : v) x = tanhf(x);
      break;
    case Activation::kSigmoid:
      for (float& x : v) x = sigmoid(x);
      break;
    case Activation::kSilu:
      for (float& x : v) x = gated(x, sigmoid(x));
      break;
    case Activation::kQuickGelu:
      for (float& x : v) x = gated(x, sigmoid(1.702f * x));
      break;
  }
}

TRINE_DEV float load_element(const void* data, int64_t at, bool is_bf16) {
  return is_bf16 ? __bfloat162float(static_cast<const bf16*>(data)[at])
                 : static_cast<const float*>(data)[at];
}

// Four sums of one row, of columns col .. col + 3, where p.vectors. kAny: the activation is p's.
template <Activation activation, bool kAny>
TRINE_DEV void finish4_vector(const LinearParams& p, int row, int col, float (&v)[4]) {
  const int64_t at_y = row * p.ldy + col, at_r = row * p.ldr + col;
  if (p.bias != nullptr) {
    const float4 b = *reinterpret_cast<const float4*>(p.bias + col);
    v[0] += b.x, v[1] += b.y, v[2] += b.z, v[3] += b.w;
  }
  activate(v, kAny ? p.activation : activation);
  if (p.residual != nullptr) {
    if (p.residual_is_bf16) {
      const uint2 r = *reinterpret_cast<const uint2*>(static_cast<const bf16*>(p.residual) + at_r);
      v[0] += low_bf16(r.x), v[1] += high_bf16(r.x);
      v[2] += low_bf16(r.y), v[3] += high_bf16(r.y);
    } else {
      const float4 r =
          *reinterpret_cast<const float4*>(static_cast<const float*>(p.residual) + at_r);
      v[0] += r.x, v[1] += r.y, v[2] += r.z, v[3] += r.w;
    }
  }
  if (p.y_is_bf16) {
    *reinterpret_cast<uint2*>(static_cast<bf16*>(p.y) + at_y) =
        make_uint2(pack2_bf16(v[0], v[1]), pack2_bf16(v[2], v[3]));
  } else {
    *reinterpret_cast<float4*>(static_cast<float*>(p.y) + at_y) =
        make_float4(v[0], v[1], v[2], v[3]);
  }
}

// The same with columns beyond n left out.
TRINE_DEV void finish4(const LinearParams& p, int row, int col, float (&v)[4]) {
  if (p.vectors && col + 4 <= p.n) {
    finish4_vector<Activation::kNone, true>(p, row, col, v);
    return;
  }
  const int64_t at_y = row * p.ldy + col, at_r = row * p.ldr + col;
  for (int i = 0; i < 4; ++i) {
    if (p.bias != nullptr && col + i < p.n) v[i] += p.bias[col + i];
  }
  activate(v, p.activation);
  for (int i = 0; i < 4; ++i) {
    if (col + i >= p.n) break;
    if (p.residual != nullptr) v[i] += load_element(p.residual, at_r + i, p.residual_is_bf16);
    if (p.y_is_bf16) {
      static_cast<bf16*>(p.y)[at_y + i] = __float2bfloat16(v[i]);
    } else {
      static_cast<float*>(p.y)[at_y + i] = v[i];
    }
  }
}

}  // namespace trine::cuda
