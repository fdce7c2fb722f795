// SPDX-License-Identifier: Apache-2.0
// One table of kernel pointers per instruction set, filled by csrc/cpu/isa/<isa>.cc and chosen once
// when a model is compiled. Kernels are noexcept, allocate nothing, take no lock and work on the
// range they are given; who does which range is decided by the drivers in csrc/cpu/<op>.cc.
#pragma once

#include <cstddef>
#include <cstdint>

#include "exec/args.h"
#include "exec/int8.h"

namespace trine::cpu {

// kAvxVnni is kAvx2, kNeonDot kNeon, and kAvx512Vnni, kAvx512Bf16 and kAmx are kAvx512 with other
// kernels for linears in int8, the last two in bf16, too.
enum class Isa : uint8_t {
  kScalar,
  kAvx2,
  kAvxVnni,
  kAvx512,
  kAvx512Vnni,
  kAvx512Bf16,
  kAmx,
  kNeon,
  kNeonDot
};
// All of them, the best first.
inline constexpr Isa kIsas[] = {Isa::kAmx,     Isa::kAvx512Bf16, Isa::kAvx512Vnni,
                                Isa::kAvx512,  Isa::kAvxVnni,    Isa::kAvx2,
                                Isa::kNeonDot, Isa::kNeon,       Isa::kScalar};

// Columns of a packed weight panel, for every ISA: one AVX-512 register, two AVX2 registers, four
// NEON registers.
inline constexpr int64_t kPanel = 16;
// K is filled up with zeros to a multiple of this in panels of bf16: the depth of an AMX tile.
inline constexpr int64_t kBF16Depth = 32;
inline constexpr int64_t kInt8Depth = 64;  // likewise of int8

// What a row of x has beside its bytes: its scale, and what outliers exceed their bytes by, as the
// pair of int16 (one is zero) that multiplies the even bytes of a line of w, or the odd ones.
struct QuantisedRow {
  struct Outlier {
    int32_t line;  // floats from the first line of a panel
    float even, odd;
  };
  float scale;
  int32_t outliers;
  Outlier outlier[int8::kOutliers];
};

struct LinearKernel {
  // Rows [m0, m1), columns [n0, n1) of y; n0 is a multiple of kPanel, and so is n1 unless it is N.
  // `scratch` holds scratch_bytes(K) bytes, 64-byte aligned, for this thread alone.
  void (*run)(const LinearArgs&, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
              std::byte* scratch) noexcept;
  size_t (*scratch_bytes)(int64_t k) noexcept;
  int64_t row_step = 1;  // rows are shared out in multiples of this, the height of its tiles

  // Of a kernel that takes x quantised: rows [m0, m1) into `rows`, row_words(K) apart, and what
  // they have beside their bytes into `beside[m]`. `run` may read rows up to the next multiple
  // of 16.
  void (*quantise)(const LinearArgs&, int64_t m0, int64_t m1, float* rows,
                   QuantisedRow* beside) noexcept = nullptr;
  int64_t (*row_words)(int64_t k) noexcept = nullptr;
};

struct AttentionKernel {
  // Queries [q0, q1) (counted within the sequence) of one sequence and one head. `scratch`:
  // scratch_bytes.
  void (*run)(const AttentionArgs&, int32_t sequence, int32_t head, int64_t q0, int64_t q1,
              std::byte* scratch) noexcept;
  size_t (*scratch_bytes)(int64_t max_length, int64_t head_dim, int64_t position_columns) noexcept;
  // Of a sequence with a cache: its rows of one key head into it; then queries [q0, q1) (counted
  // from the first new one) of all heads that share the key head. `scratch`: as for run, for the
  // tokens in the cache and the new ones.
  void (*append)(const AttentionArgs&, int32_t sequence, int32_t kv_head) noexcept;
  void (*cached)(const AttentionArgs&, int32_t sequence, int32_t kv_head, int64_t q0, int64_t q1,
                 std::byte* scratch) noexcept;
};

struct KernelTable {
  Isa isa;
  const char* name;

  LinearKernel linear;       // panels [ceil(N / 16)][K][16] of float
  LinearKernel linear_bf16;  // panels [ceil(N / 16)][K / 2][16][2] of bf16, K filled up
  // Panels of [K / 4][16][4] int8, K filled up, then a float [16], the scales, and an int32 [16],
  // 128 times the sums of the columns' weights.
  LinearKernel linear_int8;
  // Panels [ceil(N / 16)][K / 32] of lines: for each eighth of the group of K, in order, [16][4] of
  // K in 4 or 8 bits (with 4, two eighths to a line: the first in the low halves of its bytes);
  // then [16] scales and [16] minima in f16.
  LinearKernel linear_int4;  // [5][64] bytes a group
  LinearKernel linear_q8;    // [9][64] bytes a group

  AttentionKernel attention;
  AttentionKernel attention_bf16;  // lines of pairs in caches and tables of positions

  // Rows [begin, end), or sequences [begin, end) for pool.
  void (*layer_norm)(const LayerNormArgs&, int64_t begin, int64_t end) noexcept;
  void (*embedding)(const EmbeddingArgs&, int64_t begin, int64_t end) noexcept;
  void (*activation)(const ActivationArgs&, int64_t begin, int64_t end) noexcept;
  void (*add)(const AddArgs&, int64_t begin, int64_t end) noexcept;
  void (*pool)(const PoolArgs&, int64_t begin, int64_t end) noexcept;
  void (*l2_normalize)(const L2NormalizeArgs&, int64_t begin, int64_t end) noexcept;
  void (*rms_norm)(const RmsNormArgs&, int64_t begin, int64_t end) noexcept;
  void (*rotary)(const RotaryArgs&, int64_t begin, int64_t end) noexcept;
  void (*rope)(const RopeArgs&, int64_t begin, int64_t end) noexcept;
  void (*gated)(const GatedArgs&, int64_t begin, int64_t end) noexcept;
  void (*scale)(const ScaleArgs&, int64_t begin, int64_t end) noexcept;
};

// Null when this build or this processor lacks the instruction set.
const KernelTable* kernel_table(Isa isa) noexcept;
// What `TRINE_ISA` asks for (an error if the machine lacks it), else the widest that the machine
// has.
const KernelTable& select_kernel_table();

}  // namespace trine::cpu
