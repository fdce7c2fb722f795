// SPDX-License-Identifier: Apache-2.0
// The emulator's half of metal/kernels/dialect.h: what the Metal Shading Language gives to kernels,
// on the machine of block.h. A threadgroup is a block, a simdgroup a warp.
//
// Which lane holds which elements of a simdgroup matrix is not said by Metal, so no kernel may
// know: here it is a permutation that nobody would guess. Every lane reads and writes its elements
// at once, before it waits for the others, so that a missing simdgroup_barrier shows in the
// results.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "simt/block.h"
#include "simt/metal_registry.h"
#include "simt/warp.h"

using uint = uint32_t;
using ushort = uint16_t;
using uchar = uint8_t;
using ulong = uint64_t;
using half = _Float16;

struct alignas(8) ushort4 {
  ushort x, y, z, w;
  ushort4(ushort x_, ushort y_, ushort z_, ushort w_) : x(x_), y(y_), z(z_), w(w_) {}
};
struct alignas(8) half4 {
  half x, y, z, w;
  half4(half x_, half y_, half z_, half w_) : x(x_), y(y_), z(z_), w(w_) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
  float4(float x_, float y_, float z_, float w_) : x(x_), y(y_), z(z_), w(w_) {}
};
struct uint3 {
  uint x, y, z;
};
struct ulong2 {
  ulong x, y;
  explicit ulong2(ulong all) : x(all), y(all) {}
};

namespace trine::simt {

// Kernels register themselves with a function that looks up their bindings and calls them.
using MetalCall = void (*)(std::span<const MetalBinding> bindings);

struct MetalKernel {
  std::string_view name;
  MetalCall call;
  size_t bindings;
};

struct MetalRegistration {
  explicit MetalRegistration(const MetalKernel& kernel);
};

// Fails with the index.
void* metal_binding(std::span<const MetalBinding> bindings, size_t index, size_t bytes,
                    size_t alignment);

template <class T>
struct MetalParameter;
template <class T>
struct MetalParameter<T*> {
  static T* of(std::span<const MetalBinding> bindings, size_t index) {
    return static_cast<T*>(metal_binding(bindings, index, 0, 16));
  }
};
template <class T>
struct MetalParameter<const T&> {
  static const T& of(std::span<const MetalBinding> bindings, size_t index) {
    return *static_cast<const T*>(metal_binding(bindings, index, sizeof(T), alignof(T)));
  }
};

template <auto kernel_function, class... P, size_t... index>
void call_metal(std::span<const MetalBinding> bindings, std::index_sequence<index...>,
                void (*)(P...)) {
  using Parameters = std::tuple<P...>;
  const Index3 group = block_index();
  const uint thread_id = thread_index().x;
  kernel_function(MetalParameter<std::tuple_element_t<index, Parameters>>::of(bindings, index)...,
                  uint3{group.x, group.y, group.z}, thread_id, uint(lane()), thread_id / 32);
}

// Of kernels that end in TRINE_THREAD.
template <auto kernel_function, class... P>
MetalKernel metal_kernel(std::string_view name, void (*)(P...)) {
  constexpr size_t kBindings = sizeof...(P) - 4;
  return {name,
          [](std::span<const MetalBinding> bindings) {
            call_metal<kernel_function>(bindings, std::make_index_sequence<kBindings>(),
                                        static_cast<void (*)(P...)>(kernel_function));
          },
          kBindings};
}

}  // namespace trine::simt

#define TRINE_SHARED(T, name, N)                           \
  T(&name)                                                 \
  [N] = *static_cast<T(*)[N]>(::trine::simt::shared_array( \
      #name, sizeof(T[N]), std::max<size_t>(16, alignof(T)), ::trine::simt::Site::current()))
#define TRINE_KERNEL(name, ...)                                    \
  static const ::trine::simt::MetalRegistration name##_registered( \
      ::trine::simt::metal_kernel<&__VA_ARGS__>(#name, &__VA_ARGS__))
#define TRINE_OWN_KERNEL(name) TRINE_KERNEL(name, ::name)

namespace metal {

using ::trine::simt::Site;

template <class T>
T clamp(T x, T low, T high) {
  return x < low ? low : x > high ? high : x;
}
using std::max;
using std::min;

inline float exp(float x) { return std::exp(x); }
inline float exp2(float x) { return std::exp2(x); }
inline float tanh(float x) { return std::tanh(x); }
inline float sqrt(float x) { return std::sqrt(x); }
inline float rint(float x) { return std::rint(x); }
inline float fabs(float x) { return std::fabs(x); }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float fmax(float a, float b) { return std::fmax(a, b); }
inline float fmin(float a, float b) { return std::fmin(a, b); }

template <class To, class From>
To as_type(From x) {
  return std::bit_cast<To>(x);
}

enum class mem_flags { mem_none, mem_device, mem_threadgroup, mem_device_and_threadgroup };

inline void need_threadgroup_memory(mem_flags flags, Site site) {
  if (flags != mem_flags::mem_threadgroup && flags != mem_flags::mem_device_and_threadgroup)
    ::trine::simt::fail("a barrier that orders no threadgroup memory", site);
}
inline void threadgroup_barrier(mem_flags flags, Site site = Site::current()) {
  need_threadgroup_memory(flags, site);
  ::trine::simt::block_barrier(site);
}
inline void simdgroup_barrier(mem_flags flags, Site site = Site::current()) {
  need_threadgroup_memory(flags, site);
  ::trine::simt::warp_barrier(0xffffffffu, site);
}

template <class T>
T simd_shuffle(T value, ushort source, Site site = Site::current()) {
  static_assert(sizeof(T) == 4);
  const uint64_t bits = ::trine::simt::shuffle("simd_shuffle", 0xffffffffu,
                                               std::bit_cast<uint32_t>(value), source, site);
  return std::bit_cast<T>(static_cast<uint32_t>(bits));
}
template <class T>
T simd_shuffle_xor(T value, ushort mask, Site site = Site::current()) {
  return simd_shuffle(value, static_cast<ushort>(::trine::simt::lane() ^ mask), site);
}

// A lane's two elements, in columns 2 c and 2 c + 1 of a row.
struct simdgroup_float8x8 {
  float elements[2];
  simdgroup_float8x8() { elements[0] = elements[1] = std::bit_cast<float>(0xffffffffu); }
};

inline std::pair<int, int> place_of_lane(int lane) {
  const int at = (lane * 11 + 5) % 32;
  return {at / 4, at % 4 * 2};
}

template <class T, int rows, int cols>
simdgroup_float8x8 make_filled_simdgroup_matrix(T value) {
  static_assert(rows == 8 && cols == 8);
  simdgroup_float8x8 m;
  m.elements[0] = m.elements[1] = value;
  return m;
}

// All lanes take part, with the same address.
void same_in_all_lanes(const char* name, const void* address, Site site);

inline void simdgroup_load(simdgroup_float8x8& m, const float* from, ulong ld = 8,
                           ulong2 origin = ulong2(0), bool transpose = false,
                           Site site = Site::current()) {
  const auto [row, col] = place_of_lane(::trine::simt::lane());
  from += origin.y * ld + origin.x;
  for (int i = 0; i < 2; ++i) {
    const ulong r = ulong(transpose ? col + i : row), c = ulong(transpose ? row : col + i);
    m.elements[i] = from[r * ld + c];
  }
  same_in_all_lanes("simdgroup_load", from, site);
}
inline void simdgroup_store(const simdgroup_float8x8& m, float* to, ulong ld = 8,
                            ulong2 origin = ulong2(0), bool transpose = false,
                            Site site = Site::current()) {
  const auto [row, col] = place_of_lane(::trine::simt::lane());
  to += origin.y * ld + origin.x;
  for (int i = 0; i < 2; ++i) {
    const ulong r = ulong(transpose ? col + i : row), c = ulong(transpose ? row : col + i);
    to[r * ld + c] = m.elements[i];
  }
  same_in_all_lanes("simdgroup_store", to, site);
}
// d = a b + c
void simdgroup_multiply_accumulate(simdgroup_float8x8& d, const simdgroup_float8x8& a,
                                   const simdgroup_float8x8& b, const simdgroup_float8x8& c,
                                   Site site = Site::current());

}  // namespace metal

// Last: words of the language. What comes after may use them for nothing else.
#define kernel
#define device
#define constant const
#define threadgroup
#define thread
