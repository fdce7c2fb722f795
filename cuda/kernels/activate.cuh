// SPDX-License-Identifier: Apache-2.0
// Activations in float, with the limits of ref/activation.cc: -infinity times a gate of 0 is 0.
#pragma once

#include "exec/args.h"
#include "kernels/dialect.h"

namespace trine::cuda::rows {

TRINE_DEV float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

TRINE_DEV float times_gate(float x, float gate) { return gate == 0.0f ? 0.0f : x * gate; }

// The switch stands outside of the loops: one jump for a chunk.
template <int n>
TRINE_DEV void activate(float (&v)[n], Activation activation) {
  switch (activation) {
    case Activation::kNone:
      break;
    case Activation::kGelu:
#pragma unroll
      for (float& x : v) x = times_gate(x, 0.5f * erfcf(-0.70710678f * x));
      break;
    case Activation::kGeluTanh:
#pragma unroll
      for (float& x : v) x = times_gate(x, sigmoid(1.59576912f * fmaf(0.044715f * x * x, x, x)));
      break;
    case Activation::kRelu:
#pragma unroll
      for (float& x : v) x = x < 0.0f ? 0.0f : x;
      break;
    case Activation::kTanh:
#pragma unroll
      for (float& x : v) x = tanhf(x);
      break;
    case Activation::kSigmoid:
#pragma unroll
      for (float& x : v) x = sigmoid(x);
      break;
    case Activation::kSilu:
#pragma unroll
      for (float& x : v) x = times_gate(x, sigmoid(x));
      break;
    case Activation::kQuickGelu:
#pragma unroll
      for (float& x : v) x = times_gate(x, sigmoid(1.702f * x));
      break;
  }
}

}  // namespace trine::cuda::rows
