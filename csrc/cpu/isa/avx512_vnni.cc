// SPDX-License-Identifier: Apache-2.0
// Only what VNNI does better than AVX-512: linear on weights in integers.
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

namespace trine::cpu::avx512_vnni {

using namespace avx512;

#include "cpu/kernels/math-inl.h"

#include "cpu/kernels/linear-inl.h"
#include "cpu/kernels/linear_int4-inl.h"
#include "cpu/kernels/linear_int8-inl.h"

constexpr int kDotOffset = 128;
static TRINE_INLINE Vec DotBytes(Vec x, Vec w, Vec sum) {
  return FromInts(_mm512_dpbusd_epi32(Ints(sum), Ints(x), Ints(w)));
}

#include "cpu/kernels/linear_int8_dot-inl.h"

extern const LinearKernel kLinearInt8;
extern const GroupKernels kLinearGroups;
const LinearKernel kLinearInt8 = int8_kernel<DotInt8Format>();
const GroupKernels kLinearGroups = group_kernels<VnniDots>();

}  // namespace trine::cpu::avx512_vnni

#endif
