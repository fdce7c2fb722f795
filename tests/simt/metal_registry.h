// SPDX-License-Identifier: Apache-2.0
// Metal's kernels by name, emulated: what newFunctionWithName finds and a dispatch runs in the fake
// Metal runtime. The sources of metal/kernels are linked in as C++ (tests/simt/metal.h); each
// kernel registers itself.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "simt/launch.h"

namespace trine::simt {

// What a kernel finds at an index: a buffer from its offset on, or the bytes of setBytes. For those
// of the args struct the address must be aligned to 8, for buffers to 16.
struct MetalBinding {
  void* data = nullptr;  // null: nothing was bound
  size_t bytes = 0;
};

struct MetalKernel;  // as registered

// Null if there is none.
const MetalKernel* find_metal_kernel(std::string_view name);
std::vector<std::string_view> metal_kernels();  // sorted

// Runs it to the end. Throws Error (simt/launch.h) for what a kernel does wrong, for a binding that
// is missing or too short for the args struct, and for sizes that Metal refuses.
void run_metal_kernel(const MetalKernel& kernel, std::span<const MetalBinding> bindings,
                      Index3 threadgroups, Index3 threads_per_threadgroup);

}  // namespace trine::simt
