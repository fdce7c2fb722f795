// SPDX-License-Identifier: Apache-2.0
// Only what NEON with dot products does better than without: linear on int8 weights.
#include "base/platform.h"

#if defined(TRINE_ARM64)

#include "cpu/kernel_table.h"
#include "cpu/simd/vec_neon.h"
#include "exec/int8.h"

namespace trine::cpu::neon_dotprod {

using namespace neon;

#include "cpu/kernels/math-inl.h"

#include "cpu/kernels/linear-inl.h"
#include "cpu/kernels/linear_int8-inl.h"

constexpr int kDotOffset = 0;
static TRINE_INLINE Vec DotBytes(Vec x, Vec w, Vec sum) {
  return FromInts(vdotq_s32(Ints(sum), vreinterpretq_s8_f32(x.v), vreinterpretq_s8_f32(w.v)));
}

#include "cpu/kernels/linear_int8_dot-inl.h"

extern const LinearKernel kLinearInt8;
const LinearKernel kLinearInt8 = int8_kernel<DotInt8Format>();

}  // namespace trine::cpu::neon_dotprod

#endif
