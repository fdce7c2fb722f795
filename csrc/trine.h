// SPDX-License-Identifier: Apache-2.0
// The public C++ API of trine. C++20; everything that can fail throws one of the errors below,
// before a run's first step.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

namespace trine {

// Of the library, "0.1.0".
const char* version() noexcept;

class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A checkpoint that is broken, lacks a tensor or is of an unknown architecture: the text names
// file, tensor and field.
class ModelError : public Error {
  using Error::Error;
};
// What the caller passed cannot be run: an id out of range, a sequence too long, an unknown output.
class InputError : public Error {
  using Error::Error;
};
// The device is missing, lacks something or failed.
class DeviceError : public Error {
  using Error::Error;
};

// Sequences laid end to end: sequence b is ids[offsets[b]] .. ids[offsets[b + 1] - 1]. No padding.
class Batch {
 public:
  // token_types: empty, or one per id. prompt_length: how many of the first tokens belong to a
  // prompt that pooling leaves out when the model's pooling says so.
  void add(std::span<const int32_t> ids, std::span<const int32_t> token_types = {},
           int32_t prompt_length = 0);
  void add(std::initializer_list<int32_t> ids) { add(std::span(ids.begin(), ids.size())); }
  void clear() noexcept;

  std::span<const int32_t> ids() const noexcept { return ids_; }
  std::span<const int32_t> token_types() const noexcept { return token_types_; }
  std::span<const int32_t> offsets() const noexcept { return offsets_; }
  std::span<const int32_t> prompt_lengths() const noexcept { return prompt_lengths_; }

 private:
  std::vector<int32_t> ids_;
  std::vector<int32_t> token_types_;
  std::vector<int32_t> offsets_{0};
  std::vector<int32_t> prompt_lengths_;
};

}  // namespace trine
