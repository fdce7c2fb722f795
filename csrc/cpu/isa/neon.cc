// SPDX-License-Identifier: Apache-2.0
#include "base/platform.h"

#if defined(TRINE_ARM64)

#include "cpu/kernel_table.h"
#include "cpu/simd/dot_neon.h"
#include "cpu/simd/vec_neon.h"
#include "exec/int8.h"
#include "exec/rotary.h"

namespace trine::cpu::neon {

#include "cpu/kernels/all-inl.h"

extern const KernelTable kTable;
const KernelTable kTable = all_kernels(Isa::kNeon, "neon");

}  // namespace trine::cpu::neon

#endif
