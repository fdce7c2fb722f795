// SPDX-License-Identifier: Apache-2.0
// What kernels are written in: CUDA C++, with the few things that need PTX or differ between
// architectures behind functions. nvcc compiles them with the first half of this file; with
// TRINE_SIMT, any C++20 compiler takes them with the emulator's (tests/simt/cuda.h), where each
// thread of a block is a fiber and every access is checked.
//
// Kernels that keep to this file run on both. Beyond CUDA's own names (threadIdx, __syncthreads,
// __shfl_*_sync, float4, fmaf, rsqrtf, ...):
//   TRINE_GLOBAL, TRINE_DEV                    a kernel; a function that kernels call
//   TRINE_SHARED(T, name, N)                   T name[N] in shared memory, aligned to 16 bytes
//   TRINE_DYNAMIC_SHARED(T, name)              T* name, the launch's dynamic shared memory
//   TRINE_LAUNCH(kernel, grid, block, shared_bytes, stream, args...)
//                                              (kernel<A, B>) in parentheses if it has commas
//   TRINE_UNROLL_COPIES                        in front of a loop of cp_async
//   cp_async16, cp_async16_zfill, cp_async4_zfill, cp_async_commit, cp_async_wait<N>
//   ldmatrix_x1, _x2, _x4 and their _trans     every lane of the warp takes part
//   mma_m16n8k16_bf16, mma_m16n8k8_tf32        c += a b, every lane takes part
//   mma_m16n8k32<b is unsigned>                likewise of signed bytes, exact; mma_m8n8k16 is a
//   quarter to_tf32, pack2_bf16, low_bf16, high_bf16   bits of operands fast_exp, fast_exp2,
//   fast_tanh             the hardware's approximations
// The source and the destination of cp_async16 (4: to 4 bytes) and each row of ldmatrix are aligned
// to 16 bytes.
//
// sm_75 has neither cp.async nor bfloat16 or tf32 in mma; it gets plain copies, and products by
// shuffles and fused multiply-adds: correct and slow. Of bytes it has the quarters.
#pragma once

#include <cstdint>

#ifdef TRINE_SIMT
#include "simt/cuda.h"
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define TRINE_SM75
#endif

#define TRINE_GLOBAL __global__
#define TRINE_DEV __device__ __forceinline__
#define TRINE_SHARED(T, name, N) __shared__ __align__(16) T name[N]
#define TRINE_DYNAMIC_SHARED(T, name)                                  \
  extern __shared__ __align__(128) unsigned char trine_shared_bytes[]; \
  T* name = reinterpret_cast<T*>(trine_shared_bytes)
#define TRINE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#endif

#ifdef TRINE_SM75
#define TRINE_UNROLL_COPIES _Pragma("unroll 2")  // each holds its 16 bytes in registers
#else
#define TRINE_UNROLL_COPIES _Pragma("unroll")
#endif

namespace trine::cuda {

using bf16 = __nv_bfloat16;

// The two halves of a word that holds two bfloat16.
TRINE_DEV float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
TRINE_DEV float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// IEEE half to float, exactly.
TRINE_DEV float half_to_float(uint16_t bits) {
#ifndef TRINE_SIMT
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#else
  // The exponents' biases differ by 112; the product is right for denormal numbers, too.
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, rest = bits & 0x7fff;
  if (rest >= 0x7c00) return __uint_as_float(sign | 0x7f800000 | rest << 13);
  return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest << 13) * 0x1p112f));
#endif
}

// What mma_m16n8k16_bf16 is where tensor cores do not know bfloat16. Of the fragments (PTX ISA,
// "Matrix Fragments for mma.m16n8k16"), the lane that owns c[row, column] needs a's row from the
// four lanes of its own group and b's column from the four lanes of group `column`.
TRINE_DEV void mma_m16n8k16_bf16_by_shuffles(float (&c)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
  const int lane = static_cast<int>(threadIdx.x & 31), group = lane & ~3, column = (lane & 3) * 2;
  for (int half = 0; half < 2; ++half) {
    for (int t = 0; t < 4; ++t) {  // k = 8 * half + 2 * t and the next
      const uint32_t upper = __shfl_sync(0xffffffffu, a[2 * half], group + t);
      const uint32_t lower = __shfl_sync(0xffffffffu, a[2 * half + 1], group + t);
      const uint32_t left = __shfl_sync(0xffffffffu, b[half], column * 4 + t);
      const uint32_t right = __shfl_sync(0xffffffffu, b[half], column * 4 + 4 + t);
      c[0] = fmaf(low_bf16(upper), low_bf16(left), c[0]);
      c[1] = fmaf(low_bf16(upper), low_bf16(right), c[1]);
      c[2] = fmaf(low_bf16(lower), low_bf16(left), c[2]);
      c[3] = fmaf(low_bf16(lower), low_bf16(right), c[3]);
      c[0] = fmaf(high_bf16(upper), high_bf16(left), c[0]);
      c[1] = fmaf(high_bf16(upper), high_bf16(right), c[1]);
      c[2] = fmaf(high_bf16(lower), high_bf16(left), c[2]);
      c[3] = fmaf(high_bf16(lower), high_bf16(right), c[3]);
    }
  }
}

// Likewise of mma_m16n8k8_tf32 ("Matrix Fragments for mma.m16n8k8").
TRINE_DEV void mma_m16n8k8_tf32_by_shuffles(float (&c)[4], const uint32_t (&a)[4],
                                            const uint32_t (&b)[2]) {
  const int lane = static_cast<int>(threadIdx.x & 31), group = lane & ~3, column = (lane & 3) * 2;
  for (int half = 0; half < 2; ++half) {
    for (int t = 0; t < 4; ++t) {  // k = 4 * half + t
      const float upper = __uint_as_float(__shfl_sync(0xffffffffu, a[2 * half], group + t));
      const float lower = __uint_as_float(__shfl_sync(0xffffffffu, a[2 * half + 1], group + t));
      const float left = __uint_as_float(__shfl_sync(0xffffffffu, b[half], column * 4 + t));
      const float right = __uint_as_float(__shfl_sync(0xffffffffu, b[half], column * 4 + 4 + t));
      c[0] = fmaf(upper, left, c[0]);
      c[1] = fmaf(upper, right, c[1]);
      c[2] = fmaf(lower, left, c[2]);
      c[3] = fmaf(lower, right, c[3]);
    }
  }
}

// Round to nearest, ties to even, in integers; a NaN stays one.
TRINE_DEV uint32_t bf16_bits(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// cvt.rna in integers: to nearest, ties away from zero. Infinities and NaNs stay.
TRINE_DEV uint32_t tf32_bits(float value) {
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000) & ~0x1fffu;
}

#ifndef TRINE_SIMT

// c += a b for 8 x 8 of c and 16 of k, signed bytes times signed or unsigned ones.
template <bool kUnsignedB>
TRINE_DEV void mma_m8n8k16(int32_t (&c)[2], uint32_t a, uint32_t b) {
  if constexpr (kUnsignedB) {
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.u8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+r"(c[0]), "+r"(c[1])
                 : "r"(a), "r"(b));
  } else {
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+r"(c[0]), "+r"(c[1])
                 : "r"(a), "r"(b));
  }
}

#endif

// What mma_m16n8k32 is where there is only this: its fragments are those of the quarters.
template <bool kUnsignedB>
TRINE_DEV void mma_m16n8k32_by_quarters(int32_t (&c)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  for (int half = 0; half < 2; ++half) {  // of the rows
    int32_t sums[2] = {c[2 * half], c[2 * half + 1]};
    mma_m8n8k16<kUnsignedB>(sums, a[half], b[0]);
    mma_m8n8k16<kUnsignedB>(sums, a[half + 2], b[1]);
    c[2 * half] = sums[0], c[2 * half + 1] = sums[1];
  }
}

#ifndef TRINE_SIMT

#ifdef TRINE_SM75
// Calls, not copies of all that code: kernels have hundreds of products.
static __device__ __noinline__ float4 call_mma_bf16(float4 c, uint4 a, uint2 b) {
  float sums[4] = {c.x, c.y, c.z, c.w};
  const uint32_t left[4] = {a.x, a.y, a.z, a.w}, right[2] = {b.x, b.y};
  mma_m16n8k16_bf16_by_shuffles(sums, left, right);
  return make_float4(sums[0], sums[1], sums[2], sums[3]);
}

static __device__ __noinline__ float4 call_mma_tf32(float4 c, uint4 a, uint2 b) {
  float sums[4] = {c.x, c.y, c.z, c.w};
  const uint32_t left[4] = {a.x, a.y, a.z, a.w}, right[2] = {b.x, b.y};
  mma_m16n8k8_tf32_by_shuffles(sums, left, right);
  return make_float4(sums[0], sums[1], sums[2], sums[3]);
}
#endif

TRINE_DEV uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes from global to shared memory, past L1. The shared bytes are neither old nor new until
// the wait for their group, and other threads see them after the barrier that follows it.
TRINE_DEV void cp_async16(void* shared, const void* global) {
#ifndef TRINE_SM75
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}

// Zeros instead, and nothing is read, when not valid.
TRINE_DEV void cp_async16_zfill(void* shared, const void* global, bool valid) {
#ifndef TRINE_SM75
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(bytes)
               : "memory");
#else
  *static_cast<uint4*>(shared) =
      valid ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
#endif
}

// Likewise of 4 bytes.
TRINE_DEV void cp_async4_zfill(void* shared, const void* global, bool valid) {
#ifndef TRINE_SM75
  const int bytes = valid ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(bytes)
               : "memory");
#else
  *static_cast<uint32_t*>(shared) = valid ? *static_cast<const uint32_t*>(global) : 0;
#endif
}

// Ends a group: what this thread has issued since the last one.
TRINE_DEV void cp_async_commit() {
#ifndef TRINE_SM75
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Until at most the `pending` latest groups of this thread are under way.
template <int pending>
TRINE_DEV void cp_async_wait() {
#ifndef TRINE_SM75
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

// Lane l gives the address of row l % 8 of matrix l / 8 (of x1 and x2, later lanes' are ignored).
TRINE_DEV void ldmatrix_x1(uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(shared_address(row))
               : "memory");
}

TRINE_DEV void ldmatrix_x1_trans(uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(shared_address(row))
               : "memory");
}

TRINE_DEV void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

TRINE_DEV void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

TRINE_DEV void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

TRINE_DEV void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

TRINE_DEV void mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifndef TRINE_SM75
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  const float4 sums = call_mma_bf16(make_float4(c[0], c[1], c[2], c[3]),
                                    make_uint4(a[0], a[1], a[2], a[3]), make_uint2(b[0], b[1]));
  c[0] = sums.x, c[1] = sums.y, c[2] = sums.z, c[3] = sums.w;
#endif
}

TRINE_DEV void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifndef TRINE_SM75
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  const float4 sums = call_mma_tf32(make_float4(c[0], c[1], c[2], c[3]),
                                    make_uint4(a[0], a[1], a[2], a[3]), make_uint2(b[0], b[1]));
  c[0] = sums.x, c[1] = sums.y, c[2] = sums.z, c[3] = sums.w;
#endif
}

template <bool kUnsignedB>
TRINE_DEV void mma_m16n8k32(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef TRINE_SM75
  mma_m16n8k32_by_quarters<kUnsignedB>(c, a, b);
#else
  if constexpr (kUnsignedB) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#endif
}

TRINE_DEV uint32_t to_tf32(float value) {
#ifndef TRINE_SM75
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
#else
  return tf32_bits(value);
#endif
}

TRINE_DEV uint32_t pack2_bf16(float low, float high) {
#ifndef TRINE_SM75
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return bf16_bits(high) << 16 | bf16_bits(low);
#endif
}

TRINE_DEV float fast_exp(float x) { return __expf(x); }

TRINE_DEV float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Relative error up to 2^-11: of use where the result is rounded to bfloat16.
TRINE_DEV float fast_tanh(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif  // TRINE_SIMT

}  // namespace trine::cuda
