// SPDX-License-Identifier: Apache-2.0
// What the emulator gives to Metal's kernels: the simdgroup operations against the specification,
// the registry against launch.h's list, and what a dispatch refuses.
#include <algorithm>
#include <set>

#include "cpp/check.h"
#include "kernels/launch.h"
#include "simt/metal_registry.h"

namespace trine::simt {
namespace {

void run(const char* name, std::vector<MetalBinding> bindings, Index3 groups, Index3 threads) {
  run_metal_kernel(*find_metal_kernel(name), bindings, groups, threads);
}

TEST(simdgroup_matrices) {
  alignas(16) float a[128], b[128];
  for (int i = 0; i < 128; ++i) {
    a[i] = float(i * 7 % 13 - 6);
    b[i] = float(i * 5 % 11 - 5);
  }
  for (int how = 0; how < 4; ++how) {
    alignas(16) float c[80];
    std::fill(c, c + 80, -1.0f);
    run("matrices", {{a, sizeof a}, {b, sizeof b}, {c, sizeof c}, {&how, sizeof how}}, 1, 32);
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < 8; ++j) {
        float want = 0.5f;
        for (int k = 0; k < 8; ++k) {
          const float left = how == 1   ? a[k * 11 + i]
                             : how == 2 ? a[(i + 1) * 11 + k + 1]
                                        : a[i * 11 + k];
          want += left * b[k * 9 + j];
        }
        CHECK_EQ(c[how == 3 ? j * 10 + i : i * 10 + j], want);
      }
      CHECK_EQ(c[i * 10 + 8], -1.0f);  // between rows
    }
  }
}

TEST(simdgroup_shuffles) {
  for_each_schedule([](Schedule) {
    alignas(16) int y[64];
    run("lanes", {{y, sizeof y}}, 1, 64);
    for (int i = 0; i < 64; ++i) CHECK_EQ(y[i], (i / 32 * 32 + (i + 1) % 32) * 100 + (i % 32 ^ 5));
  });
}

TEST(every_kernel_of_the_list_is_there) {
  std::set<std::string_view> listed = {"matrices", "lanes", "too_much", "orders_nothing",
                                       "own_addresses"};
  for (const metal::KernelName& kernel : metal::kKernelNames) {
    CHECK(find_metal_kernel(kernel.name) != nullptr);
    listed.insert(kernel.name);
  }
  const std::vector<std::string_view> all = metal_kernels();
  CHECK(std::set<std::string_view>(all.begin(), all.end()) == listed);
  CHECK(find_metal_kernel("linear") == nullptr);
}

TEST(dispatches_that_are_refused) {
  alignas(16) float y[1024] = {};
  const std::vector<MetalBinding> bound = {{y, sizeof y}};
  CHECK_THROWS_WITH(run("lanes", {}, 1, 32), Error, "0 of 1 bindings");
  CHECK_THROWS_WITH(run("lanes", {{nullptr, 0}}, 1, 32), Error, "nothing is bound at 0");
  CHECK_THROWS_WITH(run("lanes", bound, 1, 48), Error, "whole simdgroups");
  CHECK_THROWS_WITH(run("lanes", bound, 1, 1056), Error, "block of (1056, 1, 1)");
  CHECK_THROWS_WITH(run("lanes", {{y + 1, 4}}, 1, 32), Error, "misaligned");
  CHECK_THROWS_WITH(run("too_much", bound, 1, 32), Error, "no room in shared memory for memory");
  CHECK_THROWS_WITH(run("orders_nothing", bound, 1, 32), Error, "orders no threadgroup memory");
  CHECK_THROWS_WITH(run("own_addresses", bound, 1, 32), Error, "different addresses");
  metal::PoolArgs args = {};
  CHECK_THROWS_WITH(
      run("pool", {bound[0], bound[0], bound[0], bound[0], {&args, sizeof args - 1}}, 1, 256),
      Error, "binding 4 is short");
}

// What the host asks launch.h for.
TEST(launches) {
  metal::LinearArgs l = {};
  l.m = 1, l.n = 768, l.k = 3072;
  metal::linear_chunks(l);
  CHECK_EQ(l.chunk, 256);
  CHECK_EQ(l.chunks, 12);
  metal::Launch launch = metal::linear_launch(l, DType::kBF16);
  CHECK_EQ(std::string_view(metal::name_of(launch.kernel).name), "linear_bf16_8x16");
  CHECK_EQ(launch.threadgroups[1], 48u);
  CHECK_EQ(launch.threads, 128u);
  l.k = 288;  // equal chunks
  metal::linear_chunks(l);
  CHECK_EQ(l.chunk, 160);
  l.m = 1000;
  launch = metal::linear_launch(l, DType::kF16);
  CHECK_EQ(std::string_view(metal::name_of(launch.kernel).name), "linear_f16_64x64");
  l.m = 0;
  CHECK(metal::linear_launch(l, DType::kF32).empty());

  metal::AttentionArgs a = {};
  a.sequences = 3, a.heads = 32, a.kv_heads = 8, a.head_dim = 128;
  metal::AttentionBatch batch = {.max_length = 40, .max_keys = 40};
  metal::AttentionLaunches all = metal::attention_launches(a, DType::kF16, batch);
  CHECK_EQ(all.count, 1);
  CHECK_EQ(std::string_view(metal::name_of(all.launches[0].launch.kernel).name),
           "attention_f16_d128_many");
  CHECK_EQ(all.launches[0].launch.threadgroups[1], 5u);  // 40 x 4 rows by 32
  CHECK_EQ(metal::attention_workspace(a, batch), 0);
  a.pages.cached = 1;
  batch = {.max_length = 1, .max_keys = 600, .all_cached = true};
  all = metal::attention_launches(a, DType::kBF16, batch);
  CHECK_EQ(all.count, 2);
  CHECK_EQ(all.launches[0].launch.threadgroups[0], 24u);  // 8 key heads in 3 chunks
  CHECK_EQ(std::string_view(metal::name_of(all.launches[1].launch.kernel).name), "attention_join");
  CHECK_EQ(metal::attention_workspace(a, batch), 3 * 8 * 4 * 3 * 130 * 4);
  batch.max_length = 50;
  CHECK_EQ(metal::attention_launches(a, DType::kBF16, batch).count, 3);
}

}  // namespace
}  // namespace trine::simt
