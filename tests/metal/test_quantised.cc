// SPDX-License-Identifier: Apache-2.0
// linear and embedding on weights of 8 and 4 bits (csrc/gpu/quantised.h): every tile against the
// reference, and bit for bit against each other; in int8 against what the CPU computes, bit for
// bit.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

// First, since CUDA's words are macros on the emulator.
#include "gpu/buffers.h"

#include "cuda/kernels/linear.h"
#include "cuda/kernels/rows.h"
#include "exec/int8.h"
#include "gpu/quantised.h"
#include "ref/ref.h"
#include "weights/groups.h"

namespace trine::test {
namespace {

using cuda::LinearTile;

template <class T>
void put(std::vector<uint8_t>& to, size_t at, const T* from, size_t count = 1) {
  std::memcpy(to.data() + at, from, count * sizeof(T));
}

// [n, k] as the kernels and as the reference have it.
struct Weights {
  DType form;
  std::vector<uint8_t> packed, rows;

  Weights(DType form_, const Matrix<float>& w)
      : form(form_), packed(size_t(gpu::quantised_bytes(form, w.rows(), w.cols()))) {
    const size_t n = size_t(w.rows()), ldw = size_t(gpu::quantised_ldw(form, w.cols()));
    for (size_t i = 0; i < n; ++i) {
      form == DType::kI8 ? add_int8(w, i, n * ldw, ldw) : add_groups(w, i, n * ldw, ldw);
    }
  }

  void add_int8(const Matrix<float>& w, size_t i, size_t scales, size_t ldw) {
    const int64_t k = w.cols();
    const size_t stride = size_t(int8::row_bytes(k));
    const float* const row = w.row(int64_t(i));
    const int8::Scale scale = int8::scale_of(int8::largest(row, k, 0.0f));
    std::vector<int8_t> q(static_cast<size_t>(k));
    for (size_t j = 0; j < q.size(); ++j) q[j] = int8_t(int8::quantised(row[j], scale.inverse));
    put(packed, i * ldw, q.data(), q.size());
    put(packed, scales + i * 4, &scale.scale);
    rows.resize((i + 1) * stride);
    put(rows, i * stride, q.data(), q.size());
    put(rows, (i + 1) * stride - 4, &scale.scale);
  }

  void add_groups(const Matrix<float>& w, size_t i, size_t scales, size_t ldw) {
    const bool few = form == kInt4Groups;
    const size_t count = size_t(groups_of(w.cols())), bytes = few ? 16 : 32;
    rows.resize((i + 1) * count * sizeof(Group));
    for (size_t g = 0; g < count; ++g) {
      Group group;
      const int64_t k0 = int64_t(g) * kGroup;
      quantise_group(w.row(int64_t(i)) + k0, std::min(kGroup, w.cols() - k0), few ? 4 : 8, group);
      put(rows, (i * count + g) * sizeof(Group), &group);
      put(packed, scales + (i * count + g) * 4, &group.scale);
      put(packed, scales + (i * count + g) * 4 + 2, &group.min);
      for (size_t e = 0; e < bytes; ++e) {
        const unsigned high = few ? unsigned(group.q[e + 16]) << 4 : 0;
        packed[i * ldw + g * bytes + e] = uint8_t(group.q[e] | high);
      }
    }
  }
};

// As the CPU rounds: the bits of every instruction set.
void expect_int8(const Weights& w, const LinearArgs& a) {
  const size_t stride = size_t(int8::row_bytes(a.k));
  for (int64_t i = 0; i < a.m; ++i) {
    const float* const x = a.x + i * a.ldx;
    const int8::Scale scale = int8::scale_of(int8::largest(x, a.k, 0.0f));
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
  float least = -1.0f;  // of the numbers of x and w
};

void check(DType form, const Case& c) {
  Random random(uint64_t(c.m * 7 + c.n));
  Matrix<float> x(c.m, c.k), w(c.n, c.k), residual(c.m, c.n), want(c.m, c.n), exact(c.m, c.n);
  x.fill(random, c.least), w.fill(random, c.least), residual.fill(random);
  if (c.m > 8) {  // rows that are nothing, next to nothing, and not finite
    for (int64_t k = 0; k < c.k; ++k) x.at(1, k) = 0.0f, x.at(2, k) *= 0x1p-110f;
    x.at(4, c.k - 1) = std::numeric_limits<float>::infinity();
    x.at(5, 3) = std::numeric_limits<float>::quiet_NaN();
  }
  const Weights weights(form, w);
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
    args.w = w_device.data(), args.w_dtype = form, args.ldw = gpu::quantised_ldw(form, c.k);
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
  // Every number is 1 at most, and what it is rounded to little more.
  const double rounding = gamma(std::min<int64_t>(c.k, 256) + (c.k + 255) / 256 + 5);
  CHECK_CLOSE(name, got, want,
              [&](int64_t, int64_t) { return 1.1 * double(c.k) * rounding + 4 * kUnit; });
}

TEST(linear_on_few_bits) {
  for (const DType form : {DType::kI8, kInt4Groups, kQ8Groups}) {
    check(form, {1, 20, 64, true});
    check(form, {3, 17, 50, false, true});
    check(form, {33, 40, 290, true, true});
    check(form, {9, 5, 1030});
  }
  // Sums above 2^24, which float doesn't hold.
  check(DType::kI8, {2, 20, 2080, false, false, 0.5f});
}

TEST(embedding_of_few_bits) {
  for (const DType form : {DType::kI8, kInt4Groups, kQ8Groups}) {
    for (const int64_t cols : {64, 50}) {
      constexpr int64_t kRows = 11;
      Random random(3);
      Matrix<float> table(kRows, cols);
      table.fill(random);
      const Weights weights(form, table);
      const std::vector<int32_t> ids = {10, 0, 7, 7, 3};
      const auto m = int64_t(ids.size());
      Matrix<float> want(m, cols), got(m, cols);
      got.fill(std::numeric_limits<float>::quiet_NaN());
      EmbeddingArgs ref = {};
      ref.ids[0] = ids.data(), ref.tables[0] = weights.rows.data(), ref.dtypes[0] = form;
      ref.count = 1, ref.rows = m, ref.cols = cols, ref.y = want.data(), ref.ldy = cols;
      ref::embedding(ref);
      DeviceArray<uint8_t> table_device(weights.packed);
      DeviceArray<int32_t> ids_device(ids);
      DeviceMatrix y(got, DType::kF32, 1);
      cuda::EmbeddingArgs args = {};
      args.ids[0] = ids_device.data(), args.tables[0] = table_device.data();
      args.dtypes[0] = form, args.table_rows = kRows;
      args.count = 1, args.rows = m, args.cols = cols, args.y = y.view();
      CHECK_CUDA(cuda::embedding(args, nullptr));
      wait_for_device();
      y.get(got);
      CHECK(identical(got, want));
    }
  }
}

}  // namespace
}  // namespace trine::test
