// SPDX-License-Identifier: Apache-2.0
// The CUDA runtime library as the host code sees it, or the emulator's, and errors as exceptions.
#pragma once

#ifdef TRINE_SIMT
#include "simt/device_api.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace trine::cuda {

// DeviceError unless `error` is success: what failed, the library's own words, and what to do about
// it.
void check(const char* what, cudaError_t error);

}  // namespace trine::cuda
