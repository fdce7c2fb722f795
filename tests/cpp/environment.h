// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <string>

namespace trine::test {

// A variable of the environment while it lives; empty is none.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    set(value);
  }
  ~Environment() { set(old_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  void set(const std::string& value) {
#if defined(_WIN32)
    _putenv_s(name_, value.c_str());
#else
    value.empty() ? unsetenv(name_) : setenv(name_, value.c_str(), 1);
#endif
  }

  const char* name_;
  std::string old_;
};

}  // namespace trine::test
