// SPDX-License-Identifier: Apache-2.0
#include "exec/plugin.h"

#include "backend.h"
#include "device.h"
#include "gpu/plugin_entry.h"
#include "metal_backend.h"

namespace trine::metal {
namespace {

int devices(char* reason, size_t size) noexcept {
  return gpu::or_say(-1, reason, size, [] { return Device::count(); });
}

// Half the bytes of float32 with its range; the kernels multiply both types as float.
DType default_dtype(int) noexcept { return DType::kBF16; }

Backend* make(int index, DType dtype, char* reason, size_t size) noexcept {
  return gpu::or_say<Backend*>(nullptr, reason, size,
                               [&] { return make_backend(index, dtype).release(); });
}

}  // namespace
}  // namespace trine::metal

TRINE_PLUGIN_EXPORT const trine::PluginApi trine_plugin = {
    trine::PluginApi::kVersion, trine::plugin_build(), trine::metal::devices,
    trine::metal::default_dtype, trine::metal::make};
