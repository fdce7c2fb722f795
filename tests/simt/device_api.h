// SPDX-License-Identifier: Apache-2.0
// CUDA's runtime library, as much as the plugin's host code needs besides launches: memory, copies,
// streams and properties of one device that is the processor. Whatever can fail on a GPU fails here
// when TRINE_SIMT_FAIL asks for it: "cudaMalloc:2:3" is error 2 from the third call on; several are
// separated by commas.
#pragma once

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "simt/failure.h"
#include "simt/runtime.h"

inline constexpr cudaError_t cudaErrorMemoryAllocation = static_cast<cudaError_t>(2);
inline constexpr cudaError_t cudaErrorInsufficientDriver = static_cast<cudaError_t>(35);
inline constexpr cudaError_t cudaErrorNoDevice = static_cast<cudaError_t>(100);
inline constexpr cudaError_t cudaErrorInvalidDevice = static_cast<cudaError_t>(101);
inline constexpr cudaError_t cudaErrorNoKernelImageForDevice = static_cast<cudaError_t>(209);
inline constexpr cudaError_t cudaErrorUnsupportedPtxVersion = static_cast<cudaError_t>(222);
inline constexpr cudaError_t cudaErrorIllegalAddress = static_cast<cudaError_t>(700);
inline constexpr cudaError_t cudaErrorLaunchTimeout = static_cast<cudaError_t>(702);
inline constexpr cudaError_t cudaErrorAssert = static_cast<cudaError_t>(710);
inline constexpr cudaError_t cudaErrorHardwareStackError = static_cast<cudaError_t>(714);
inline constexpr cudaError_t cudaErrorIllegalInstruction = static_cast<cudaError_t>(715);
inline constexpr cudaError_t cudaErrorMisalignedAddress = static_cast<cudaError_t>(716);
inline constexpr cudaError_t cudaErrorInvalidAddressSpace = static_cast<cudaError_t>(717);
inline constexpr cudaError_t cudaErrorInvalidPc = static_cast<cudaError_t>(718);
inline constexpr cudaError_t cudaErrorLaunchFailure = static_cast<cudaError_t>(719);

enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3
};
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75 };
inline constexpr unsigned cudaStreamNonBlocking = 1;

struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  size_t sharedMemPerBlockOptin;
};

#define TRINE_SIMT_MAY_FAIL(function)                                                      \
  do {                                                                                     \
    static std::atomic<int> calls{0};                                                      \
    const int planned = ::trine::simt::planned_failure(function, calls);                   \
    if (planned != 0) return ::trine::simt::remembered(static_cast<cudaError_t>(planned)); \
  } while (false)

inline const char* cudaGetErrorString(cudaError_t error) {
  switch (static_cast<int>(error)) {
    case 2:
      return "out of memory";
    case 35:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case 100:
      return "no CUDA-capable device is detected";
    case 101:
      return "invalid device ordinal";
    case 209:
      return "no kernel image is available for execution on the device";
    case 700:
      return "an illegal memory access was encountered";
    default:
      return "emulated error";
  }
}

inline cudaError_t cudaGetDeviceCount(int* count) {
  TRINE_SIMT_MAY_FAIL("cudaGetDeviceCount");
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  TRINE_SIMT_MAY_FAIL("cudaSetDevice");
  return device == 0 ? cudaSuccess : trine::simt::remembered(cudaErrorInvalidDevice);
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 9;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* chip, int) {
  TRINE_SIMT_MAY_FAIL("cudaGetDeviceProperties");
  *chip = {"emulated GPU", 9, 0, 4, trine::simt::shared_bytes()};
  return cudaSuccess;
}

// Device memory is full of what no kernel may take for a number.
inline cudaError_t cudaMalloc(void** p, size_t bytes) {
  TRINE_SIMT_MAY_FAIL("cudaMalloc");
  if (posix_memalign(p, 256, (bytes + 255) / 256 * 256) != 0) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xff, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* p) {
  std::free(p);
  return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void** p, size_t bytes) {
  TRINE_SIMT_MAY_FAIL("cudaMallocHost");
  return posix_memalign(p, 256, (bytes + 255) / 256 * 256) == 0 ? cudaSuccess
                                                                : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }
inline cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  std::memset(p, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  TRINE_SIMT_MAY_FAIL("cudaMemcpy");
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  TRINE_SIMT_MAY_FAIL("cudaMemcpyAsync");
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                                     size_t width, size_t height, cudaMemcpyKind, cudaStream_t) {
  TRINE_SIMT_MAY_FAIL("cudaMemcpy2DAsync");
  for (size_t i = 0; i < height; ++i) {
    std::memcpy(static_cast<char*>(to) + i * to_pitch,
                static_cast<const char*>(from) + i * from_pitch, width);
  }
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  TRINE_SIMT_MAY_FAIL("cudaStreamCreateWithFlags");
  *stream = nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  TRINE_SIMT_MAY_FAIL("cudaStreamSynchronize");
  return cudaSuccess;
}

#undef TRINE_SIMT_MAY_FAIL
