// SPDX-License-Identifier: Apache-2.0
// Failures that a test asks for: TRINE_SIMT_FAIL="cudaMalloc:2:3" is error 2 from the third call
// on; several are separated by commas.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>

namespace trine::simt {

// The error for this call, 0 if none is planned.
inline int planned_failure(const char* function, std::atomic<int>& calls) {
  const int call = ++calls;
  const char* plan = std::getenv("TRINE_SIMT_FAIL");
  const std::string key = std::string(function) + ":";
  for (std::string text = plan != nullptr ? plan : ""; !text.empty();) {
    const std::string item = text.substr(0, text.find(','));
    text.erase(0, std::min(text.size(), item.size() + 1));
    if (item.compare(0, key.size(), key) != 0) continue;
    const size_t colon = item.find(':', key.size());
    if (call >= std::atoi(item.c_str() + colon + 1)) return std::atoi(item.c_str() + key.size());
  }
  return 0;
}

}  // namespace trine::simt
