// SPDX-License-Identifier: Apache-2.0
// What the kernels' arguments have in common. This header, linear.h, attention.h and rows.h are
// read by MSL and by the host's C++ alike: fixed-width types, natural alignment, no pointers.
//
// How a kernel is called:
//   * Buffers are bound by index: setBuffer:offset:atIndex:, the offset a multiple of 256. The last
//     one is the argument struct, by setBytes:length:atIndex:. Indices are 0, 1, 2 ... in the order
//     that stands beside each struct.
//   * A buffer that is absent is bound to anything (the output, say); a field of the struct says
//   that
//     it isn't there, and it is never read.
//   * dispatchThreadgroups:threadsPerThreadgroup: with what launch.h says. Threadgroup memory is
//     declared in the kernels: nothing to set. A threadgroup is a row of simdgroups of 32.
//   * Elements are float, half or bfloat16, which `dtype` says when it runs, but for the operands
//   of
//     linear and attention, whose type is part of the kernel's name.
//   * Compiled for MSL 2.4 with fastMathEnabled off: sums keep their order, a NaN stays one.
//   bfloat16
//     is a ushort that is shifted, on every version (MSL has a type for it from 3.1 on only);
//     operands of simdgroup matrices are float, which holds products of half and of bfloat16
//     exactly.
#pragma once

#ifdef __METAL_VERSION__
#include <metal_stdlib>
using namespace metal;
#define TRINE_CONST static constant constexpr
#else
#include <cstdint>
#define TRINE_CONST static constexpr
#endif

namespace trine {
namespace metal {

// base/dtype.h has the same numbers, and exec/args.h those of groups.
TRINE_CONST int32_t kF32 = 0;
TRINE_CONST int32_t kF16 = 1;
TRINE_CONST int32_t kBF16 = 2;
// Of tables alone, whose rows are as kernels/quantised.h says.
TRINE_CONST int32_t kI8 = 6;
TRINE_CONST int32_t kInt4Groups = 5;
TRINE_CONST int32_t kQ8Groups = 10;

// Rows of a matrix in a buffer. Counts are of elements.
struct Matrix {
  int64_t first;    // from the buffer's start to row 0, column 0
  int32_t ld;       // from a row to the next
  int32_t dtype;    // kF32, kF16 or kBF16
  int32_t vectors;  // four columns may be moved at once, wherever a multiple of four begins
  int32_t unused;
};
static_assert(sizeof(Matrix) == 24, "the same on both sides");

// Activation of exec/args.h, number for number.
TRINE_CONST int32_t kNone = 0;
TRINE_CONST int32_t kGelu = 1;
TRINE_CONST int32_t kGeluTanh = 2;
TRINE_CONST int32_t kRelu = 3;
TRINE_CONST int32_t kTanh = 4;
TRINE_CONST int32_t kSigmoid = 5;
TRINE_CONST int32_t kSilu = 6;
TRINE_CONST int32_t kQuickGelu = 7;

}  // namespace metal
}  // namespace trine
