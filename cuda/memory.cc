// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <algorithm>

#include "runtime.h"

namespace trine::cuda {

void use(int device) { check("choosing the GPU", cudaSetDevice(device)); }

std::shared_ptr<std::byte> device_alloc(size_t bytes, int device) {
  void* p = nullptr;
  check("allocating device memory", cudaMalloc(&p, std::max<size_t>(bytes, 1)));
  // Freeing may fail only when the context is lost, and its memory with it.
  return {static_cast<std::byte*>(p), [device](std::byte* q) {
            cudaSetDevice(device);
            cudaFree(q);
          }};
}

std::shared_ptr<std::byte> pinned_alloc(size_t bytes, int device) {
  void* p = nullptr;
  check("allocating pinned memory", cudaMallocHost(&p, std::max<size_t>(bytes, 1)));
  return {static_cast<std::byte*>(p), [device](std::byte* q) {
            cudaSetDevice(device);
            cudaFreeHost(q);
          }};
}

}  // namespace trine::cuda
