// SPDX-License-Identifier: Apache-2.0
// Metal's objects, as far as metal/ uses them.
#pragma once

#include <cstddef>

#include "metal/fake/objects.h"
#include "simt/metal_registry.h"

namespace trine::fake {

// Fresh memory is full of what no kernel may take for a number; what lies behind a buffer's end
// belongs to nobody, and is looked at when the buffer was used.
struct Buffer : Object {
  Buffer(void* memory, size_t bytes, bool owns);
  void end() override;
  // Misuse when somebody wrote behind the end.
  void check_end(const char* when) const;

  std::byte* data;
  size_t bytes;
  bool owns;
};

struct Pipeline : Object {
  Pipeline(std::string kernel_name, const simt::MetalKernel& found);
  std::string kernel;
  const simt::MetalKernel& function;
};

extern const Class kBuffer, kPipeline;

Id new_queue();

}  // namespace trine::fake
