// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "base/json.h"
#include "text/buffer.h"

namespace trine::text {

// What is done to a text before it is split. Safe to use from many threads.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // `spare` has room, and nothing that is needed, before and after.
  virtual void run(Buffer& buffer, Buffer& spare) const = 0;
};

// One after the other; sequences within sequences are laid out flat.
class Normalizers {
 public:
  Normalizers() = default;
  // Of tokenizer.json's "normalizer"; ModelError for one that isn't known or is incomplete.
  explicit Normalizers(const Json& description);

  bool empty() const noexcept { return all_.empty(); }
  void run(Buffer& buffer, Buffer& spare) const {
    for (const auto& one : all_) one->run(buffer, spare);
  }

 private:
  void add(const Json& description);

  std::vector<std::unique_ptr<const Normalizer>> all_;
};

}  // namespace trine::text
