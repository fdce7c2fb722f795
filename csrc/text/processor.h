// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/json.h"

namespace trine::text {

// Puts special tokens around one or two texts, a "post-processor". A value.
class Processor {
 public:
  Processor() = default;
  // Of tokenizer.json's "post_processor"; ModelError for one that isn't known or is incomplete.
  explicit Processor(const Json& description);

  // False where the file has none.
  bool there() const noexcept { return there_; }
  // How many tokens are put around.
  size_t added(bool pair) const noexcept { return pair ? added_pair_ : added_single_; }
  // Adds tokens and their types. Whether the last one is special.
  bool run(std::span<const int32_t> first, const std::span<const int32_t>* second, bool special,
           std::vector<int32_t>& ids, std::vector<int32_t>& types) const;

 private:
  struct Part {
    int text = -1;  // 0 or 1: that text; else tokens
    std::vector<int32_t> tokens = {};
    int32_t type = 0;
  };
  using Template = std::vector<Part>;
  void add(const Json& description);
  static Template read_template(const Json& parts, const Json& tokens, bool pair);
  static size_t count(const Template& parts);

  // Without a processor two texts are laid end to end, the second with the type 1.
  Template single_{{.text = 0}}, pair_{{.text = 0}, {.text = 1, .type = 1}};
  size_t added_single_ = 0, added_pair_ = 0;
  bool there_ = false, has_template_ = false;
};

}  // namespace trine::text
