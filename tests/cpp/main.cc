// SPDX-License-Identifier: Apache-2.0
// trine_tests [--list] [part of a test's name or file]...
#include <algorithm>
#include <cstdio>
#include <exception>

#include "check.h"

namespace trine::test {

static bool current_failed = false;

void report_failure(const char* file, int line, const std::string& message) {
  current_failed = true;
  std::printf("%s:%d: %s\n", file, line, message.c_str());
}

static bool wanted(const Test& test, const std::vector<std::string_view>& filters) {
  return filters.empty() ||
         std::any_of(filters.begin(), filters.end(), [&](std::string_view filter) {
           return std::string_view(test.name).find(filter) != std::string_view::npos ||
                  std::string_view(test.file).find(filter) != std::string_view::npos;
         });
}

static bool passes(const Test& test) {
  current_failed = false;
  try {
    test.run();
  } catch (const std::exception& e) {
    report_failure(test.file, 0, cat("threw: ", e.what()));
  }
  if (current_failed) std::printf("FAILED %s\n", test.name);
  return !current_failed;
}

}  // namespace trine::test

int main(int argc, char** argv) {
  using namespace trine::test;
  bool list = false;
  std::vector<std::string_view> filters;
  for (const std::string_view argument : std::vector<std::string_view>(argv + 1, argv + argc)) {
    if (argument == "--list") {
      list = true;
    } else {
      filters.push_back(argument);
    }
  }
  int passed = 0, failed = 0;
  for (const Test& test : all_tests()) {
    if (!wanted(test, filters)) continue;
    if (list) {
      std::printf("%s\n", test.name);
    } else {
      ++(passes(test) ? passed : failed);
    }
  }
  if (list) return 0;
  std::printf("%d passed, %d failed\n", passed, failed);
  // A filter that matches nothing is a mistake in the command, not a success.
  return failed == 0 && passed > 0 ? 0 : 1;
}
