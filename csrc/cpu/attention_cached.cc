// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cpu/ops.h"

namespace trine::cpu {

namespace {

// So few new rows are appended by the item that reads them; more are appended by all threads first,
// since their queries are then split.
constexpr int64_t kFewRows = 16;
// Below, waking a second thread costs what it saves: numbers of K and V read, 2 us or so of them.
constexpr int64_t kSerialWork = 32'768;
constexpr int64_t kMinQueries = 48;
constexpr int64_t kItemsPerThread = 4;

int64_t length_of(const AttentionArgs& args, int64_t sequence) {
  return args.batch.offsets[sequence + 1] - args.batch.offsets[sequence];
}

bool has_cache(const AttentionArgs& args, int64_t sequence) {
  return args.caches[sequence].data != nullptr;
}

// The whole of a key head, or one of several parts of its queries.
void attend(const AttentionArgs& args, int32_t b, int32_t kv_head, int64_t part, int64_t parts,
            const AttentionKernel& kernel, std::byte* scratch) noexcept {
  const int64_t length = length_of(args, b);
  if (has_cache(args, b)) {
    if (length <= kFewRows) {
      if (part > 0) return;
      kernel.append(args, b, kv_head);
      return kernel.cached(args, b, kv_head, 0, length, scratch);
    }
    return kernel.cached(args, b, kv_head, length * part / parts, length * (part + 1) / parts,
                         scratch);
  }
  const int32_t group = args.heads / args.kv_heads;
  for (int32_t h = kv_head * group; h < (kv_head + 1) * group; ++h)
    kernel.run(args, b, h, length * part / parts, length * (part + 1) / parts, scratch);
}

}  // namespace

void attention_cached(const AttentionArgs& args, const AttentionKernel& kernel,
                      const Workers& workers) noexcept {
  int64_t work = 0, longest = 0;
  for (int32_t b = 0; b < args.batch.sequences; ++b) {
    const int64_t length = length_of(args, b);
    work += length * (args.caches[b].past + length);
    longest = std::max(longest, length);
  }
  work *= 2 * args.heads * args.head_dim;
  const int64_t whole = int64_t{args.batch.sequences} * args.kv_heads;
  const int64_t threads = workers.pool->size();
  const auto sequence_of = [&](int64_t item) { return static_cast<int32_t>(item / args.kv_heads); };
  const auto head_of = [&](int64_t item) { return static_cast<int32_t>(item % args.kv_heads); };
  const auto append = [&](int64_t item, int) {
    const int32_t b = sequence_of(item);
    if (has_cache(args, b) && length_of(args, b) > kFewRows) kernel.append(args, b, head_of(item));
  };
  if (threads == 1 || work < kSerialWork) {
    for (int64_t item = 0; item < whole; ++item) {
      append(item, 0);
      attend(args, sequence_of(item), head_of(item), 0, 1, kernel, workers.scratch);
    }
    return;
  }
  if (longest > kFewRows) workers.pool->parallel_for(whole, append);
  const int64_t wanted = (kItemsPerThread * threads + whole - 1) / whole;
  const int64_t parts = std::clamp(longest / kMinQueries, int64_t{1}, wanted);
  workers.pool->parallel_for(whole * parts, [&](int64_t item, int thread) {
    attend(args, sequence_of(item / parts), head_of(item / parts), item % parts, parts, kernel,
           workers.scratch + static_cast<size_t>(thread) * workers.scratch_stride);
  });
}

}  // namespace trine::cpu
