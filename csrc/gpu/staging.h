// SPDX-License-Identifier: Apache-2.0
// What a run brings along from the host: ids, offsets, lengths and where its sequences' keys and
// values are, one after the other in a piece of memory that goes to the GPU as a whole.
#pragma once

#include <cstddef>
#include <cstdint>

#include "exec/step.h"

namespace trine::gpu {

// Where the device finds what attention needs to know of the caches.
struct StagedCaches {
  // [sequences]: tokens in the caches before this run, -1 where there is no cache; null when there
  // is none at all.
  const int32_t* past = nullptr;
  const int32_t* pages = nullptr;  // [sequences][pages_ld]
  int64_t pages_ld = 0;
  bool all_cached = true;  // of the sequences
};

class Staging {
 public:
  static constexpr size_t kLine = 256;

  // `key_unit`: what a run's max_total is rounded up to.
  explicit Staging(int64_t key_unit) : key_unit_(key_unit) {}

  size_t bytes_for(const RunSize& size) const noexcept;
  // Writes to `host` what has room there by bytes_for; in `c` are then the addresses that it has
  // when it lies at `device`.
  StagedCaches write(RunContext& c, std::byte* host, std::byte* device);
  size_t used() const noexcept { return used_; }

 private:
  int32_t* add(const void* from, size_t count);
  StagedCaches add_caches(const RunContext& c);

  int64_t key_unit_;
  std::byte* host_ = nullptr;
  std::byte* device_ = nullptr;
  size_t used_ = 0;
};

constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace trine::gpu
