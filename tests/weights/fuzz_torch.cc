// SPDX-License-Identifier: Apache-2.0
#include "trine.h"
#include "weights/torch_file.h"

static void touch(volatile const std::byte& byte) { (void)byte; }

// Any bytes end in tensors, all of whose data can be touched, or in a ModelError.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    for (const auto& tensor : trine::parse_torch(std::as_bytes(std::span(data, size)), "fuzz")) {
      if (!tensor.data.empty()) touch(tensor.data.front()), touch(tensor.data.back());
    }
  } catch (const trine::ModelError&) {
  }
  return 0;
}
