// SPDX-License-Identifier: Apache-2.0
#include "gpu/staging.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "gpu/kv_pool.h"

namespace trine::gpu {

size_t Staging::bytes_for(const RunSize& size) const noexcept {
  const auto tokens = static_cast<size_t>(size.tokens);
  const auto sequences = static_cast<size_t>(size.sequences);
  const size_t pages =
      sequences * static_cast<size_t>(KvPool::pages_for(round_up(size.max_length, key_unit_)));
  // ids and token types; offsets, prompt lengths, lengths, past; pages.
  return (2 * tokens + 4 * (sequences + 1) + pages) * sizeof(int32_t) + 8 * kLine;
}

// Places `count` ints into the staging memory; returns where they will be on the device.
int32_t* Staging::add(const void* from, size_t count) {
  const size_t at = used_;
  used_ = round_up(at + count * sizeof(int32_t), kLine);
  if (from != nullptr) std::memcpy(host_ + at, from, count * sizeof(int32_t));
  return reinterpret_cast<int32_t*>(device_ + at);
}

StagedCaches Staging::add_caches(const RunContext& c) {
  StagedCaches out;
  const auto sequences = static_cast<size_t>(c.batch.sequences);
  std::vector<int32_t> past(sequences, -1);
  const auto ld = static_cast<size_t>(KvPool::pages_for(round_up(c.max_total, key_unit_)));
  std::vector<int32_t> table(sequences * ld);
  for (size_t b = 0; b < sequences; ++b) {
    const auto* const kv = static_cast<const PagedKv*>(c.caches[b].device);
    out.all_cached = out.all_cached && kv != nullptr;
    if (kv == nullptr) continue;
    past[b] = c.caches[b].past;
    const std::span<const int32_t> pages = kv->pages().first(std::min(ld, kv->pages().size()));
    std::copy(pages.begin(), pages.end(), table.begin() + static_cast<ptrdiff_t>(b * ld));
  }
  out.past = add(past.data(), sequences);
  out.pages = add(table.data(), table.size());
  out.pages_ld = static_cast<int64_t>(ld);
  return out;
}

StagedCaches Staging::write(RunContext& c, std::byte* host, std::byte* device) {
  host_ = host;
  device_ = device;
  used_ = 0;
  const auto tokens = static_cast<size_t>(c.tokens);
  const auto sequences = static_cast<size_t>(c.batch.sequences);
  c.batch.offsets = add(c.batch.offsets, sequences + 1);
  for (const auto& [input, count] : {std::pair{Input::kIds, tokens},
                                     {Input::kTokenTypes, tokens},
                                     {Input::kPromptLengths, sequences}}) {
    const int32_t*& at = c.inputs[static_cast<int>(input)];
    at = add(at, count);
  }
  c.lengths = add(c.lengths, sequences);
  StagedCaches caches;
  if (c.caches != nullptr) caches = add_caches(c);
  // Grids that differ a little are launched alike: threads beyond a sequence's end have no work.
  if (sequences > 1 && c.max_length > 1) c.max_length = round_up(c.max_length, int64_t{32});
  c.max_total = round_up(c.max_total, key_unit_);
  return caches;
}

}  // namespace trine::gpu
