// SPDX-License-Identifier: Apache-2.0
// Only what AMX does better than AVX-512: linear on bf16 and int8 weights.
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

namespace trine::cpu::amx {

using namespace avx512;

#include "cpu/kernels/math-inl.h"

#include "cpu/kernels/linear-inl.h"
#include "cpu/kernels/linear_avx512_bf16-inl.h"
#include "cpu/kernels/linear_int8-inl.h"

#include "cpu/kernels/linear_amx-inl.h"

extern const LinearKernel kLinearBF16;
const LinearKernel kLinearBF16 = {multiply_amx<DotFormat>, amx_scratch_bytes, kAmxRows};
extern const LinearKernel kLinearInt8;
const LinearKernel kLinearInt8 = amx_int8_kernel();

}  // namespace trine::cpu::amx

#endif
