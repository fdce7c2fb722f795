// SPDX-License-Identifier: Apache-2.0
// Only what AMX does better than AVX-512: linear on bf16 and int8 weights, attention in bf16.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "base/platform.h"

#if defined(TRINE_X86)

#include "cpu/kernel_table.h"
#include "cpu/simd/tiles.h"
#include "cpu/simd/vec_avx512.h"
#include "exec/int8.h"

namespace trine::cpu::avx512_bf16 {
extern const AttentionKernel kAttentionBF16;
}

namespace trine::cpu::amx {

using namespace avx512;

#include "cpu/kernels/math-inl.h"
#include "cpu/kernels/rows-inl.h"

#include "cpu/kernels/linear-inl.h"
#include "cpu/kernels/linear_avx512_bf16-inl.h"
#include "cpu/kernels/linear_int8-inl.h"

#include "cpu/kernels/linear_amx-inl.h"

#include "cpu/kernels/attention_pack-inl.h"

#include "cpu/kernels/attention_layout-inl.h"

#include "cpu/kernels/attention-inl.h"

#include "cpu/kernels/attention_amx-inl.h"

extern const LinearKernel kLinearBF16;
const LinearKernel kLinearBF16 = amx_bf16_kernel<DotFormat>();
extern const LinearKernel kLinearInt8;
const LinearKernel kLinearInt8 = amx_int8_kernel();
extern const AttentionKernel kAttentionBF16;  // its first two alone
const AttentionKernel kAttentionBF16 = {
    attention_amx<DotFormat, avx512_bf16::kAttentionBF16>,
    amx_attention_scratch_bytes<DotFormat, avx512_bf16::kAttentionBF16>, nullptr, nullptr};

}  // namespace trine::cpu::amx

#endif
