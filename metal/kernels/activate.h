// SPDX-License-Identifier: Apache-2.0
// Activations in float, with the limits of ref/activation.cc: -infinity times a gate of 0 is 0. As
// cpu/kernels/math-inl.h has them, whose bounds are stated and tested there; MSL has no erf.
#pragma once

#include "kernels/args.h"
#include "kernels/dialect.h"

namespace trine {
namespace metal {

// From e^-|x|, so that the lower tail keeps its digits.
inline float sigmoid_of(float x) {
  const float e = exp(-fabs(x));
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

inline float times_gate(float x, float gate) { return gate == 0.0f ? 0.0f : x * gate; }

// x Phi(x) = max(x, 0) - |x| Phi(-|x|), Phi the normal distribution function, whose logarithm is a
// polynomial: 12 units in the last place + 1e-9, and 0 below -10. A NaN passes.
inline float gelu_of(float x) {
  if (x < -10.0f) return 0.0f;
  const float a = fabs(x) > 10.0f ? 10.0f : fabs(x);
  float t = 3.2038204e-07f;
  t = fma(t, a, -6.660087e-06f);
  t = fma(t, a, 5.7072564e-05f);
  t = fma(t, a, -0.00022579102f);
  t = fma(t, a, -9.459086e-05f);
  t = fma(t, a, 0.0070490544f);
  t = fma(t, a, -0.05250411f);
  t = fma(t, a, -0.45920196f);
  t = fma(t, a, -1.1511061f);
  const float tail = 0.5f * exp2(t * a);
  return fma(-a, tail, x < 0.0f ? 0.0f : x);
}

inline float activate_one(float x, int32_t activation) {
  switch (activation) {
    case kGelu:
      return gelu_of(x);
    case kGeluTanh:
      return times_gate(x, sigmoid_of(1.59576912f * fma(0.044715f * x * x, x, x)));
    case kRelu:
      return x < 0.0f ? 0.0f : x;
    case kTanh:
      return tanh(x);
    case kSigmoid:
      return sigmoid_of(x);
    case kSilu:
      return times_gate(x, sigmoid_of(x));
    case kQuickGelu:
      return times_gate(x, sigmoid_of(1.702f * x));
    default:
      return x;
  }
}

inline void activate4(thread float (&v)[4], int32_t activation) {
  for (int i = 0; i < 4; ++i) v[i] = activate_one(v[i], activation);
}

}  // namespace metal
}  // namespace trine
