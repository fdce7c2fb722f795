// SPDX-License-Identifier: Apache-2.0
// linear on weights of 8 and 4 bits: every tile against a sum in double, and bit for bit against
// each other. GGUF's reader says what q4 means.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpp/kernel_testing.h"
#include "kernels/launch.h"
#include "simt/metal_registry.h"
#include "weights/convert.h"

namespace trine::test {
namespace {

using metal::LinearTile;
using metal::LinearWeights;

// Rows as the kernel reads them, and their values.
struct Rows {
  int64_t row_bytes;
  std::vector<unsigned char> memory;
  std::vector<double> values;
  size_t start;  // of the first row, at a multiple of 16

  Rows(LinearWeights weights, int64_t n, int64_t k, Random& random)
      : row_bytes(metal::linear_row_bytes(weights, k)),
        memory(size_t(n * row_bytes) + 16, 0xff),
        values(size_t(n * k)),
        start((16 - reinterpret_cast<uintptr_t>(memory.data()) % 16) % 16) {
    for (int64_t i = 0; i < n; ++i) {
      unsigned char* const row = memory.data() + start + i * row_bytes;
      for (int64_t b = 0; b < row_bytes; ++b) row[b] = static_cast<unsigned char>(random.bits());
      if (weights == LinearWeights::kI8) {
        const float scale = random.uniform(0.001f, 0.01f);
        std::memcpy(row + row_bytes - 4, &scale, 4);
        for (int64_t j = 0; j < k; ++j)
          values[size_t(i * k + j)] = double(static_cast<int8_t>(row[j])) * double(scale);
        continue;
      }
      const int64_t block_bytes = weights == LinearWeights::kQ4 ? 20 : 36;
      for (int64_t j = 0; j < k; j += 32) {
        unsigned char* const block = row + j / 32 * block_bytes;
        const uint16_t scale = f32_to_f16(random.uniform(0.001f, 0.1f));
        const uint16_t minimum = f32_to_f16(random.uniform(-1, 1));
        std::memcpy(block, &scale, 2);
        std::memcpy(block + 2, &minimum, 2);
        float dense[32];
        if (weights == LinearWeights::kQ4) {
          to_f32(DType::kQ4_1, reinterpret_cast<const std::byte*>(block), dense, 32);
        } else {
          for (int64_t c = 0; c < 32; ++c)
            dense[c] = f16_to_f32(scale) * float(block[4 + c]) + f16_to_f32(minimum);
        }
        for (int64_t c = 0; c < 32 && j + c < k; ++c)
          values[size_t(i * k + j + c)] = double(dense[c]);
      }
    }
  }
};

void check(LinearWeights weights, int64_t m, int64_t n, int64_t k) {
  Random random(uint64_t(m * 7 + n));
  Rows w(weights, n, k, random);
  Matrix<float> x(m, k, k + 4), y(m, n, n + 4), first(m, n, n + 4);
  x.fill(random);
  metal::LinearArgs args = {};
  args.x = metal::matrix(0, x.ld(), DType::kF32);
  args.y = metal::matrix(0, y.ld(), DType::kF32);
  args.ldw = int32_t(w.row_bytes);
  args.m = int32_t(m), args.n = int32_t(n), args.k = int32_t(k);
  metal::linear_chunks(args);
  for (const LinearTile tile : {LinearTile::k8x16, LinearTile::k32x32, LinearTile::k64x64}) {
    y.fill(std::numeric_limits<float>::quiet_NaN());
    const metal::Launch launch = metal::linear_launch(tile, args, weights);
    const simt::MetalBinding bindings[] = {{x.data(), 0}, {w.memory.data() + w.start, 0},
                                           {x.data(), 0}, {x.data(), 0},
                                           {y.data(), 0}, {&args, sizeof args}};
    simt::run_metal_kernel(*simt::find_metal_kernel(metal::name_of(launch.kernel).name), bindings,
                           {launch.threadgroups[0], launch.threadgroups[1]}, launch.threads);
    CHECK(y.intact());
    if (tile == LinearTile::k8x16) {
      first.copy_from(y);
    } else {
      CHECK(identical(first, y));
      continue;
    }
    Matrix<float> want(m, n);
    std::vector<double> magnitudes(size_t(m * n), 0.0);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t c = 0; c < k; ++c) {
          const double product = double(x.at(i, c)) * w.values[size_t(j * k + c)];
          sum += product;
          magnitudes[size_t(i * n + j)] += std::fabs(product);
        }
        want.at(i, j) = float(sum);
      }
    }
    // A weight is rounded once, products and sums as in tests/gpu/test_linear.cc.
    const double rounding = gamma(std::min<int64_t>(k, 256) + (k + 255) / 256 + 3);
    CHECK_CLOSE(cat("linear ", int(weights), ", ", m, " x ", n, " x ", k), y, want,
                [&](int64_t i, int64_t j) {
                  return magnitudes[size_t(i * n + j)] * rounding +
                         std::fabs(double(want.at(i, j))) * kUnit;
                });
  }
}

TEST(linear_on_few_bits) {
  for (const LinearWeights weights : {LinearWeights::kI8, LinearWeights::kQ4, LinearWeights::kQ8}) {
    check(weights, 1, 20, 64);
    check(weights, 3, 17, 50);
    check(weights, 33, 40, 290);
    check(weights, 9, 5, 1030);
  }
}

}  // namespace
}  // namespace trine::test
