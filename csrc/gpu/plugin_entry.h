// SPDX-License-Identifier: Apache-2.0
// What the functions that a plugin exports have in common: they don't throw, they say why not.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>

#include "base/platform.h"

namespace trine::gpu {

inline void say(const char* text, char* reason, size_t size) noexcept {
  if (size == 0) return;
  const size_t n = std::min(std::strlen(text), size - 1);
  std::memcpy(reason, text, n);
  reason[n] = '\0';
}

// work(), or `otherwise` and the reason when it throws.
template <class Result, class Work>
Result or_say(Result otherwise, char* reason, size_t size, Work work) noexcept {
  try {
    return work();
  } catch (const std::exception& e) {
    say(e.what(), reason, size);
    return otherwise;
  }
}

}  // namespace trine::gpu

#define TRINE_PLUGIN_EXPORT extern "C" TRINE_EXPORT
