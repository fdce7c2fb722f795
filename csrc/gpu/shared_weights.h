// SPDX-License-Identifier: Apache-2.0
// Dense weights that a GPU has already: a tied head and its embedding are one copy where they can.
#pragma once

#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "exec/host.h"

namespace trine::gpu {

class SharedWeights {
 public:
  // `parts` as `dtype`, in the file's order and without padding; null when it isn't there.
  std::shared_ptr<void> find(const std::vector<host::Part>& parts, DType dtype) const {
    const auto found = one(parts) ? known_.find(key(parts, dtype)) : known_.end();
    return found == known_.end() ? nullptr : found->second.lock();
  }
  void add(const std::vector<host::Part>& parts, DType dtype, const std::shared_ptr<void>& weight) {
    if (one(parts)) known_[key(parts, dtype)] = weight;
  }

 private:
  using Key = std::tuple<const void*, int64_t, int64_t, DType>;

  // Whether an address names the weight for as long as the model lives.
  static bool one(const std::vector<host::Part>& parts) {
    return parts.size() == 1 && parts[0].owner == nullptr;
  }
  static Key key(const std::vector<host::Part>& parts, DType dtype) {
    return {parts[0].data, parts[0].rows, parts[0].cols, dtype};
  }

  std::map<Key, std::weak_ptr<void>> known_;
};

}  // namespace trine::gpu
