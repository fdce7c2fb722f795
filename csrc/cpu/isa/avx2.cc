// SPDX-License-Identifier: Apache-2.0
#include "base/platform.h"

#if defined(TRINE_X86)

#include "cpu/kernel_table.h"
#include "cpu/simd/dot_avx2.h"
#include "cpu/simd/vec_avx2.h"
#include "exec/int8.h"
#include "exec/rotary.h"

namespace trine::cpu::avx2 {

#include "cpu/kernels/all-inl.h"

extern const KernelTable kTable;
const KernelTable kTable = all_kernels(Isa::kAvx2, "avx2");

}  // namespace trine::cpu::avx2

#endif
