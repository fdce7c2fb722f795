// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "exec/int8.h"
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

void linear_int8(const LinearArgs& args) noexcept {
  const int64_t stride = int8::row_bytes(args.k);
  for (int64_t i = 0; i < args.m; ++i) {
    const float* x = args.x + i * args.ldx;
    const int8::Scale scale = int8::scale_of(int8::largest(x, args.k, 0.0f));
    for (int64_t j = 0; j < args.n; ++j) {
      const int8_t* w = static_cast<const int8_t*>(args.w) + j * stride;
      int64_t sum = 0;
      for (int64_t k = 0; k < args.k; ++k) sum += int8::quantised(x[k], scale.inverse) * w[k];
      float w_scale;
      std::memcpy(&w_scale, w + stride - 4, sizeof w_scale);
      double y = static_cast<double>(sum) * double{w_scale} * double{scale.scale};
      if (args.bias != nullptr) y += double{args.bias[j]};
      y = activate(y, args.activation);
      if (args.residual != nullptr) y += double{args.residual[i * args.ldr + j]};
      args.y[i * args.ldy + j] = static_cast<float>(y);
    }
  }
}

}  // namespace trine::ref
