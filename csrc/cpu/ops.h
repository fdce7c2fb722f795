// SPDX-License-Identifier: Apache-2.0
// Drivers: split one op over the pool's threads and call the kernels of one table. They decide only
// who computes which output, never the order in which one output is summed.
#pragma once

#include <cstddef>

#include "cpu/kernel_table.h"
#include "cpu/thread_pool.h"

namespace trine::cpu {

struct Workers {
  const KernelTable* table;
  ThreadPool* pool;
  std::byte* scratch;     // one piece per thread, 64-byte aligned
  size_t scratch_stride;  // bytes from one thread's piece to the next's, a multiple of 64
  // Of a linear whose kernel prepares x, for all threads: its rows, and what is beside each.
  // 64-byte aligned; prepared_floats() says how many.
  float* prepared = nullptr;
};

int64_t prepared_floats(const LinearKernel&, int64_t rows, int64_t k) noexcept;

void linear(const LinearArgs&, const Workers&) noexcept;
void linear_bf16(const LinearArgs&, const Workers&) noexcept;
void linear_int8(const LinearArgs&, const Workers&) noexcept;
void linear_groups(const LinearArgs&, GroupForm, const Workers&) noexcept;
void attention(const AttentionArgs&, const Workers&) noexcept;
void attention_bf16(const AttentionArgs&, const Workers&) noexcept;
// Of a batch in which some sequence has a cache; both of them call it.
void attention_cached(const AttentionArgs&, const AttentionKernel&, const Workers&) noexcept;
void layer_norm(const LayerNormArgs&, const Workers&) noexcept;
void embedding(const EmbeddingArgs&, const Workers&) noexcept;
void activation(const ActivationArgs&, const Workers&) noexcept;
void add(const AddArgs&, const Workers&) noexcept;
void pool(const PoolArgs&, const Workers&) noexcept;
void l2_normalize(const L2NormalizeArgs&, const Workers&) noexcept;
void rms_norm(const RmsNormArgs&, const Workers&) noexcept;
void rotary(const RotaryArgs&, const Workers&) noexcept;
void rope(const RopeArgs&, const Workers&) noexcept;
void gated(const GatedArgs&, const Workers&) noexcept;
void scale(const ScaleArgs&, const Workers&) noexcept;

// Weights [N, K] (row-major, F32, F16 or BF16, any alignment) into the panels of kernel_table.h,
// starting at `packed`, 64-byte aligned; bf16 rounded to nearest, ties to even. `packed_..` says
// how many elements that takes. Threaded: it is most of the time to load a model.
int64_t packed_floats(int64_t n, int64_t k) noexcept;
int64_t packed_bf16(int64_t n, int64_t k) noexcept;
int64_t packed_int8(int64_t n, int64_t k) noexcept;
void pack_linear(const void* w, DType dtype, int64_t n, int64_t k, float* packed,
                 ThreadPool&) noexcept;
void pack_linear_bf16(const void* w, DType dtype, int64_t n, int64_t k, uint16_t* packed,
                      ThreadPool&) noexcept;
// Each column's weights quantised as exec/int8.h has it.
void pack_linear_int8(const void* w, DType dtype, int64_t n, int64_t k, int8_t* packed,
                      ThreadPool&) noexcept;

// The same in groups of a form that holds the dtype; false where weights/groups.h says so. A group
// of a panel takes kPanel * group_bytes(form).
bool pack_linear_groups(const void* w, DType dtype, int64_t n, int64_t k, GroupForm form,
                        std::byte* packed, ThreadPool&) noexcept;

}  // namespace trine::cpu
