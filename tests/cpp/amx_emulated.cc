// SPDX-License-Identifier: Apache-2.0
// The AMX kernel on emulated tiles: its blocking, packing and tails run on every machine. What this
// cannot show is that the real instructions do what the emulation says.
#include "amx_emulated.h"

#include "cpu/simd/vec_scalar.h"
#include "exec/int8.h"
#include "tiles_emulated.h"
#include "weights/convert.h"

namespace trine::cpu::amx_emulated {

using namespace scalar;
using namespace test;

#include "cpu/kernels/math-inl.h"

#include "cpu/kernels/linear-inl.h"
#include "cpu/kernels/linear_int8-inl.h"

#include "cpu/kernels/linear_amx-inl.h"

namespace {

struct PairFormat {
  static constexpr bool kQuantised = false;
  static constexpr int64_t kElements = 2;
  static int64_t lines(int64_t k) { return ceil_div(k, kBF16Depth) * (kBF16Depth / kElements); }
  static void convert(const float* x, int64_t k, int64_t lines, float* to) {
    for (int64_t i = 0; i < lines; ++i) {
      uint16_t pair[2] = {};
      for (int64_t j = 0; j < 2 && 2 * i + j < k; ++j) pair[j] = f32_to_bf16(x[2 * i + j]);
      memcpy(to + i, pair, sizeof pair);
    }
  }
};

}  // namespace

const KernelTable& table() {
  static const KernelTable all = [] {
    KernelTable t = *kernel_table(Isa::kScalar);
    t.isa = Isa::kAmx;
    t.name = "amx, emulated";
    t.linear_bf16 = {multiply_amx<PairFormat>, amx_scratch_bytes, kAmxRows};
    t.linear_int8 = amx_int8_kernel();
    return t;
  }();
  return all;
}

}  // namespace trine::cpu::amx_emulated
