// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace trine::cpu {

// What the processor has and the operating system has switched on; false for another
// architecture's.
struct Features {
  bool avx2 = false;         // with FMA and F16C, which the AVX2 kernels use as well
  bool avx512 = false;       // F, BW, DQ and VL
  bool avx_vnni = false;     // int8 dot products on registers of AVX2
  bool avx512_vnni = false;  // int8 dot products
  bool avx512_bf16 = false;  // bf16 dot products
  // They run at the rate of FMA and do twice the work. AMD's do (Zen 4 and 5); Intel's run at half
  // of it or less (measured on Sapphire Rapids), for there AMX is meant to do the work. By vendor,
  // not by timing: what a model computes must not depend on a busy moment.
  bool fast_avx512_bf16 = false;
  bool amx_int8 = false;  // needs the kernel's permission before the first tile instruction
  bool amx_bf16 = false;
  bool neon_dotprod = false;
  bool neon_i8mm = false;
  bool neon_bf16 = false;
};

// Read once, on the first call.
const Features& features() noexcept;

// Asks the operating system, on the first call, to let this process use AMX's tiles. False when it
// says no, or where trine does not know how to ask.
bool amx_is_permitted() noexcept;

}  // namespace trine::cpu
