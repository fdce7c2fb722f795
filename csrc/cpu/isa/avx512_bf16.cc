// SPDX-License-Identifier: Apache-2.0
// Only what AVX-512 BF16 does better than AVX-512: linear and attention in bf16.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "base/platform.h"

#if defined(TRINE_X86)

#include "cpu/kernel_table.h"
#include "cpu/simd/vec_avx512.h"

namespace trine::cpu::avx512_bf16 {

using namespace avx512;

#include "cpu/kernels/math-inl.h"
#include "cpu/kernels/rows-inl.h"

#include "cpu/kernels/linear-inl.h"
#include "cpu/kernels/linear_avx512_bf16-inl.h"

#include "cpu/kernels/attention_pack-inl.h"

#include "cpu/kernels/attention_layout-inl.h"

#include "cpu/kernels/attention-inl.h"
#include "cpu/kernels/attention_cached-inl.h"

extern const LinearKernel kLinearBF16;
const LinearKernel kLinearBF16 = {multiply<DotFormat>, scratch_bytes<DotFormat>};
extern const AttentionKernel kAttentionBF16;
const AttentionKernel kAttentionBF16 = attention_kernel<DotFormat>();

}  // namespace trine::cpu::avx512_bf16

#endif
