// SPDX-License-Identifier: Apache-2.0
// Only what AVX-VNNI does better than AVX2: linear on int8 weights.
#include "base/platform.h"

#if defined(TRINE_X86)

#include "cpu/kernel_table.h"
#include "cpu/simd/vec_avx2.h"
#include "exec/int8.h"

namespace trine::cpu::avx_vnni {

using namespace avx2;

#include "cpu/kernels/math-inl.h"

#include "cpu/kernels/linear-inl.h"
#include "cpu/kernels/linear_int8-inl.h"

constexpr int kDotOffset = 128;
static TRINE_INLINE Vec DotBytes(Vec x, Vec w, Vec sum) {
  return FromInts(_mm256_dpbusd_avx_epi32(Ints(sum), Ints(x), Ints(w)));
}

#include "cpu/kernels/linear_int8_dot-inl.h"

extern const LinearKernel kLinearInt8;
const LinearKernel kLinearInt8 = int8_kernel<DotInt8Format>();

}  // namespace trine::cpu::avx_vnni

#endif
