// SPDX-License-Identifier: Apache-2.0
// A run on the GPU: what comes from the host is written where the GPU reads it, all steps are one
// command buffer, and results are read where it wrote them.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "backend.h"
#include "ops.h"
#include "run.h"

namespace trine::metal {

// What steps need besides their arguments, of all that were lowered so far.
struct Needs {
  std::vector<AttentionArgs> attentions;  // sizes, each once: of those with a cache
  int64_t frequencies = 0;  // floats for each sequence, of rotary steps that depend on the length
};

// Buffers by the address that the host has of them.
class Arenas {
 public:
  std::shared_ptr<std::byte> add(Buffer buffer);
  Id find(const std::byte* start) const;

 private:
  mutable std::mutex mutex_;
  std::map<const std::byte*, Buffer> buffers_;
};

class Context : public DeviceContext {
 public:
  Context(std::shared_ptr<Device> device, const Needs& needs, const Arenas& arenas,
          const KvPool* const* pool);

  const void* get() const noexcept override { return &run_; }
  void reserve(const RunSize& size) override;
  size_t bytes() const noexcept override { return run_.inputs.bytes + partial_.bytes; }
  void begin(RunContext& c) override;
  void run(std::span<const Step> steps, const RunContext& c) override;
  void wait() override;
  void fetch(const RunContext& c, const Operand& value, int64_t begin, int64_t rows,
             float* to) override;
  void finish() override;

 private:
  struct Pending {  // to be copied to the caller once the run is done
    const float* from;
    int64_t ld, rows, cols;
    float* to;
  };

  void grow_partial(const RunContext& c);

  const Needs& needs_;
  const Arenas& arenas_;
  const KvPool* const* pool_;
  Run run_;
  gpu::Staging staged_{kChunkKeys};
  Buffer partial_;
  std::vector<Pending> pending_;
};

}  // namespace trine::metal
