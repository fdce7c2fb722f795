// SPDX-License-Identifier: Apache-2.0
// Activations in float, with the limits of ref/activation.cc: -infinity times a gate of 0 is 0.
//
// kFast: those of linears in bf16, which err by 2e-6 at most where bf16 rounds to 8 bits. There
// they take a third of the time of a tile with K = 768.
#pragma once

#include "exec/args.h"
#include "kernels/dialect.h"

namespace trine::cuda {

TRINE_DEV float times_gate(float x, float gate) { return gate == 0.0f ? 0.0f : x * gate; }

template <bool kFast>
TRINE_DEV float sigmoid(float x) {
  return kFast ? __fdividef(1.0f, 1.0f + fast_exp(-x)) : 1.0f / (1.0f + expf(-x));
}

// erf(x / sqrt(2)) / 2 = x p(x^2) up to |x| = 5.2, a fit that errs by 1.2e-6 in x times it; below,
// x stays at -5.2. Selects, no branches: four chains of multiply and add run side by side.
TRINE_DEV float fast_gelu(float x) {
  const float low = x < -5.2f ? -5.2f : x;  // keeps a NaN
  const float c = fminf(low, 5.2f), u = fmaf(c * c, 0.073964497f, -1.0f);
  float p = 8.587803256e-04f;
  p = fmaf(p, u, -2.503723888e-03f);
  p = fmaf(p, u, 2.853576440e-03f);
  p = fmaf(p, u, -3.505700556e-03f);
  p = fmaf(p, u, 7.557863175e-03f);
  p = fmaf(p, u, -1.310335402e-02f);
  p = fmaf(p, u, 1.838715062e-02f);
  p = fmaf(p, u, -2.459340265e-02f);
  p = fmaf(p, u, 3.190726552e-02f);
  p = fmaf(p, u, -3.994130072e-02f);
  p = fmaf(p, u, 5.003016743e-02f);
  p = fmaf(p, u, -6.774340234e-02f);
  p = fmaf(p, u, 1.359499325e-01f);
  return low * fmaf(c, p, 0.5f);
}

// The normal tail itself: 1 + erf cancels for negative x.
template <bool kFast>
TRINE_DEV float gelu(float x) {
  return kFast ? fast_gelu(x) : times_gate(x, 0.5f * erfcf(-0.70710678f * x));
}

// The switch stands outside of the loops: one jump for all values.
template <bool kFast, int n>
TRINE_DEV void activate(float (&v)[n], Activation activation) {
  switch (activation) {
    case Activation::kNone:
      break;
    case Activation::kGelu:
#pragma unroll
      for (float& x : v) x = gelu<kFast>(x);
      break;
    case Activation::kGeluTanh:
#pragma unroll
      for (float& x : v) {
        x = times_gate(x, sigmoid<kFast>(1.59576912f * fmaf(0.044715f * x * x, x, x)));
      }
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
      for (float& x : v) x = sigmoid<kFast>(x);
      break;
    case Activation::kSilu:
#pragma unroll
      for (float& x : v) x = times_gate(x, sigmoid<kFast>(x));
      break;
    case Activation::kQuickGelu:
#pragma unroll
      for (float& x : v) x = times_gate(x, sigmoid<kFast>(1.702f * x));
      break;
  }
}

}  // namespace trine::cuda
