// SPDX-License-Identifier: Apache-2.0
// The CUDA runtime library as the host code sees it, or the emulator's, and errors as exceptions.
#pragma once

#include <string>

#ifdef TRINE_SIMT
#include "simt/device_api.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace trine::cuda {

// What failed, the library's own words, and what to do about it.
std::string explain(const char* what, cudaError_t error);

// DeviceError unless `error` is success.
void check(const char* what, cudaError_t error);

}  // namespace trine::cuda
