// SPDX-License-Identifier: Apache-2.0
// gcc 12 takes the undefined operand inside its own intrinsics for a mistake of ours.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "base/platform.h"

#if defined(TRINE_X86)

#include "cpu/kernel_table.h"
#include "cpu/simd/dot_avx512.h"
#include "cpu/simd/vec_avx512.h"
#include "exec/int8.h"
#include "exec/rotary.h"

namespace trine::cpu::avx512 {

#include "cpu/kernels/all-inl.h"

extern const KernelTable kTable;
const KernelTable kTable = all_kernels(Isa::kAvx512, "avx512");

}  // namespace trine::cpu::avx512

#endif
