// SPDX-License-Identifier: Apache-2.0
// What lies above the kernels on a CPU: who computes which rows, and on which instruction set.

#include "cpu/ops.h"
#include "environment.h"
#include "kernel_testing.h"

namespace trine::test {

// The drivers give every row the same bits for any number of threads.
TEST(rows_do_not_depend_on_threads) {
  constexpr int64_t kRows = 700, kCols = 96;
  Random random(9);
  Matrix<float> x(kRows, kCols), weight(1, kCols);
  x.fill(random);
  weight.fill(random);
  Matrix<int32_t> ids(1, kRows), offsets(1, 101);
  for (int64_t i = 0; i < kRows; ++i) ids.at(0, i) = int32_t(random.below(kRows));
  for (int64_t i = 0; i <= 100; ++i) offsets.at(0, i) = int32_t(7 * i);
  for (const cpu::KernelTable* table : kernel_tables()) {
    for (const int threads : {1, 2, 3}) {
      cpu::ThreadPool pool(threads);
      const cpu::Workers workers = {table, &pool, nullptr, 0};
      Matrix<float> want(kRows, kCols), y(kRows, kCols);

      const LayerNormArgs norm = {x.data(), kCols, weight.data(), nullptr, y.data(),
                                  kCols,    kRows, kCols,         1e-5f};
      cpu::layer_norm(norm, workers);
      LayerNormArgs norm_once = norm;
      norm_once.y = want.data();
      table->layer_norm(norm_once, 0, kRows);
      CHECK(identical(want, y));

      const ActivationArgs gelu = {x.data(), kCols, y.data(),         kCols,
                                   kRows,    kCols, Activation::kGelu};
      cpu::activation(gelu, workers);
      table->activation({x.data(), kCols, want.data(), kCols, kRows, kCols, Activation::kGelu}, 0,
                        kRows);
      CHECK(identical(want, y));

      cpu::add({x.data(), y.data(), kCols, kCols, y.data(), kCols, kRows, kCols}, workers);
      table->add({x.data(), want.data(), kCols, kCols, want.data(), kCols, kRows, kCols}, 0, kRows);
      CHECK(identical(want, y));

      cpu::l2_normalize({x.data(), kCols, y.data(), kCols, kRows, kCols, 1e-12f}, workers);
      table->l2_normalize({x.data(), kCols, want.data(), kCols, kRows, kCols, 1e-12f}, 0, kRows);
      CHECK(identical(want, y));

      const RmsNormArgs rms = {x.data(), kCols, weight.data(), y.data(),
                               kCols,    kRows, kCols,         1e-6f};
      cpu::rms_norm(rms, workers);
      RmsNormArgs rms_once = rms;
      rms_once.y = want.data();
      table->rms_norm(rms_once, 0, kRows);
      CHECK(identical(want, y));

      cpu::scale({x.data(), kCols, y.data(), kCols, kRows, kCols, 0.3f}, workers);
      table->scale({x.data(), kCols, want.data(), kCols, kRows, kCols, 0.3f}, 0, kRows);
      CHECK(identical(want, y));

      GatedArgs gated = {x.data(), x.data(),         kCols, kCols, y.data(), kCols, kRows,
                         kCols,    Activation::kSilu};
      cpu::gated(gated, workers);
      gated.y = want.data();
      table->gated(gated, 0, kRows);
      CHECK(identical(want, y));

      RopeArgs rope = {x.data(), kCols, x.data(), kCols, y.data(), kCols, kRows, 3, 32, 32};
      cpu::rope(rope, workers);
      rope.y = want.data();
      table->rope(rope, 0, kRows);
      CHECK(identical(want, y));

      RotaryArgs rotary = {ids.data(), weight.data(),         nullptr, y.data(), kCols, kRows,
                           kCols / 2,  {offsets.data(), 100}, nullptr, 1.0f,     3,     10000.0f,
                           2.0f};
      cpu::rotary(rotary, workers);
      rotary.y = want.data();
      table->rotary(rotary, 0, kRows);
      CHECK(identical(want, y));

      EmbeddingArgs embed = {};
      embed.ids[0] = ids.data(), embed.tables[0] = x.data(), embed.dtypes[0] = DType::kF32,
      embed.count = 1;
      embed.y = y.data(), embed.ldy = kCols, embed.rows = kRows, embed.cols = kCols;
      cpu::embedding(embed, workers);
      embed.y = want.data();
      table->embedding(embed, 0, kRows);
      CHECK(identical(want, y));

      PoolArgs mean = {
          x.data(), kCols, nullptr, y.data(), kCols, kCols, {offsets.data(), 100}, PoolMode::kMean};
      cpu::pool(mean, workers);
      mean.y = want.data();
      table->pool(mean, 0, 100);
      CHECK(identical(want, y));
    }
  }
}

TEST(trine_isa_chooses) {
  for (const cpu::KernelTable* table : kernel_tables()) {
    const Environment isa("TRINE_ISA", table->name);
    CHECK(&cpu::select_kernel_table() == table);
  }
  {
    const Environment isa("TRINE_ISA", "avx1024");
    CHECK_THROWS_WITH(cpu::select_kernel_table(), DeviceError,
                      "TRINE_ISA='avx1024' is not available: this machine has");
  }
  const Environment isa("TRINE_ISA", "");
  CHECK(cpu::kernel_table(cpu::select_kernel_table().isa) != nullptr);
}

}  // namespace trine::test
