// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernel_table.h"
#include "cpu/simd/dot_scalar.h"
#include "cpu/simd/vec_scalar.h"
#include "exec/int8.h"
#include "exec/rotary.h"

namespace trine::cpu::scalar {

#include "cpu/kernels/all-inl.h"

extern const KernelTable kTable;
const KernelTable kTable = all_kernels(Isa::kScalar, "scalar");

}  // namespace trine::cpu::scalar
