// SPDX-License-Identifier: Apache-2.0
// linear on weights of 8 and 4 bits (csrc/gpu/quantised.h): every tile against the reference, and
// bit for bit against each other; in int8 against what the CPU computes, bit for bit.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

// First, since CUDA's words are macros on the emulator.
#include "gpu/buffers.h"

#include "cuda/kernels/linear.h"
#include "exec/int8.h"
#include "gpu/quantised_weights.h"
#include "ref/ref.h"

namespace trine::test {
namespace {

using cuda::LinearTile;

// As the CPU rounds: the bits of every instruction set.
void expect_int8(const QuantisedWeights& w, const LinearArgs& a) {
  const size_t stride = size_t(int8::row_bytes(a.k));
  for (int64_t i = 0; i < a.m; ++i) {
    const float* const x = a.x + i * a.ldx;
    const int8::Scale scale = scale_of_token(x, a.k);
    for (int64_t j = 0; j < a.n; ++j) {
      const uint8_t* const row = w.rows.data() + size_t(j) * stride;
      int64_t sum = 0;
      for (int64_t k = 0; k < a.k; ++k)
        sum += int8::quantised(x[k], scale.inverse) * static_cast<int8_t>(row[k]);
      float w_scale;
      std::memcpy(&w_scale, row + stride - 4, 4);
      volatile float y = float(sum) * w_scale;  // each step rounds
      y = y * scale.scale;
      if (a.bias != nullptr) y = y + a.bias[j];
      if (a.residual != nullptr) y = y + a.residual[i * a.ldr + j];
      a.y[i * a.ldy + j] = y;
    }
  }
}

struct Case {
  int64_t m, n, k;
  bool bias = false, residual = false;
  bool large = false;  // int8: integers of x and w from 64 on
};

void make_large(QuantisedWeights& w) {
  const int64_t stride = int8::row_bytes(w.k);
  for (int64_t i = 0; i < w.n; ++i) {
    for (int64_t k = 0; k < w.k; ++k) {
      uint8_t& q = w.packed[size_t(i * w.ldw + k)];
      q = w.rows[size_t(i * stride + k)] = uint8_t(64 + q % 64);
    }
  }
}

void check(DType form, const Case& c) {
  Random random(uint64_t(c.m * 7 + c.n));
  Matrix<float> x(c.m, c.k), residual(c.m, c.n), want(c.m, c.n), exact(c.m, c.n);
  x.fill(random, c.large ? 0.5f : -1.0f), residual.fill(random);
  make_outliers(x);
  if (c.m > 8) {  // rows that are nothing, next to nothing, and not finite
    for (int64_t k = 0; k < c.k; ++k) x.at(1, k) = 0.0f, x.at(2, k) *= 0x1p-110f;
    x.at(4, c.k - 1) = std::numeric_limits<float>::infinity();
    x.at(5, 3) = std::numeric_limits<float>::quiet_NaN();
  }
  QuantisedWeights weights(form, c.n, c.k, random);
  if (c.large) make_large(weights);
  std::vector<float> bias(size_t(c.n));
  for (float& b : bias) b = random.uniform(-1, 1);
  LinearArgs ref = {x.data(),
                    x.ld(),
                    weights.rows.data(),
                    c.bias ? bias.data() : nullptr,
                    c.residual ? residual.data() : nullptr,
                    residual.ld(),
                    want.data(),
                    want.ld(),
                    c.m,
                    c.n,
                    c.k,
                    Activation::kNone};
  const std::string name =
      cat("linear of ", trine::name_of(form), ", ", c.m, " x ", c.n, " x ", c.k);
  DeviceMatrix x_device(x, DType::kF32, 4), r_device(residual, DType::kF32);
  DeviceArray<uint8_t> w_device(weights.packed);
  DeviceArray<float> bias_device(bias, 1);
  Matrix<float> first(c.m, c.n), got(c.m, c.n);
  for (const LinearTile tile : {LinearTile::k16x8, LinearTile::k32x32, LinearTile::k64x64}) {
    got.fill(std::numeric_limits<float>::quiet_NaN());
    DeviceMatrix y_device(got, DType::kF32, 4);
    cuda::LinearArgs args;
    args.x = x_device.view(), args.y = y_device.view();
    if (c.residual) args.residual = r_device.view();
    args.bias = c.bias ? bias_device.data() : nullptr;
    args.w = w_device.data(), args.w_dtype = form, args.ldw = weights.ldw;
    args.m = c.m, args.n = c.n, args.k = c.k;
    CHECK_CUDA(cuda::linear(tile, args, nullptr));
    wait_for_device();
    y_device.get(got);
    if (tile == LinearTile::k16x8) {
      first.copy_from(got);
    } else {
      CHECK(identical(first, got));
    }
  }
  const auto poisoned = [&](int64_t i) { return c.m > 8 && (i == 4 || i == 5); };
  if (form == DType::kI8) {
    ref.y = exact.data();
    expect_int8(weights, ref);
    ref.y = want.data();
    ref::linear_int8(ref);
  } else {
    ref::linear_groups(ref);
  }
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      if (form == DType::kI8 && !poisoned(i)) CHECK_EQ(got.at(i, j), exact.at(i, j));
      if (!poisoned(i)) continue;
      CHECK(std::isnan(got.at(i, j)));
      got.at(i, j) = want.at(i, j) = 0.0f;
    }
  }
  // x and w are rounded once more, as floats; products and sums as in tests/gpu/test_linear.cc.
  const double rounding = gamma(std::min<int64_t>(c.k, 256) + (c.k + 255) / 256 + 5);
  const double most = form == DType::kI8 ? 127 * 0.01 : form == kQ8Groups ? 26.5 : 2.5;
  CHECK_CLOSE(name, got, want, [&](int64_t i, int64_t) {
    const double size = std::max(1.0f, int8::largest(x.row(i), c.k, 0.0f));
    return (1.1 * double(c.k) * most * rounding + 4 * kUnit) * size;
  });
}

TEST(linear_on_few_bits) {
  for (const DType form : kForms) {
    check(form, {1, 20, 64, true});
    check(form, {3, 17, 50, false, true});
    check(form, {5, 9, 2});  // nothing but outliers
    check(form, {33, 40, 290, true, true});
    check(form, {9, 5, 1030});
  }
  // Sums above 2^24, which float doesn't hold.
  check(DType::kI8, {2, 20, 2080, false, false, true});
}

}  // namespace
}  // namespace trine::test
