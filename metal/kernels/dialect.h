// SPDX-License-Identifier: Apache-2.0
// What kernels are written in: Metal Shading Language 2.4 (C++14 without lambdas, recursion,
// virtual functions and exceptions), and four names for what a C++ compiler can't do with the same
// words. With TRINE_SIMT, the emulator (tests/simt/metal.h) takes the place of Metal's library.
//   TRINE_SHARED(T, name, N)   T name[N] in threadgroup memory; in a kernel's body only
//   TRINE_THREAD               a kernel's last parameters: group, thread, lane and simd
//   TRINE_KERNEL(name, f)      f, an instance of a template, is a kernel of this name
//   TRINE_OWN_KERNEL(name)     the function above is a kernel of its own name
// Products and sums that must round in one way on all compilers are written with fma or apart.
#pragma once

#ifdef TRINE_SIMT
#include "simt/metal.h"
#else
#include <metal_simdgroup_matrix>
#include <metal_stdlib>

// The checks without Metal's compiler (tests/metal/msl) have other words for these two.
#ifndef TRINE_SHARED
#define TRINE_SHARED(T, name, N) threadgroup T name[N]
#endif
#ifndef TRINE_HOST_NAME
#define TRINE_HOST_NAME(name) [[host_name(#name)]]
#endif
#define TRINE_KERNEL(name, ...)           \
  typedef decltype(__VA_ARGS__) name##_t; \
  template TRINE_HOST_NAME(name) kernel name##_t __VA_ARGS__
#define TRINE_OWN_KERNEL(name)
#endif

#define TRINE_THREAD                                                                            \
  uint3 group [[threadgroup_position_in_grid]], uint thread_id [[thread_index_in_threadgroup]], \
      uint lane [[thread_index_in_simdgroup]], uint simd [[simdgroup_index_in_threadgroup]]

using namespace metal;
