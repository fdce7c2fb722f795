// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "exec/int8.h"
#include "ref/ref.h"
#include "weights/convert.h"
#include "weights/groups.h"

namespace trine::ref {
namespace {

// The epilogue of y[i][j].
void finish(const LinearArgs& args, int64_t i, int64_t j, double sum) noexcept {
  if (args.bias != nullptr) sum += double{args.bias[j]};
  double y = activate(sum, args.activation);
  if (args.residual != nullptr) y += double{args.residual[i * args.ldr + j]};
  args.y[i * args.ldy + j] = static_cast<float>(y);
}

// `widen` makes a double of an element of w, `narrow` of one of x.
template <class Weight, class Widen, class Narrow>
void multiply(const LinearArgs& args, const Widen& widen, const Narrow& narrow) noexcept {
  for (int64_t i = 0; i < args.m; ++i) {
    const float* x = args.x + i * args.ldx;
    for (int64_t j = 0; j < args.n; ++j) {
      const Weight* w = static_cast<const Weight*>(args.w) + j * args.k;
      double sum = 0.0;
      for (int64_t k = 0; k < args.k; ++k) sum += narrow(x[k]) * widen(w[k]);
      finish(args, i, j, sum);
    }
  }
}

// Up to 32 numbers as integers times a float; none where one of them is not finite.
void round_group(const float* x, int64_t n, double* rounded) noexcept {
  float most = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    most = std::max(most, std::fabs(x[i]));
    finite = finite && std::isfinite(x[i]);
  }
  const float scale = most / 127.0f, inverse = 127.0f / most;
  for (int64_t i = 0; i < n; ++i) {
    rounded[i] = most < 0x1p-100f ? 0.0 : double{std::nearbyint(x[i] * inverse)} * double{scale};
    if (!finite) rounded[i] = NAN;
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
    int8::Largest largest;
    for (int64_t k = 0; k < args.k; ++k) largest.add(std::fabs(x[k]));
    const int8::Scale scale =
        int8::scale_of(int8::largest(x, args.k, 0.0f), largest.most[int8::kOutliers]);
    for (int64_t j = 0; j < args.n; ++j) {
      const int8_t* w = static_cast<const int8_t*>(args.w) + j * stride;
      int64_t sum = 0;
      for (int64_t k = 0; k < args.k; ++k) sum += int8::quantised(x[k], scale.inverse) * w[k];
      float w_scale;
      std::memcpy(&w_scale, w + stride - 4, sizeof w_scale);
      finish(args, i, j, static_cast<double>(sum) * double{w_scale} * double{scale.scale});
    }
  }
}

void linear_groups(const LinearArgs& args) noexcept {
  std::vector<double> x(static_cast<size_t>(args.k));
  for (int64_t i = 0; i < args.m; ++i) {
    for (int64_t k = 0; k < args.k; k += kGroup)
      round_group(args.x + i * args.ldx + k, std::min(kGroup, args.k - k), x.data() + k);
    for (int64_t j = 0; j < args.n; ++j) {
      const Group* const w = static_cast<const Group*>(args.w) + j * groups_of(args.k);
      double sum = 0.0;
      for (int64_t k = 0; k < args.k; ++k) {
        const Group& group = w[k / kGroup];
        const int64_t half = k % kGroup / (kGroup / 2);
        const double scale = f16_to_f32(group.scale[half]), min = f16_to_f32(group.min[half]);
        sum += x[static_cast<size_t>(k)] * (scale * group.q[k % kGroup] + min);
      }
      finish(args, i, j, sum);
    }
  }
}

}  // namespace trine::ref
