// SPDX-License-Identifier: Apache-2.0
#include "exec/plugin.h"

#include <algorithm>
#include <cstring>
#include <exception>

#include "backend.h"
#include "base/error.h"
#include "cuda_backend.h"
#include "runtime.h"

namespace trine::cuda {
namespace {

void say(const char* text, char* reason, size_t size) noexcept {
  if (size == 0) return;
  const size_t n = std::min(std::strlen(text), size - 1);
  std::memcpy(reason, text, n);
  reason[n] = '\0';
}

int devices(char* reason, size_t size) noexcept {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count;
  try {
    say(explain("looking for a GPU", error == cudaSuccess ? cudaErrorNoDevice : error).c_str(),
        reason, size);
  } catch (const std::exception&) {
    say("looking for a GPU: out of memory", reason, size);
  }
  return -1;
}

DType default_dtype(int index) noexcept {
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
  return major >= 8 ? DType::kBF16 : DType::kF32;
}

Backend* make(int index, DType dtype, char* reason, size_t size) noexcept {
  try {
    return make_backend(index, dtype).release();
  } catch (const std::exception& e) {
    say(e.what(), reason, size);
    return nullptr;
  }
}

}  // namespace
}  // namespace trine::cuda

extern "C"
#if defined(_WIN32)
    __declspec(dllexport)
#else
    __attribute__((visibility("default")))
#endif
    const trine::PluginApi trine_plugin = {trine::PluginApi::kVersion, trine::plugin_build(),
                                           trine::cuda::devices, trine::cuda::default_dtype,
                                           trine::cuda::make};
