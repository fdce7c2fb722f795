// SPDX-License-Identifier: Apache-2.0
// linear on weights of integers, on a GPU or on the emulator with TRINE_SIMT: every tile bit for
// bit as the formula of gpu/quantised.h has it, whatever the number of rows; with each activation
// near the reference op.
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "exec/int8.h"
#include "gpu/buffers.h"
#include "gpu/quantised_weights.h"
#include "kernels/linear.h"
#include "ref/ref.h"

namespace trine::test {
namespace {

using cuda::LinearTile;

constexpr LinearTile kTiles[] = {LinearTile::k16x8, LinearTile::k16x32, LinearTile::k32x32,
                                 LinearTile::k64x64, LinearTile::k128x128};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Case {
  DType form;
  int64_t m, n, k;
  DType x = DType::kF32, y = DType::kF32;
  bool bias = true;
  std::optional<DType> residual = {};
  Activation activation = Activation::kNone;
  int64_t gap = 0;
  size_t misalign = 0;  // elements
};

std::string name_of(const Case& c, int tile) {
  return cat(trine::name_of(c.form), " tile ", tile, ", ", c.m, " x ", c.n, " x ", c.k,
             ", activation ", int(c.activation), ", gap ", c.gap);
}

// Rows of x as integers, with a scale a row or a group of 32.
struct Rounded {
  std::vector<int32_t> q;
  std::vector<float> scales;
};

Rounded rounded_row(DType form, const float* x, int64_t k) {
  Rounded row;
  const int64_t step = form == DType::kI8 ? k : kGroup;
  for (int64_t k0 = 0; k0 < k; k0 += step) {
    const int64_t n = std::min(step, k - k0);
    const int8::Scale scale =
        form == DType::kI8 ? scale_of_token(x, k) : int8::scale_of(int8::largest(x + k0, n, 0.0f));
    row.scales.push_back(scale.scale);
    for (int64_t i = 0; i < n; ++i) row.q.push_back(int8::quantised(x[k0 + i], scale.inverse));
  }
  return row;
}

struct Problem {
  Case c;
  Random random{3};
  Matrix<float> x, residual;
  QuantisedWeights w;
  std::vector<float> bias;
  DeviceMatrix x_device;
  DeviceArray<uint8_t> w_device;
  DeviceArray<float> bias_device;

  static Matrix<float>& filled(Matrix<float>& m, DType dtype, Random& random) {
    for (int64_t i = 0; i < m.rows(); ++i) {
      // Rows of all magnitudes, one of zeros.
      const float size = i == 2 ? 0.0f : std::ldexp(1.0f, int(random.below(40)) - 20);
      for (int64_t j = 0; j < m.cols(); ++j) m.at(i, j) = random.uniform(-size, size);
    }
    make_outliers(m);
    round_to(dtype, m);
    return m;
  }
  static std::vector<float> biases(int64_t n, Random& random) {
    std::vector<float> all(static_cast<size_t>(n));
    for (float& b : all) b = random.uniform(-1, 1);
    return all;
  }

  explicit Problem(const Case& c_)
      : c(c_),
        x(c.m, c.k),
        residual(c.m, c.n),
        w(c.form, c.n, c.k, random),
        bias(biases(c.n, random)),
        x_device(filled(x, c.x, random), c.x, c.gap, c.misalign),
        w_device(w.packed),
        bias_device(bias, c.misalign) {
    residual.fill(random);
    round_to(c.residual.value_or(DType::kF32), residual);
  }

  // Rows first .. first + m of y; false if the tile doesn't run.
  bool run(LinearTile tile, int64_t first, int64_t m, Matrix<float>& y) {
    Matrix<float> own(m, c.n), nothing(m, c.n);
    for (int64_t i = 0; i < m; ++i)
      std::memcpy(own.row(i), residual.row(first + i), size_t(c.n) * sizeof(float));
    nothing.fill(kNan);
    DeviceMatrix to(nothing, c.y, c.gap, c.misalign);
    DeviceMatrix residuals(own, c.residual.value_or(c.y), c.gap, c.misalign);
    const size_t bytes = size_t(cuda::linear_workspace(c.form, m, c.k));
    DeviceArray<uint8_t> workspace(std::vector<uint8_t>(bytes, 0xff));
    cuda::LinearArgs args;
    args.x = x_device.view();
    args.x.data = static_cast<uint8_t*>(args.x.data) + first * args.x.ld * int64_t(size_of(c.x));
    args.w = w_device.data(), args.ldw = w.ldw, args.w_dtype = c.form;
    args.bias = c.bias ? bias_device.data() : nullptr;
    if (c.residual) args.residual = residuals.view();
    args.y = to.view();
    args.m = m, args.n = c.n, args.k = c.k, args.activation = c.activation;
    args.workspace = workspace.data();
    if (!cuda::linear_runs(tile, args)) return false;
    CHECK_CUDA(cuda::linear(tile, args, nullptr));
    wait_for_device();
    to.get(y);
    workspace.get();  // looks at its guards
    return true;
  }

  // An element before the epilogue: integers are exact, and floats have one order.
  float sum(const Rounded& row, int64_t j) const {
    const float start = c.bias ? bias[size_t(j)] : 0.0f;
    if (c.form == DType::kI8) {
      const auto* const q = reinterpret_cast<const int8_t*>(w.packed.data() + j * w.ldw);
      int64_t total = 0;
      for (int64_t k = 0; k < c.k; ++k) total += row.q[size_t(k)] * q[k];
      float scale;
      std::memcpy(&scale, w.packed.data() + c.n * w.ldw + j * 4, 4);
      volatile float product = float(total) * scale;  // rounded before it is added to
      product = product * row.scales[0];
      return product + start;
    }
    // Chunks of at most 16 groups, of equal numbers of 128 of k.
    const int64_t stages = (c.k + 127) / 128, chunks = (stages + 3) / 4;
    const int64_t step = (stages + chunks - 1) / chunks * 4;
    const auto* const groups = reinterpret_cast<const Group*>(w.rows.data()) + j * groups_of(c.k);
    float total = start, chunk = 0.0f;
    for (int64_t g = 0; g < groups_of(c.k); ++g) {
      int32_t dots = 0, integers = 0;
      for (int64_t i = 0; i < kGroup && g * kGroup + i < c.k; ++i) {
        const int32_t q = row.q[size_t(g * kGroup + i)];
        dots += q * groups[g].q[i], integers += q;
      }
      const volatile float product = float(dots) * f16_to_f32(groups[g].scale[0]);
      const volatile float scaled = row.scales[size_t(g)] * float(integers);
      chunk = std::fma(product, row.scales[size_t(g)], chunk);
      chunk = std::fma(f16_to_f32(groups[g].min[0]), scaled, chunk);
      if ((g + 1) % step == 0 || g + 1 == groups_of(c.k)) total += chunk, chunk = 0.0f;
    }
    return total;
  }
};

bool same_bits(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// Without an activation: the bits that the formula has, from all tiles, for these rows alone.
void check_bits(const Case& c, const std::vector<std::pair<int64_t, int64_t>>& parts) {
  Problem problem(c);
  Matrix<float> want(c.m, c.n);
  for (int64_t i = 0; i < c.m; ++i) {
    const Rounded row = rounded_row(c.form, problem.x.row(i), c.k);
    for (int64_t j = 0; j < c.n; ++j) {
      want.at(i, j) = problem.sum(row, j);
      if (c.residual) want.at(i, j) += problem.residual.at(i, j);
    }
  }
  round_to(c.y, want);
  int ran = 0;
  for (const LinearTile tile : kTiles) {
    for (const auto& [first, m] : parts) {
      Matrix<float> y(m, c.n);
      if (!problem.run(tile, first, m, y)) continue;
      ++ran;
      int64_t wrong = 0;
      std::string where;
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < c.n; ++j) {
          if (same_bits(y.at(i, j), want.at(first + i, j))) continue;
          if (wrong++ == 0)
            where = cat(first + i, ", ", j, " is ", y.at(i, j), " for ", want.at(first + i, j));
        }
      }
      if (wrong > 0) {
        report_failure(__FILE__, __LINE__,
                       cat(name_of(c, int(tile)), ", rows from ", first, ": ", wrong,
                           " wrong, the first at ", where));
      }
    }
  }
  CHECK(ran >= 4);
}

}  // namespace

TEST(linear_int_bits) {
  for (const DType form : kForms) {
    check_bits({.form = form, .m = 1, .n = 8, .k = 64}, {{0, 1}});
    check_bits({.form = form, .m = 5, .n = 9, .k = 2}, {{0, 5}, {4, 1}});  // nothing but outliers
    check_bits({.form = form, .m = 3, .n = 5, .k = 7, .bias = false, .gap = 3, .misalign = 1},
               {{0, 3}});
    check_bits(
        {.form = form, .m = 70, .n = 40, .k = 200, .x = DType::kBF16, .residual = DType::kF32},
        {{0, 70}, {3, 17}, {5, 1}});
    check_bits({.form = form, .m = 18, .n = 33, .k = 1100, .y = DType::kBF16}, {{0, 18}, {17, 1}});
    // More chunks than the small tiles have groups of warps for.
    check_bits({.form = form, .m = 2, .n = 12, .k = 9000}, {{0, 2}, {1, 1}});
  }
}

#ifndef TRINE_SIMT
TEST(linear_int_bits_of_models) {
  for (const DType form : kForms) {
    check_bits({.form = form, .m = 300, .n = 768, .k = 768}, {{0, 300}, {20, 64}, {7, 1}, {1, 16}});
    check_bits({.form = form, .m = 130, .n = 576, .k = 1536}, {{0, 130}, {129, 1}});
    check_bits({.form = form, .m = 17, .n = 2048, .k = 8192}, {{0, 17}, {3, 4}});
  }
}
#endif

// Each epilogue once, beside the reference.
TEST(linear_int_activations) {
  constexpr int kActivations = static_cast<int>(Activation::kQuickGelu) + 1;
  for (const DType form : kForms) {
    for (int a = 0; a < kActivations; ++a) {
      const Case c = {.form = form,
                      .m = 17,
                      .n = 36,
                      .k = 96,
                      .residual = DType::kF32,
                      .activation = static_cast<Activation>(a)};
      Problem problem(c);
      Matrix<float> want(c.m, c.n), sums(c.m, c.n);
      trine::LinearArgs ref = {problem.x.data(),
                               problem.x.ld(),
                               problem.w.rows.data(),
                               problem.bias.data(),
                               problem.residual.data(),
                               problem.residual.ld(),
                               want.data(),
                               want.ld(),
                               c.m,
                               c.n,
                               c.k,
                               c.activation};
      (form == DType::kI8 ? ref::linear_int8 : ref::linear_groups)(ref);
      ref.y = sums.data(), ref.activation = Activation::kNone, ref.residual = nullptr;
      (form == DType::kI8 ? ref::linear_int8 : ref::linear_groups)(ref);
      for (const LinearTile tile : {LinearTile::k16x32, LinearTile::k64x64}) {
        Matrix<float> y(c.m, c.n);
        CHECK(problem.run(tile, 0, c.m, y));
        // A sum of groups takes 3 roundings for each of 3, of at most 127 * 15 (255) * 0.1 + 1
        // times the row's numbers; activations err by 2^-19, as beside bf16.
        CHECK_CLOSE(name_of(c, int(tile)), y, want, [&](int64_t i, int64_t j) {
          double magnitude = 0.0;
          for (int64_t k = 0; k < c.k; ++k) magnitude += std::fabs(double(problem.x.at(i, k)));
          const double most = form == DType::kI8 ? 127 * 0.01 : form == kQ8Groups ? 26.5 : 2.6;
          const double sum = std::fabs(double(sums.at(i, j)));
          return 1.2 * gamma(12) * (magnitude * most + sum + 1) +
                 (c.activation == Activation::kNone ? 0.0 : 0x1p-19 * (sum + 1)) +
                 kUnit * (std::fabs(double(want.at(i, j))) + 1);
        });
      }
    }
  }
}

// NaN and infinity stay in their rows; what is too small for a scale is zero.
TEST(linear_int_keeps_nan_in_its_row) {
  for (const DType form : kForms) {
    const Case c = {.form = form, .m = 5, .n = 9, .k = 70};
    Problem problem(c);
    problem.x.at(1, 69) = kNan;
    problem.x.at(3, 2) = -std::numeric_limits<float>::infinity();
    for (int64_t k = 0; k < c.k; ++k) problem.x.at(4, k) = 0x1p-120f;
    problem.x_device.~DeviceMatrix();
    new (&problem.x_device) DeviceMatrix(problem.x, c.x);
    for (const LinearTile tile : {LinearTile::k16x8, LinearTile::k64x64}) {
      Matrix<float> y(c.m, c.n);
      CHECK(problem.run(tile, 0, c.m, y));
      for (int64_t i = 0; i < c.m; ++i) {
        for (int64_t j = 0; j < c.n; ++j) {
          CHECK_EQ(std::isnan(y.at(i, j)), i == 1 || i == 3);
          if (i == 4) CHECK_EQ(y.at(i, j), problem.bias[size_t(j)]);
        }
      }
    }
  }
}

TEST(linear_int_chooses_a_tile_that_runs) {
  for (const DType form : kForms) {
    for (const int64_t m : {1, 16, 17, 64, 300, 5000}) {
      for (const int64_t k : {8, 7, 768, 8192, 60000}) {
        cuda::LinearArgs args;
        args.x = {nullptr, k, DType::kF32}, args.y = {nullptr, 768, DType::kF32};
        args.w_dtype = form, args.ldw = gpu::quantised_ldw(form, k);
        args.m = m, args.n = 768, args.k = k;
        CHECK(cuda::linear_runs(cuda::linear_tile(args), args));
      }
    }
  }
}

}  // namespace trine::test
