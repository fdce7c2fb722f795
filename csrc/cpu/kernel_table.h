// SPDX-License-Identifier: Apache-2.0
// One table of kernel pointers per instruction set, filled by csrc/cpu/isa/<isa>.cc and chosen once
// when a model is compiled. Kernels are noexcept, allocate nothing, take no lock and work on the
// range they are given; who does which range is decided by the drivers in csrc/cpu/<op>.cc.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "exec/args.h"
#include "exec/int8.h"

namespace trine::cpu {

// kAvxVnni is kAvx2, kNeonDot kNeon, and kAvx512Vnni, kAvx512Bf16 and kAmx are kAvx512 with other
// kernels for linears in int8; the last three in int4, too, and two of them in bf16.
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

// What a row of x has beside its bytes: its scale, and what outliers exceed their bytes by.
struct QuantisedRow {
  struct Outlier {
    int32_t line;   // of w, in floats from the first line of a panel
    int32_t shift;  // by so many bits to the left, the column's byte is a word's topmost
    int32_t rest;   // int16, its upper half is zero
  };
  float scale;
  Outlier outlier[int8::kOutliers];  // a row with fewer has some without a rest
};

struct LinearKernel {
  // Rows [m0, m1), columns [n0, n1) of y; n0 is a multiple of kPanel, and so is n1 unless it is N.
  // `scratch` holds scratch_bytes(K) bytes, 64-byte aligned, for this thread alone.
  void (*run)(const LinearArgs&, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
              std::byte* scratch) noexcept;
  size_t (*scratch_bytes)(int64_t k) noexcept;
  // Of M rows m0 is a multiple of this, the height of its tiles; null: 1.
  int64_t (*row_step)(int64_t m) noexcept = nullptr;

  // Of a kernel that takes x prepared, quantised or in tiles: rows [m0, m1) of args.m into `rows`,
  // where each takes row_words(K), and what quantised rows have beside their bytes into
  // `beside[m]`. `run` may read rows up to the next multiple of 16.
  void (*prepare)(const LinearArgs&, int64_t m0, int64_t m1, float* rows,
                  QuantisedRow* beside) noexcept = nullptr;
  int64_t (*row_words)(int64_t k) noexcept = nullptr;
  // As many rows as `run` should get in one call, where it is not left to the driver.
  int64_t (*item_rows)(int64_t k) noexcept = nullptr;
};

// By GroupForm.
using GroupKernels = std::array<LinearKernel, std::size(kGroupForms)>;

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
  // By GroupForm. Panels [ceil(N / 16)][K / 32] of lines: for each eighth of the group of K, in
  // order, [16][4] of K in 4 or 8 bits (with 4, two eighths to a line: the first in the low halves
  // of its bytes); of kQ6_K, which has 4 bits of its 6 there, two lines of the others, each for
  // four eighths (the first in the lowest two bits); then in f16 [16] scales, of kQ6_K of first
  // halves and [16] of second ones, of kInt4 and kInt8 and [16] minima.
  GroupKernels linear_groups;

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
