// SPDX-License-Identifier: Apache-2.0
#include "runtime.h"

#include "base/error.h"
#include "trine.h"

namespace trine::cuda {
namespace {

const char* advice(cudaError_t error) {
  switch (static_cast<int>(error)) {
    case cudaErrorNoDevice:
      return "; no GPU is visible: look at nvidia-smi and CUDA_VISIBLE_DEVICES, or use "
             "device=\"cpu\"";
    case cudaErrorInsufficientDriver:
    case cudaErrorUnsupportedPtxVersion:  // of a GPU that is newer than this build
      return "; the NVIDIA driver is missing or older than this build needs (version 580 or later "
             "for CUDA 13): update it, or use device=\"cpu\"";
    case cudaErrorMemoryAllocation:
      return "; this memory is full: use a smaller batch_size or max_seq_length, "
             "dtype=\"bfloat16\", or close what else is using the GPU";
    case cudaErrorNoKernelImageForDevice:
      return "; this build has no code for this GPU: it needs compute capability 7.5 or higher";
    case cudaErrorInvalidDevice:
      return "; there are fewer GPUs than that";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchTimeout:
      return "; the GPU's state in this process is lost: device=\"cpu\" still works, for the GPU "
             "start a new process, and please report this";
    default:
      return "";
  }
}

}  // namespace

void check(const char* what, cudaError_t error) {
  if (error == cudaSuccess) return;
  // Else the thread's next launch would be told of this error, on whatever device.
  static_cast<void>(cudaGetLastError());
  throw DeviceError(cat("CUDA, ", what, ": ", cudaGetErrorString(error), " (error ",
                        static_cast<int>(error), ")", advice(error)));
}

}  // namespace trine::cuda
