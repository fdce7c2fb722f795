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
#include "cpu/kernels/rows-inl.h"

#include "cpu/kernels/linear-inl.h"
#include "cpu/kernels/linear_int8-inl.h"

#include "cpu/kernels/linear_amx-inl.h"

#include "cpu/kernels/attention_pack-inl.h"

#include "cpu/kernels/attention_layout-inl.h"

#include "cpu/kernels/attention-inl.h"

#include "cpu/kernels/attention_amx-inl.h"

namespace {

struct PairFormat {
  static constexpr bool kConverts = true;
  static constexpr bool kQuantised = false;
  static constexpr int kSteps = 1;
  static constexpr int64_t kElements = 2;
  static int64_t lines(int64_t k) { return ceil_div(k, kBF16Depth) * (kBF16Depth / kElements); }
  static void convert(const float* x, int64_t k, int64_t lines, float* to) {
    for (int64_t i = 0; i < lines; ++i) {
      uint16_t pair[2] = {};
      for (int64_t j = 0; j < 2 && 2 * i + j < k; ++j) pair[j] = f32_to_bf16(x[2 * i + j]);
      memcpy(to + i, pair, sizeof pair);
    }
  }
  static constexpr int kStored = 2;
  static void store(const Vec (&x)[kStored], float* to) {
    float values[kStored * Vec::kLanes];
    for (int i = 0; i < kStored; ++i) StoreU(x[i], values + i * Vec::kLanes);
    convert(values, kStored * Vec::kLanes, Vec::kLanes, to);
  }
  static Vec join(Vec low, Vec high) { return JoinBF16(RoundBF16(low), RoundBF16(high)); }
};

// What tiles are not for.
const AttentionKernel& other() { return kernel_table(Isa::kScalar)->attention_bf16; }
const AttentionKernel kOther = {
    [](const AttentionArgs& args, int32_t sequence, int32_t head, int64_t q0, int64_t q1,
       std::byte* scratch) noexcept { other().run(args, sequence, head, q0, q1, scratch); },
    [](int64_t max_length, int64_t head_dim, int64_t position_columns) noexcept {
      return other().scratch_bytes(max_length, head_dim, position_columns);
    },
    nullptr, nullptr};

}  // namespace

const KernelTable& table() {
  static const KernelTable all = [] {
    KernelTable t = *kernel_table(Isa::kScalar);
    t.isa = Isa::kAmx;
    t.name = "amx, emulated";
    t.linear_bf16 = amx_bf16_kernel<PairFormat>();
    t.linear_int8 = amx_int8_kernel();
    t.attention_bf16.run = attention_amx<PairFormat, kOther>;
    t.attention_bf16.scratch_bytes = amx_attention_scratch_bytes<PairFormat, kOther>;
    return t;
  }();
  return all;
}

}  // namespace trine::cpu::amx_emulated
