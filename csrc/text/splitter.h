// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "base/json.h"
#include "text/buffer.h"

namespace trine::text {

// Cuts pieces into words, a "pre-tokenizer". Pieces that are tokens stay. Safe to use from many
// threads.
class Splitter {
 public:
  virtual ~Splitter() = default;
  // `spare` has room, and nothing that is needed, before and after.
  virtual void run(Pieces& pieces, Pieces& spare) const = 0;
};

// One after the other; sequences within sequences are laid out flat.
class Splitters {
 public:
  Splitters() = default;
  // Of tokenizer.json's "pre_tokenizer"; ModelError for one that isn't known or is incomplete.
  explicit Splitters(const Json& description);

  void run(Pieces& pieces, Pieces& spare) const {
    for (const auto& one : all_) one->run(pieces, spare);
  }

 private:
  void add(const Json& description);

  std::vector<std::unique_ptr<const Splitter>> all_;
};

}  // namespace trine::text
