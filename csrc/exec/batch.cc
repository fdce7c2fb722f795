// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"
#include "trine.h"

namespace trine {

void Batch::add(std::span<const int32_t> ids, std::span<const int32_t> token_types,
                int32_t prompt_length) {
  const bool types_so_far = token_types_.size() == ids_.size() && !ids_.empty();
  if (!token_types.empty() && token_types.size() != ids.size()) {
    throw InputError(cat("sequence ", prompt_lengths_.size(), " has ", ids.size(), " ids and ",
                         token_types.size(), " token types"));
  }
  // Token types are given for all sequences or for none; the first one that has them makes the
  // earlier ones 0.
  if (!token_types.empty() || types_so_far) {
    token_types_.resize(ids_.size());
    token_types_.insert(token_types_.end(), token_types.begin(), token_types.end());
    token_types_.resize(ids_.size() + ids.size());
  }
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  offsets_.push_back(static_cast<int32_t>(ids_.size()));
  prompt_lengths_.push_back(prompt_length);
}

void Batch::clear() noexcept {
  ids_.clear();
  token_types_.clear();
  offsets_.resize(1);
  prompt_lengths_.clear();
}

}  // namespace trine
