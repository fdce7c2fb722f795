// SPDX-License-Identifier: Apache-2.0
// What the dialect says it does, on a GPU or on the emulator: run on both, this is what ties the
// emulator's tables of fragments to hardware.
#include <bit>
#include <cmath>
#include <cstring>

#include "cuda/probe_dialect.h"
#include "gpu/buffers.h"
#include "simt/fragments.h"

namespace trine::test {
namespace {

template <class T, class F>
T on_device(const T& value, F&& run) {
  DeviceArray<T> device({value});
  run(device.data());
  wait_for_device();
  return device.get()[0];
}

using WarpMma = void (*)(const uint32_t (&)[32][4], const uint32_t (&)[32][2], float (&)[32][4]);

// `next` gives a register of operands, from which `exact` says that all sums are.
template <class Next>
void check_mma(void (*probe)(cuda::MmaOperands*, bool), WarpMma expected, bool exact, Next next) {
  Random random(5);
  cuda::MmaOperands p;
  for (int l = 0; l < 32; ++l) {
    for (float& c : p.c[l]) c = exact ? float(random.below(256) - 128) : random.uniform(-1, 1);
    for (uint32_t& a : p.a[l]) a = next(random);
    for (uint32_t& b : p.b[l]) b = next(random);
  }
  cuda::MmaOperands want = p;
  expected(want.a, want.b, want.c);
  for (const bool by_shuffles : {false, true}) {
    const auto got = on_device(p, [&](cuda::MmaOperands* d) { probe(d, by_shuffles); });
    for (int l = 0; l < 32; ++l) {
      for (int i = 0; i < 4; ++i) {
        // Sixteen products of numbers below 1, and tensor cores cut off where float rounds.
        const float error = std::fabs(got.c[l][i] - want.c[l][i]);
        CHECK(exact ? error == 0 : error <= 17 * 0x1p-22f);
      }
    }
  }
}

TEST(dialect_mma) {
  const auto bf16_pair = [](float low, float high) {
    return uint32_t{simt::float_to_bf16(high)} << 16 | simt::float_to_bf16(low);
  };
  check_mma(cuda::probe_mma_bf16, simt::mma_m16n8k16_bf16, true,
            [&](Random& r) { return bf16_pair(float(r.below(64) - 32), float(r.below(64) - 32)); });
  check_mma(cuda::probe_mma_bf16, simt::mma_m16n8k16_bf16, false,
            [&](Random& r) { return bf16_pair(r.uniform(-1, 1), r.uniform(-1, 1)); });
  check_mma(cuda::probe_mma_tf32, simt::mma_m16n8k8_tf32, true,
            [](Random& r) { return std::bit_cast<uint32_t>(float(r.below(1024) - 512)); });
  check_mma(cuda::probe_mma_tf32, simt::mma_m16n8k8_tf32, false,
            [](Random& r) { return simt::float_to_tf32(r.uniform(-1, 1)); });
}

TEST(dialect_mma_of_bytes) {
  Random random(6);
  cuda::ByteMmaOperands p;
  for (int l = 0; l < 32; ++l) {
    for (int32_t& c : p.c[l]) c = static_cast<int32_t>(random.bits());
    for (uint32_t& a : p.a[l]) a = static_cast<uint32_t>(random.bits());
    for (uint32_t& b : p.b[l]) b = static_cast<uint32_t>(random.bits());
  }
  for (const bool unsigned_b : {false, true}) {
    cuda::ByteMmaOperands want = p;
    (unsigned_b ? simt::mma_m16n8k32_s8u8 : simt::mma_m16n8k32_s8s8)(want.a, want.b, want.c);
    for (const bool by_quarters : {false, true}) {
      const auto got = on_device(
          p, [&](cuda::ByteMmaOperands* d) { cuda::probe_mma_bytes(d, unsigned_b, by_quarters); });
      CHECK(std::memcmp(got.c, want.c, sizeof want.c) == 0);
    }
  }
}

TEST(dialect_ldmatrix) {
  cuda::LoadedMatrices p;
  for (int l = 0; l < 32; ++l) {
    for (int i = 0; i < 8; ++i) p.rows[l][i] = uint16_t(100 * l + i);
  }
  for (const int matrices : {1, 2, 4}) {
    for (const bool trans : {false, true}) {
      std::memset(p.registers, 0xcd, sizeof p.registers);
      cuda::LoadedMatrices want = p;
      simt::ldmatrix(want.rows, matrices, trans, want.registers);
      const auto got =
          on_device(p, [&](cuda::LoadedMatrices* d) { cuda::probe_ldmatrix(d, matrices, trans); });
      CHECK(std::memcmp(got.registers, want.registers, sizeof want.registers) == 0);
    }
  }
}

TEST(dialect_copies) {
  cuda::Copied p = {};
  for (uint32_t i = 0; i < 64; ++i) {
    for (uint32_t j = 0; j < 4; ++j) p.from[i][j] = 1000 * i + j + 1;
    p.valid[i] = i % 3 != 0;
  }
  const auto got = on_device(p, [](cuda::Copied* d) { cuda::probe_copies(d); });
  for (uint32_t i = 0; i < 64; ++i) {
    for (uint32_t j = 0; j < 4; ++j) {
      CHECK_EQ(got.to[i][j], i < 32 || p.valid[i] != 0 ? p.from[i][j] : 0u);
    }
  }
}

TEST(dialect_conversions) {
  std::vector<float> x = {0.0f,      -0.0f,     0x1.002p0f, 0x1.006p0f,  0x1.01p0f,
                          0x1.03p0f, INFINITY,  -INFINITY,  0x1.ffp127f, -0x1.fffffep127f,
                          0x1p-126f, 0x1p-140f, 1.0f,       NAN};
  Random random(9);
  for (int i = 0; i < 1000; ++i) x.push_back(random.uniform(-20, 20));
  const size_t n = x.size();
  DeviceArray<float> from(x), exp(std::vector<float>(n, 0)), exp2(std::vector<float>(n, 0)),
      tanh(std::vector<float>(n, 0));
  const std::vector<uint32_t> none(n, 0);
  DeviceArray<uint32_t> tf32(none), tf32_twin(none), pair(none), pair_twin(none);
  cuda::probe_conversions({from.data(), tf32.data(), tf32_twin.data(), pair.data(),
                           pair_twin.data(), exp.data(), exp2.data(), tanh.data(), int(n)});
  wait_for_device();
  const auto e = exp.get(), e2 = exp2.get(), t = tanh.get();
  const auto rounded = tf32.get(), rounded_twin = tf32_twin.get();
  const auto packed = pair.get(), packed_twin = pair_twin.get();
  for (size_t i = 0; i < n; ++i) {
    // Of tf32 only the upper 19 bits are defined.
    const uint32_t kept = ~0x1fffu;
    for (const uint32_t bits : {rounded[i], rounded_twin[i]}) {
      // Which NaN isn't said.
      CHECK(std::isnan(x[i]) ? std::isnan(std::bit_cast<float>(bits))
                             : (bits & kept) == (simt::float_to_tf32(x[i]) & kept));
    }
    const uint32_t want = uint32_t{simt::float_to_bf16(-x[i])} << 16 | simt::float_to_bf16(x[i]);
    CHECK_EQ(packed[i], want);
    CHECK_EQ(packed_twin[i], want);
    if (!(std::fabs(x[i]) <= 20)) continue;
    // CUDA's guide: 2 + |1.173 x| units of exp, 2 of exp2, a relative 2^-11 of tanh.
    const double v = double{x[i]}, unit = 0x1p-23;
    CHECK(std::fabs(e[i] - std::exp(v)) <= std::exp(v) * unit * (3 + 1.173 * std::fabs(v)));
    CHECK(std::fabs(e2[i] - std::exp2(v)) <= std::exp2(v) * unit * 3);
    CHECK(std::fabs(t[i] - std::tanh(v)) <= std::fabs(std::tanh(v)) * 0x1.1p-11 + 0x1p-126);
  }
}

TEST(dialect_warp_operations) {
  DeviceArray<int> device(std::vector<int>(7 * 32, -1));
  cuda::probe_warp(device.data());
  wait_for_device();
  const std::vector<int> out = device.get();
  uint32_t thirds = 0;
  for (int t = 0; t < 32; t += 3) thirds |= 1u << t;
  for (int t = 0; t < 32; ++t) {
    const size_t i = size_t(t);
    CHECK_EQ(out[i], t ^ 5);
    CHECK_EQ(out[32 + i], t % 8 + 3 < 8 ? t + 3 : t);
    CHECK_EQ(out[64 + i], t / 8 * 8 + 1);
    CHECK_EQ(uint32_t(out[96 + i]), thirds);
    CHECK_EQ(out[128 + i], 1);
    CHECK_EQ(out[160 + i], 61);
    CHECK_EQ(out[192 + i], t < 16 ? 3 : 20);
  }
}

}  // namespace
}  // namespace trine::test
