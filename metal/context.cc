// SPDX-License-Identifier: Apache-2.0
#include "context.h"

#include <algorithm>
#include <cstring>

#include "kv_pool.h"

namespace trine::metal {

using gpu::round_up;

std::shared_ptr<std::byte> Arenas::add(Buffer buffer) {
  std::byte* const start = buffer.contents;
  const std::lock_guard lock(mutex_);
  buffers_[start] = std::move(buffer);
  return {start, [this](std::byte* p) {
            const std::lock_guard inner(mutex_);
            buffers_.erase(p);
          }};
}

Id Arenas::find(const std::byte* start) const {
  const std::lock_guard lock(mutex_);
  const auto found = buffers_.find(start);
  return found == buffers_.end() ? nullptr : found->second.object.get();
}

Context::Context(std::shared_ptr<Device> device, const Needs& needs, const Arenas& arenas,
                 const KvPool* const* pool)
    : needs_(needs), arenas_(arenas), pool_(pool), run_(std::move(device)) {}

void Context::reserve(const RunSize& size) {
  const size_t frequencies =
      static_cast<size_t>(size.sequences * needs_.frequencies) * sizeof(float);
  const size_t bytes = staged_.bytes_for(size) + frequencies;
  if (bytes <= run_.inputs.bytes) return;
  run_.abandon();
  run_.inputs = {};
  run_.inputs = run_.device().allocate(round_up(bytes + bytes / 2, gpu::Staging::kLine));
}

// Grown when a batch needs more than any before, outside of the steps.
void Context::grow_partial(const RunContext& c) {
  int64_t need = 0;
  if (c.caches != nullptr) {
    for (AttentionArgs a : needs_.attentions) {
      a.sequences = c.batch.sequences;
      a.pages.cached = 1;
      const AttentionBatch batch{static_cast<int32_t>(c.max_length),
                                 static_cast<int32_t>(c.max_total), run_.caches.all_cached};
      need = std::max(need, attention_workspace(a, batch));
    }
  }
  if (static_cast<size_t>(need) > partial_.bytes) {
    partial_ = {};
    partial_ = run_.device().allocate(static_cast<size_t>(need + need / 2));
  }
  run_.partial = {partial_.object.get(), 0, partial_.contents};
}

void Context::begin(RunContext& c) {
  run_.abandon();  // a run that failed half-way may still be reading
  pending_.clear();
  run_.arena = arenas_.find(c.token_rows);
  run_.arena_start = c.token_rows;
  std::byte* const inputs = run_.inputs.contents;
  run_.caches = staged_.write(c, inputs, inputs);
  run_.used = staged_.used();
  // Pages that this run's sequences have were taken before: this buffer has them.
  run_.pages = c.caches != nullptr && *pool_ != nullptr ? (*pool_)->buffer() : Ref();
  grow_partial(c);
}

void Context::run(std::span<const Step> steps, const RunContext& c) {
  const Pool pool;  // for what Metal itself may leave
  DeviceContext::run(steps, c);
  run_.commit();
}

void Context::wait() {
  run_.commit();
  run_.wait();
}

void Context::fetch(const RunContext& c, const Operand& value, int64_t begin, int64_t rows,
                    float* to) {
  if (rows == 0) return;
  pending_.push_back({value.at<const float>(c) + begin * value.ld, value.ld, rows, value.cols, to});
}

void Context::finish() {
  wait();
  for (const Pending& p : pending_) {
    for (int64_t i = 0; i < p.rows; ++i) {
      std::memcpy(p.to + i * p.cols, p.from + i * p.ld,
                  static_cast<size_t>(p.cols) * sizeof(float));
    }
  }
  pending_.clear();
}

}  // namespace trine::metal
