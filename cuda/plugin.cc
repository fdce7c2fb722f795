// SPDX-License-Identifier: Apache-2.0
#include "exec/plugin.h"

#include "backend.h"
#include "base/error.h"
#include "cuda_backend.h"
#include "gpu/plugin_entry.h"
#include "runtime.h"

namespace trine::cuda {
namespace {

int devices(char* reason, size_t size) noexcept {
  return gpu::or_say(-1, reason, size, [] {
    int count = 0;
    check("looking for a GPU", cudaGetDeviceCount(&count));
    if (count == 0) check("looking for a GPU", cudaErrorNoDevice);
    return count;
  });
}

DType default_dtype(int index) noexcept {
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
  return major >= 8 ? DType::kBF16 : DType::kF32;
}

Backend* make(int index, DType dtype, char* reason, size_t size) noexcept {
  return gpu::or_say<Backend*>(nullptr, reason, size,
                               [&] { return make_backend(index, dtype).release(); });
}

}  // namespace
}  // namespace trine::cuda

TRINE_PLUGIN_EXPORT const trine::PluginApi trine_plugin = {
    trine::PluginApi::kVersion, trine::plugin_build(), trine::cuda::devices,
    trine::cuda::default_dtype, trine::cuda::make};
