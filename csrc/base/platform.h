// SPDX-License-Identifier: Apache-2.0
// The few things that compilers spell differently; nothing else in the core uses a compiler
// extension.
#pragma once

// Microsoft's compiler itself; clang-cl speaks GNU's dialect, too.
#if defined(_MSC_VER) && !defined(__clang__)
#define TRINE_MSVC 1
#include <intrin.h>
#endif

#if defined(TRINE_MSVC)
#define TRINE_RESTRICT __restrict
#define TRINE_INLINE __forceinline
#define TRINE_NOINLINE __declspec(noinline)
#else
#define TRINE_RESTRICT __restrict__
#define TRINE_INLINE inline __attribute__((always_inline))
#define TRINE_NOINLINE __attribute__((noinline))
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define TRINE_X86 1
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
#define TRINE_ARM64 1
#endif

// Compiles one function for an instruction set that its file is not compiled for; MSVC needs
// nothing.
#if defined(TRINE_MSVC)
#define TRINE_TARGET(features)
#else
#define TRINE_TARGET(features) __attribute__((target(features)))
#endif

// Between a broadcast of `vector` and its use as one of bfloat16: clang 16 crashes on the two
// folded into one.
#if defined(__clang__) && __clang_major__ <= 16
#define TRINE_OPAQUE(vector) __asm__("" : "+v"(vector))
#else
#define TRINE_OPAQUE(vector) (void)0
#endif

// Before a loop of constant trip count over an array that must live in registers.
#if defined(__clang__)
#define TRINE_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define TRINE_UNROLL _Pragma("GCC unroll 32")
#else
#define TRINE_UNROLL
#endif

// Asks for a cache line that is read soon; any address will do, mapped or not.
#if !defined(TRINE_MSVC)
#define TRINE_PREFETCH(p) __builtin_prefetch(p)
#elif defined(TRINE_X86)
#define TRINE_PREFETCH(p) _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0)
#else
#define TRINE_PREFETCH(p) __prefetch(p)
#endif

// The same into the second cache: of what comes next but one, too much for the first.
#if !defined(TRINE_MSVC)
#define TRINE_PREFETCH_L2(p) __builtin_prefetch(p, 0, 2)
#elif defined(TRINE_X86)
#define TRINE_PREFETCH_L2(p) _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1)
#else
#define TRINE_PREFETCH_L2(p) TRINE_PREFETCH(p)
#endif

// Body of a spin loop: leaves the core's resources to its other hardware thread for some cycles.
#if defined(TRINE_MSVC)
#if defined(TRINE_X86)
#define TRINE_PAUSE() _mm_pause()
#else
#define TRINE_PAUSE() __isb(_ARM64_BARRIER_SY)
#endif
#elif defined(TRINE_X86)
#define TRINE_PAUSE() __builtin_ia32_pause()
#elif defined(TRINE_ARM64)
#define TRINE_PAUSE() __asm__ volatile("isb" ::: "memory")
#else
#define TRINE_PAUSE() (void)0
#endif

// What was stored before is in memory, what is loaded behind comes from there: for instructions
// that read memory without the compiler's knowledge.
#if defined(TRINE_MSVC)
#define TRINE_COMPILER_BARRIER() _ReadWriteBarrier()
#else
#define TRINE_COMPILER_BARRIER() __asm__ volatile("" ::: "memory")
#endif

// The same bits as another type: vectors of __m512bh are a type of their own to some compilers.
#define TRINE_BIT_CAST(type, value) __builtin_bit_cast(type, value)

// Seen from outside of a shared library.
#if defined(_WIN32)
#define TRINE_EXPORT __declspec(dllexport)
#else
#define TRINE_EXPORT __attribute__((visibility("default")))
#endif
