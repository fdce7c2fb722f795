// SPDX-License-Identifier: Apache-2.0
// CPUID and XGETBV by hand: compilers' own queries are missing from some toolchains and know too
// few names in others.
#include "cpu/features.h"

#include <cstdint>

#include "base/platform.h"

#if defined(TRINE_X86)
#if !defined(TRINE_MSVC)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(TRINE_ARM64) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(TRINE_ARM64) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace trine::cpu {
namespace {

#if defined(TRINE_X86)

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) noexcept {
#if defined(TRINE_MSVC)
  int r[4];
  __cpuidex(r, static_cast<int>(leaf), static_cast<int>(subleaf));
  return {static_cast<uint32_t>(r[0]), static_cast<uint32_t>(r[1]), static_cast<uint32_t>(r[2]),
          static_cast<uint32_t>(r[3])};
#else
  Registers r;
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
#endif
}

// Which register files the operating system saves when it switches threads.
uint64_t xcr0() noexcept {
#if defined(TRINE_MSVC)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
#endif
}

constexpr bool bit(uint32_t value, int index) { return (value >> index & 1u) != 0; }

Features detect() noexcept {
  Features f;
  const Registers zero = cpuid(0, 0);
  if (zero.eax < 7) return f;
  // "AuthenticAMD" and "HygonGenuine" begin so.
  const bool amd = zero.ebx == 0x68747541 || zero.ebx == 0x6f677948;
  const Registers one = cpuid(1, 0);
  constexpr int kFma = 12, kOsXsave = 27, kAvx = 28, kF16c = 29;
  if (!bit(one.ecx, kOsXsave) || !bit(one.ecx, kAvx)) return f;

  constexpr uint64_t kYmmState = 0x06, kZmmState = 0xe6, kTileState = 0x60000;
  const uint64_t state = xcr0();
  const bool ymm = (state & kYmmState) == kYmmState;
  const bool zmm = (state & kZmmState) == kZmmState;
  const bool tile = (state & kTileState) == kTileState;

  const Registers seven = cpuid(7, 0);
  const Registers seven_one = seven.eax >= 1 ? cpuid(7, 1) : Registers{};
  f.avx2 = ymm && bit(seven.ebx, 5) && bit(one.ecx, kFma) && bit(one.ecx, kF16c);
  f.avx_vnni = f.avx2 && bit(seven_one.eax, 4);
  // F, DQ, BW, VL. Without AVX2 there is no AVX-512, but a virtual machine's mask may say so.
  f.avx512 = f.avx2 && zmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) &&
             bit(seven.ebx, 31);
  f.avx512_vnni = f.avx512 && bit(seven.ecx, 11);
  f.avx512_bf16 = f.avx512 && bit(seven_one.eax, 5);
  f.fast_avx512_bf16 = f.avx512_bf16 && amd;
  const bool amx = f.avx512 && tile && bit(seven.edx, 24);
  f.amx_bf16 = amx && bit(seven.edx, 22);
  f.amx_int8 = amx && bit(seven.edx, 25);
  return f;
}

#elif defined(TRINE_ARM64) && defined(__linux__)

Features detect() noexcept {
  // The kernel's HWCAP bits, spelt out because older headers lack the newer names.
  constexpr unsigned long kAsimdDp = 1ul << 20, kI8mm = 1ul << 13, kBf16 = 1ul << 14;
  Features f;
  f.neon_dotprod = (getauxval(AT_HWCAP) & kAsimdDp) != 0;
  f.neon_i8mm = (getauxval(AT_HWCAP2) & kI8mm) != 0;
  f.neon_bf16 = (getauxval(AT_HWCAP2) & kBf16) != 0;
  return f;
}

#elif defined(TRINE_ARM64) && defined(__APPLE__)

bool has(const char* name) noexcept {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

Features detect() noexcept {
  Features f;
  f.neon_dotprod = has("hw.optional.arm.FEAT_DotProd");
  f.neon_i8mm = has("hw.optional.arm.FEAT_I8MM");
  f.neon_bf16 = has("hw.optional.arm.FEAT_BF16");
  return f;
}

#else

Features detect() noexcept { return {}; }

#endif

}  // namespace

bool amx_is_permitted() noexcept {
#if defined(TRINE_X86) && defined(__linux__)
  // The kernel saves 8 KiB of tiles for each thread of a process that asks to (Linux 5.16), and
  // refuses one with a thread whose alternative signal stack would be too small for them.
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
#else
  return false;
#endif
}

const Features& features() noexcept {
  static const Features detected = detect();
  return detected;
}

}  // namespace trine::cpu
