// SPDX-License-Identifier: Apache-2.0
// CUDA's runtime library, as much as functions that launch kernels need. A stream is nothing here:
// all is done on return.
#pragma once

#include <cstddef>
#include <cstring>

#include "simt/block.h"

using dim3 = trine::simt::Index3;
using cudaStream_t = struct CUstream_st*;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNotSupported = 801
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute,
                                 int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > trine::simt::shared_bytes()) {
    return cudaErrorInvalidValue;
  }
  trine::simt::set_dynamic_shared_limit(reinterpret_cast<const void*>(kernel),
                                        static_cast<size_t>(value));
  return cudaSuccess;
}
// Launches report what they find by throwing simt::Error; of calls that failed, each thread keeps
// the last.
namespace trine::simt {
inline thread_local cudaError_t last_error = cudaSuccess;
inline cudaError_t remembered(cudaError_t error) { return last_error = error; }
}  // namespace trine::simt
inline cudaError_t cudaPeekAtLastError() { return trine::simt::last_error; }
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = trine::simt::last_error;
  trine::simt::last_error = cudaSuccess;
  return error;
}
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  std::memset(p, value, bytes);
  return cudaSuccess;
}
