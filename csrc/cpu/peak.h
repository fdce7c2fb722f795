// SPDX-License-Identifier: Apache-2.0
// What the machine can do at most, measured now: the rooflines that benchmarks compare kernels
// with.
#pragma once

#include "cpu/kernel_table.h"

namespace trine::cpu {

// Fused multiply-adds from registers on `threads` threads at once, two operations each (scalar:
// multiplications and additions of the baseline instruction set), in 10^9 a second. About 20 ms. 0
// when the processor lacks the instruction set. For kBF16 and kI8 what multiplies them on this
// instruction set: that is FMA of float32 where there is nothing better. kI4 is multiplied as kI8.
double peak_gflops(Isa isa, int threads, DType dtype = DType::kF32);

// Bytes that `threads` threads together read from memory, in 10^9 a second. Takes 256 MiB, which no
// cache that trine meets holds, and about 100 ms.
double read_bandwidth_gbs(int threads);

}  // namespace trine::cpu
