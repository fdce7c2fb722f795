// SPDX-License-Identifier: Apache-2.0
// The whole test harness. A test file is a list of TEST(name) { ... } blocks; main.cc runs them.
// A failed check is reported and the test goes on, so one run shows everything that is wrong.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace trine::test {

struct Test {
  const char* name;
  const char* file;
  void (*run)();
};

// Registered by static objects, hence a function: no order of initialisation to get wrong.
inline std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

struct Register {
  explicit Register(const Test& test) { all_tests().push_back(test); }
};

// Defined in main.cc: prints the message and marks the running test as failed.
void report_failure(const char* file, int line, const std::string& message);

template <class T>
std::string show(const T& value) {
  if constexpr (std::is_same_v<T, std::nullptr_t>) {
    return "nullptr";
  } else if constexpr (std::is_enum_v<T>) {
    return cat("enum ", static_cast<long long>(value));
  } else if constexpr (std::is_pointer_v<T> && !std::is_convertible_v<T, std::string_view>) {
    return value == nullptr ? "nullptr" : "a pointer";
  } else if constexpr (requires { cat(value); }) {
    return cat(value);
  } else {
    return "a value";
  }
}

template <class A, class B>
void check_eq(const A& a, const B& b, const char* text, const char* file, int line) {
  if (!(a == b)) report_failure(file, line, cat(text, ": ", show(a), " is not ", show(b)));
}

template <class E, class F>
void check_throws(F&& run, std::string_view part, const char* text, const char* file, int line) {
  try {
    run();
  } catch (const E& e) {
    const std::string_view what = e.what();
    if (what.find(part) == what.npos) {
      report_failure(file, line, cat(text, ": no '", part, "' in the message: ", what));
    }
    return;
  } catch (const std::exception& e) {
    return report_failure(file, line, cat(text, " threw another type: ", e.what()));
  }
  report_failure(file, line, cat(text, " did not throw"));
}

// A folder that goes away with the test.
class TempDir {
 public:
  TempDir() {
    std::random_device seed;
    do {
      path_ = std::filesystem::temp_directory_path() / cat("trine-test-", seed());
    } while (!std::filesystem::create_directory(path_));
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(std::string_view name, std::string_view content) const {
    std::filesystem::path file = path_ / name;
    std::ofstream(file, std::ios::binary).write(content.data(), std::streamsize(content.size()));
    return file;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace trine::test

#define TEST(name)                                                                      \
  static void test_##name();                                                            \
  static const ::trine::test::Register register_##name{{#name, __FILE__, test_##name}}; \
  static void test_##name()

#define CHECK(...)                                                                       \
  do {                                                                                   \
    if (!(__VA_ARGS__)) ::trine::test::report_failure(__FILE__, __LINE__, #__VA_ARGS__); \
  } while (false)

#define CHECK_EQ(a, b) ::trine::test::check_eq((a), (b), #a " == " #b, __FILE__, __LINE__)

#define CHECK_THROWS_WITH(expression, ErrorType, part)                                             \
  ::trine::test::check_throws<ErrorType>([&] { (void)(expression); }, part, #expression, __FILE__, \
                                         __LINE__)
