// SPDX-License-Identifier: Apache-2.0
// Runs a plan: a loop over its steps. Memory grows when a batch is larger than any before, outside
// that loop; a run that fits allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend.h"
#include "compile/plan.h"
#include "exec/kv_cache.h"

namespace trine {

// A ragged batch as the core passes it on; nothing is owned.
struct BatchView {
  std::span<const int32_t> ids;             // [T]
  std::span<const int32_t> offsets;         // [B + 1]
  std::span<const int32_t> token_types;     // [T], or empty for zeros
  std::span<const int32_t> prompt_lengths;  // [B], or empty for zeros
  // [B], or empty; null where a sequence has none. The ids are then what comes behind the tokens in
  // the cache, and join them there.
  std::span<KvCache* const> caches = {};
  // [B], or empty: how long a sequence counts as where that matters (dynamic rope frequencies),
  // when a prompt is given in pieces; at least the tokens so far.
  std::span<const int32_t> lengths = {};

  int64_t tokens() const noexcept { return static_cast<int64_t>(ids.size()); }
  int32_t sequences() const noexcept { return static_cast<int32_t>(offsets.size()) - 1; }
};

// InputError when the batch is malformed or beyond the plan's limits.
void check(const BatchView&, const Limits&);

// Arena, inputs and device context of one run at a time.
class Workspace {
 public:
  explicit Workspace(Backend& backend) : backend_(backend) {}

  // Several batches become one. Call reserve first.
  void reserve(const Plan&, int64_t tokens, int32_t sequences, int64_t max_length);
  void clear() noexcept;
  void append(const BatchView&) noexcept;
  // DeviceError when the device fails, which a host's doesn't.
  void run(const Plan&);
  // Rows [begin, begin + rows) of an output, densely into `to`, complete after finish().
  void fetch(const Operand&, int64_t begin, int64_t rows, float* to);
  void finish();

  size_t bytes() const noexcept;
  // Seconds per step of the last run are kept while this is set.
  void set_profile(std::vector<double>* seconds) noexcept { seconds_ = seconds; }

 private:
  void set_context(const Plan&) noexcept;

  Backend& backend_;
  std::shared_ptr<std::byte> arena_;
  size_t arena_bytes_ = 0;
  std::unique_ptr<DeviceContext> device_;
  std::vector<int32_t> ids_, token_types_, offsets_{0}, prompt_lengths_, lengths_;
  std::vector<KvView> caches_;
  bool cached_ = false;  // whether any sequence has a cache
  int64_t max_length_ = 0, max_total_ = 0;
  RunContext context_{};
  std::vector<double>* seconds_ = nullptr;
};

}  // namespace trine
