// SPDX-License-Identifier: Apache-2.0
// Kernels that show what the emulator does; run by test_kernels.cc.
#include "kernels/dialect.h"

kernel void matrices(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]],
                     device float* c [[buffer(2)]], constant int& how [[buffer(3)]], TRINE_THREAD) {
  simdgroup_float8x8 left, right, sum = make_filled_simdgroup_matrix<float, 8, 8>(0.5f);
  const bool transpose = how == 1;
  simdgroup_load(left, a, 11, ulong2(how == 2 ? 1 : 0), transpose);
  simdgroup_load(right, b, 9);
  simdgroup_multiply_accumulate(sum, left, right, sum);
  simdgroup_store(sum, c, 10, ulong2(0), how == 3);
}
TRINE_OWN_KERNEL(matrices);

kernel void lanes(device int* y [[buffer(0)]], TRINE_THREAD) {
  const int next = simd_shuffle(int(thread_id), ushort((lane + 1) % 32));
  const int other = simd_shuffle_xor(int(lane), ushort(5));
  y[thread_id] = next * 100 + other;
}
TRINE_OWN_KERNEL(lanes);

kernel void too_much(device float* y [[buffer(0)]], TRINE_THREAD) {
  TRINE_SHARED(float, memory, 8193);
  if (thread_id == 0) memory[0] = 1.0f;
  y[thread_id] = 0.0f;
}
TRINE_OWN_KERNEL(too_much);

kernel void orders_nothing(device float* y [[buffer(0)]], TRINE_THREAD) {
  y[thread_id] = 0.0f;
  threadgroup_barrier(mem_flags::mem_device);
}
TRINE_OWN_KERNEL(orders_nothing);

kernel void own_addresses(device const float* a [[buffer(0)]], TRINE_THREAD) {
  simdgroup_float8x8 m;
  simdgroup_load(m, a + lane, 8);
}
TRINE_OWN_KERNEL(own_addresses);
