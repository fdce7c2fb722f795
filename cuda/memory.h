// SPDX-License-Identifier: Apache-2.0
// Memory of one GPU, and host memory that it reads and writes by itself.
#pragma once

#include <cstddef>
#include <memory>

namespace trine::cuda {

// The GPU that the calling thread's next calls are for.
void use(int device);

// Of the GPU in use; 256-byte aligned, not cleared. Freed whichever thread lets it go.
std::shared_ptr<std::byte> device_alloc(size_t bytes, int device);
// Pinned: copies between it and the GPU need no other buffer.
std::shared_ptr<std::byte> pinned_alloc(size_t bytes, int device);

}  // namespace trine::cuda
