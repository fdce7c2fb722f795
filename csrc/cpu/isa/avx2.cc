// SPDX-License-Identifier: Apache-2.0
#include "base/platform.h"

#if defined(TRINE_X86)

#include "cpu/kernel_table.h"
#include "cpu/simd/vec_avx2.h"

namespace trine::cpu::avx2 {

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
    Isa::kAvx2, "avx2",    kLinear,    kLinearBF16, attention, attention_scratch_bytes,
    layer_norm, embedding, activation, add,         pool,      l2_normalize,
};

}  // namespace trine::cpu::avx2

#endif
