// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>

#include "base/json.h"
#include "trine.h"

// Any text is a ModelError, or a value that is the same after writing and reading it again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const trine::Json value = trine::Json::parse(text, "fuzz");
    if (!(trine::Json::parse(value.dump(), "again") == value)) std::abort();
  } catch (const trine::ModelError&) {
  }
  return 0;
}
