// SPDX-License-Identifier: Apache-2.0
// What the steps of one run share: RunContext::device points to it.
#pragma once

#include <cstdint>

#include "exec/step.h"
#include "gpu/staging.h"
#include "kernels/ragged.h"
#include "runtime.h"

namespace trine::cuda {

struct Run {
  cudaStream_t stream = nullptr;
  gpu::StagedCaches caches;
  // Of one step at a time.
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
