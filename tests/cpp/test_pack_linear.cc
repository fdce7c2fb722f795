// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstring>
#include <utility>

#include "pack_plainly.h"

namespace trine::test {

using cpu::kPanel;

TEST(pack_linear_lays_out_panels) {
  Random random(13);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const int64_t size = static_cast<int64_t>(size_of(dtype));
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1},
                               {16, 4},
                               {17, 5},
                               {40, 64},
                               {33, 67},
                               {5, 200},
                               {64, 130},
                               {3, 300}}) {
      for (const int64_t offset : {0, 1, 2, 3}) {
        std::vector<std::byte> source(static_cast<size_t>(n * k * size + offset));
        for (std::byte& b : source) b = std::byte(random.below(256));
        const std::byte* const start = source.data() + offset;
        Matrix<float> w(n, k), want(1, cpu::packed_floats(n, k));
        Matrix<uint16_t> want_bf16(1, cpu::packed_bf16(n, k));
        to_f32(dtype, start, w.data(), static_cast<size_t>(n * k));
        pack_plainly(w, want.data());
        pack_plainly(w, want_bf16.data());
        for (const int threads : {1, 3}) {
          cpu::ThreadPool pool(threads);
          Matrix<float> packed(1, cpu::packed_floats(n, k));
          cpu::pack_linear(start, dtype, n, k, packed.data(), pool);
          CHECK(identical(packed, want));  // bits, for random bytes hold NaN too
          CHECK(packed.intact());
          Matrix<uint16_t> halves(1, cpu::packed_bf16(n, k));
          cpu::pack_linear_bf16(start, dtype, n, k, halves.data(), pool);
          CHECK_EQ(std::memcmp(halves.data(), want_bf16.data(), size_t(halves.cols()) * 2), 0);
          CHECK(halves.intact());
        }
      }
    }
  }
  CHECK_EQ(cpu::packed_floats(17, 5), 160);
  CHECK_EQ(cpu::packed_bf16(17, 33), 32 * 64);
}

// What is bf16 in the checkpoint is the same in the panels.
TEST(pack_linear_bf16_keeps_bf16) {
  Random random(16);
  constexpr int64_t kRows = 32, kDepth = 64;
  std::vector<uint16_t> source;
  while (source.size() < size_t{kRows * kDepth}) {
    const auto half = static_cast<uint16_t>(random.bits() >> 16);
    if (!std::isnan(bf16_to_f32(half))) source.push_back(half);
  }
  cpu::ThreadPool pool(1);
  Matrix<uint16_t> panels(1, kRows * kDepth);
  cpu::pack_linear_bf16(source.data(), DType::kBF16, kRows, kDepth, panels.data(), pool);
  for (int64_t j = 0; j < kRows; ++j) {
    for (int64_t i = 0; i < kDepth; ++i) {
      const int64_t at = (j / kPanel * kDepth / 2 + i / 2) * 2 * kPanel + j % kPanel * 2 + i % 2;
      CHECK_EQ(panels.data()[at], source[static_cast<size_t>(j * kDepth + i)]);
    }
  }
}

}  // namespace trine::test
