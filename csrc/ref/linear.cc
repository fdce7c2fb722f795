// SPDX-License-Identifier: Apache-2.0
#include "ref/ref.h"
#include "weights/convert.h"

namespace trine::ref {
namespace {

// `widen` makes a double of an element of w, `narrow` of one of x.
template <class Weight, class Widen, class Narrow>
void multiply(const LinearArgs& args, const Widen& widen, const Narrow& narrow) noexcept {
  for (int64_t i = 0; i < args.m; ++i) {
    const float* x = args.x + i * args.ldx;
    for (int64_t j = 0; j < args.n; ++j) {
      const Weight* w = static_cast<const Weight*>(args.w) + j * args.k;
      double sum = 0.0;
      for (int64_t k = 0; k < args.k; ++k) sum += narrow(x[k]) * widen(w[k]);
      if (args.bias != nullptr) sum += double{args.bias[j]};
      double y = activate(sum, args.activation);
      if (args.residual != nullptr) y += double{args.residual[i * args.ldr + j]};
      args.y[i * args.ldy + j] = static_cast<float>(y);
    }
  }
}

}  // namespace

void linear(const LinearArgs& args) noexcept {
  const auto same = [](float value) { return double{value}; };
  multiply<float>(args, same, same);
}

void linear_bf16(const LinearArgs& args) noexcept {
  multiply<uint16_t>(
      args, [](uint16_t w) { return double{bf16_to_f32(w)}; },
      [](float x) { return double{bf16_to_f32(f32_to_bf16(x))}; });
}

}  // namespace trine::ref
