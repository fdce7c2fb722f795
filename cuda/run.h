// SPDX-License-Identifier: Apache-2.0
// What the steps of one run share: RunContext::device points to it.
#pragma once

#include <cstdint>

#include "exec/step.h"
#include "kernels/ragged.h"
#include "runtime.h"

namespace trine::cuda {

struct Run {
  cudaStream_t stream = nullptr;
  // [sequences] on the device: tokens in the caches before this run, -1 where there is no cache;
  // null when there is none at all.
  const int32_t* past = nullptr;
  const int32_t* pages = nullptr;  // [sequences][pages_ld] on the device: KvPages::table
  int64_t pages_ld = 0;
  bool all_cached = true;  // of the sequences
  // The attention's, of one step at a time.
  void* workspace = nullptr;
  int32_t* counters = nullptr;
  // The first launch that failed, and where.
  mutable cudaError_t error = cudaSuccess;
  mutable const char* failed = nullptr;

  void note(const char* step, cudaError_t e) const noexcept {
    if (e == cudaSuccess || error != cudaSuccess) return;
    error = e;
    failed = step;
  }
};

inline const Run& run_of(const RunContext& c) noexcept {
  return *static_cast<const Run*>(c.device);
}

inline Ragged ragged(const RunContext& c) noexcept {
  return {c.batch.offsets, c.batch.sequences, static_cast<int32_t>(c.tokens),
          static_cast<int32_t>(c.max_length)};
}

}  // namespace trine::cuda
