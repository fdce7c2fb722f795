// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "trine.h"
#include "weights/gguf.h"

static void touch(volatile const std::byte& byte) { (void)byte; }

static void walk(const trine::GgufValue& value) {
  if (!value.bytes.empty()) touch(value.bytes.front()), touch(value.bytes.back());
  if (value.type != trine::GgufType::kArray) return;
  for (trine::GgufItems items(value); items.left() > 0;) walk(items.next());
}

// Any bytes end in a parsed file, all of whose values and data can be touched, or in a ModelError.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string name = "fuzz";
  try {
    const auto content = trine::parse_gguf(std::as_bytes(std::span(data, size)), name);
    for (const auto& key : content.metadata) walk(key.value);
    for (const auto& tensor : content.tensors) {
      if (trine::checked_bytes(tensor.dtype, tensor.shape) != tensor.data.size()) std::abort();
      if (!tensor.data.empty()) touch(tensor.data.front()), touch(tensor.data.back());
    }
  } catch (const trine::ModelError&) {
  }
  return 0;
}
