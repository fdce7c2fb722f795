// SPDX-License-Identifier: Apache-2.0
// The emulator's half of cuda/kernels/dialect.h: what CUDA C++ and its runtime library give to
// kernels and to the functions that launch them. A stream is nothing here: all is done on return.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "simt/block.h"
#include "simt/fragments.h"
#include "simt/runtime.h"
#include "simt/warp.h"

#define TRINE_GLOBAL
#define TRINE_DEV inline
#define TRINE_SHARED(T, name, N) \
  T(&name)                       \
  [N] = ::trine::simt::shared<T[N]>(#name, ::trine::simt::Site::current())
#define TRINE_DYNAMIC_SHARED(T, name) \
  T* name = static_cast<T*>(::trine::simt::dynamic_shared(::trine::simt::Site::current()))
#define TRINE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                  \
  do {                                                                                \
    static_cast<void>(stream);                                                        \
    ::trine::simt::launch(#kernel, kernel, grid, block, shared_bytes, ##__VA_ARGS__); \
  } while (false)

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __grid_constant__

#define threadIdx (::trine::simt::thread_index())
#define blockIdx (::trine::simt::block_index())
#define blockDim (::trine::simt::block_dim())
#define gridDim (::trine::simt::grid_dim())
#define warpSize 32

namespace trine::simt {

template <class Array>
Array& shared(const char* name, Site site) {
  constexpr size_t kAlignment = std::max<size_t>(16, alignof(Array));
  return *static_cast<Array*>(shared_array(name, sizeof(Array), kAlignment, site));
}

// Values of 4 or 8 bytes.
template <class T>
T shuffle_value(const char* name, uint32_t mask, T value, int source, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(name, mask, bits, source, site);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace trine::simt

// Types.

struct __nv_bfloat16 {
  uint16_t bits;
};

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// Arithmetic.

using std::max;
using std::min;

inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __bfloat162float(__nv_bfloat16 x) { return trine::simt::bf16_to_float(x.bits); }
inline __nv_bfloat16 __float2bfloat16(float x) { return {trine::simt::float_to_bf16(x)}; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __float2bfloat16(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}

inline int atomicAdd(int* p, int value) { return __atomic_fetch_add(p, value, __ATOMIC_RELAXED); }
inline unsigned atomicAdd(unsigned* p, unsigned value) {
  return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}

// Atomics order nothing by themselves.
inline void __threadfence() { trine::simt::fence(); }

// Barriers, shuffles and votes. A shuffle orders no memory.

inline void __syncthreads(trine::simt::Site site = trine::simt::Site::current()) {
  trine::simt::block_barrier(site);
}
inline int __syncthreads_count(int predicate,
                               trine::simt::Site site = trine::simt::Site::current()) {
  return trine::simt::block_count(predicate != 0, site);
}
inline int __syncthreads_or(int predicate, trine::simt::Site site = trine::simt::Site::current()) {
  return trine::simt::block_count(predicate != 0, site) != 0;
}
inline int __syncthreads_and(int predicate, trine::simt::Site site = trine::simt::Site::current()) {
  return trine::simt::block_count(predicate == 0, site) == 0;
}
inline void __syncwarp(uint32_t mask = 0xffffffffu,
                       trine::simt::Site site = trine::simt::Site::current()) {
  trine::simt::warp_barrier(mask, site);
}

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32,
              trine::simt::Site site = trine::simt::Site::current()) {
  const int first = trine::simt::lane() & ~(width - 1);
  return trine::simt::shuffle_value("__shfl_sync", mask, value, first + (source & (width - 1)),
                                    site);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32,
                  trine::simt::Site site = trine::simt::Site::current()) {
  const int own = trine::simt::lane(), source = own ^ lane_mask;
  const bool beyond = source >= (own & ~(width - 1)) + width;
  return trine::simt::shuffle_value("__shfl_xor_sync", mask, value, beyond ? own : source, site);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   trine::simt::Site site = trine::simt::Site::current()) {
  const int own = trine::simt::lane(), source = own + static_cast<int>(delta);
  const bool beyond = source >= (own & ~(width - 1)) + width;
  return trine::simt::shuffle_value("__shfl_down_sync", mask, value, beyond ? own : source, site);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 trine::simt::Site site = trine::simt::Site::current()) {
  const int own = trine::simt::lane(), source = own - static_cast<int>(delta);
  const bool beyond = source < (own & ~(width - 1));
  return trine::simt::shuffle_value("__shfl_up_sync", mask, value, beyond ? own : source, site);
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate,
                              trine::simt::Site site = trine::simt::Site::current()) {
  return trine::simt::ballot("__ballot_sync", mask, predicate != 0, site);
}
inline int __any_sync(uint32_t mask, int predicate,
                      trine::simt::Site site = trine::simt::Site::current()) {
  return trine::simt::ballot("__any_sync", mask, predicate != 0, site) != 0;
}
inline int __all_sync(uint32_t mask, int predicate,
                      trine::simt::Site site = trine::simt::Site::current()) {
  return trine::simt::ballot("__all_sync", mask, predicate == 0, site) == 0;
}

namespace trine::cuda {

using simt::Site;

// Reads are made here, in code that the sanitizers see, and at issue, where the line is that is
// wrong if they may not be.
template <int words>
void cp_async(void* shared, const void* global, bool valid, Site site) {
  simt::check_address(shared, 4 * words, true, "the destination of cp.async", site);
  if (valid) {
    simt::check_address(global, 4 * words, false, "the source of cp.async", site);
    [[maybe_unused]] volatile uint32_t read;
    for (int i = 0; i < words; ++i) read = static_cast<const uint32_t*>(global)[i];
  }
  // From now on until the wait the destination is neither old nor new.
  for (int i = 0; i < words; ++i) static_cast<uint32_t*>(shared)[i] = 0xffffffffu;
  simt::add_copy(shared, valid ? global : nullptr, words, site);
}
inline void cp_async16_zfill(void* shared, const void* global, bool valid,
                             Site site = Site::current()) {
  cp_async<4>(shared, global, valid, site);
}
inline void cp_async4_zfill(void* shared, const void* global, bool valid,
                            Site site = Site::current()) {
  cp_async<1>(shared, global, valid, site);
}
inline void cp_async16(void* shared, const void* global, Site site = Site::current()) {
  cp_async16_zfill(shared, global, true, site);
}
inline void cp_async_commit() { simt::end_copy_group(); }
template <int pending>
void cp_async_wait() {
  while (const simt::Copy* copy = simt::take_copy(pending)) {
    const uint32_t* global = static_cast<const uint32_t*>(copy->global);
    for (int i = 0; i < copy->words; ++i) {
      static_cast<uint32_t*>(copy->shared)[i] = global == nullptr ? 0 : global[i];
    }
  }
}

template <int matrices>
void load_matrices(uint32_t (&r)[matrices], const void* address, bool trans, Site site) {
  // Also of lanes whose address isn't used: sm_75 wants them valid.
  simt::check_address(address, 16, true, "the row of ldmatrix", site);
  uint32_t row[4] = {};
  if (simt::lane() < 8 * matrices) {
    for (int i = 0; i < 4; ++i) row[i] = static_cast<const uint32_t*>(address)[i];
  }
  simt::ldmatrix(row, matrices, trans, r, site);
}
inline void ldmatrix_x1(uint32_t (&r)[1], const void* row, Site site = Site::current()) {
  load_matrices(r, row, false, site);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, Site site = Site::current()) {
  load_matrices(r, row, false, site);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, Site site = Site::current()) {
  load_matrices(r, row, false, site);
}
inline void ldmatrix_x1_trans(uint32_t (&r)[1], const void* row, Site site = Site::current()) {
  load_matrices(r, row, true, site);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, Site site = Site::current()) {
  load_matrices(r, row, true, site);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, Site site = Site::current()) {
  load_matrices(r, row, true, site);
}

inline void mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              Site site = Site::current()) {
  simt::mma_m16n8k16_bf16(c, a, b, site);
}
inline void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             Site site = Site::current()) {
  simt::mma_m16n8k8_tf32(c, a, b, site);
}
template <bool kUnsignedB>
void mma_m16n8k32(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                  Site site = Site::current()) {
  simt::mma_m16n8k32(c, a, b, kUnsignedB, site);
}
template <bool kUnsignedB>
void mma_m8n8k16(int32_t (&c)[2], uint32_t a, uint32_t b, Site site = Site::current()) {
  const uint32_t left[1] = {a}, right[1] = {b};
  simt::mma_m8n8k16(c, left, right, kUnsignedB, site);
}

inline uint32_t to_tf32(float value) { return simt::float_to_tf32(value); }
inline uint32_t pack2_bf16(float low, float high) {
  return uint32_t{simt::float_to_bf16(high)} << 16 | simt::float_to_bf16(low);
}
inline float fast_exp(float x) { return std::exp(x); }
inline float fast_exp2(float x) { return std::exp2(x); }
inline float fast_tanh(float x) { return std::tanh(x); }

}  // namespace trine::cuda
