// SPDX-License-Identifier: Apache-2.0
#include "trine.h"
#include "weights/safetensors.h"

static void touch(volatile const std::byte& byte) { (void)byte; }

// Any bytes end in a parsed file, all of whose data can be touched, or in a ModelError.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto content = trine::parse_safetensors(std::as_bytes(std::span(data, size)), "fuzz");
    for (const auto& tensor : content.tensors) {
      if (!tensor.data.empty()) touch(tensor.data.front()), touch(tensor.data.back());
    }
  } catch (const trine::ModelError&) {
  }
  return 0;
}
