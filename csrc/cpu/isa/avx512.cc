// SPDX-License-Identifier: Apache-2.0
// gcc 12 takes the undefined operand inside its own intrinsics for a mistake of ours.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "base/platform.h"

#if defined(TRINE_X86)

#include "cpu/kernel_table.h"
#include "cpu/simd/vec_avx512.h"

namespace trine::cpu::avx512 {

#include "cpu/kernels/math-inl.h"
#include "cpu/kernels/rows-inl.h"

#include "cpu/kernels/activation-inl.h"
#include "cpu/kernels/add-inl.h"
#include "cpu/kernels/attention-inl.h"
#include "cpu/kernels/embedding-inl.h"
#include "cpu/kernels/l2_normalize-inl.h"
#include "cpu/kernels/layer_norm-inl.h"
#include "cpu/kernels/linear-inl.h"
#include "cpu/kernels/linear_bf16-inl.h"
#include "cpu/kernels/pool-inl.h"

extern const KernelTable kTable;
const KernelTable kTable = {
    Isa::kAvx512, "avx512",  kLinear,    kLinearBF16, attention, attention_scratch_bytes,
    layer_norm,   embedding, activation, add,         pool,      l2_normalize,
};

}  // namespace trine::cpu::avx512

#endif
