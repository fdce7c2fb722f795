// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cpu/ops.h"

namespace trine::cpu {

namespace {

// About 5 us on one AVX-512 core: below, waking a second thread costs what it saves.
constexpr int64_t kSerialFlop = 500'000;
// Each item packs K (and copies V) again, so pieces of a sequence stay long.
constexpr int64_t kMinQueries = 96;
// Enough items that the last one leaves no thread idle for long.
constexpr int64_t kItemsPerThread = 4;

int64_t length_of(const Ragged& batch, int64_t sequence) {
  return batch.offsets[sequence + 1] - batch.offsets[sequence];
}

}  // namespace

void attention(const AttentionArgs& args, const Workers& workers) noexcept {
  int64_t pairs = 0, longest = 0;
  for (int32_t b = 0; b < args.batch.sequences; ++b) {
    const int64_t length = length_of(args.batch, b);
    pairs += length * length;
    longest = std::max(longest, length);
  }
  const int64_t flop = 4 * pairs * args.heads * args.head_dim;
  const int64_t whole = int64_t{args.batch.sequences} * args.heads;
  const int64_t threads = workers.pool->size();
  if (threads == 1 || flop < kSerialFlop) {
    for (int64_t item = 0; item < whole; ++item) {
      const auto b = static_cast<int32_t>(item / args.heads),
                 h = static_cast<int32_t>(item % args.heads);
      workers.table->attention(args, b, h, 0, length_of(args.batch, b), workers.scratch);
    }
    return;
  }

  const int64_t wanted = (kItemsPerThread * threads + whole - 1) / whole;
  const int64_t splits = std::clamp(longest / kMinQueries, int64_t{1}, wanted);
  workers.pool->parallel_for(whole * splits, [&](int64_t item, int thread) {
    const int64_t part = item % splits;
    const auto h = static_cast<int32_t>(item / splits % args.heads);
    const auto b = static_cast<int32_t>(item / splits / args.heads);
    const int64_t length = length_of(args.batch, b);
    workers.table->attention(
        args, b, h, length * part / splits, length * (part + 1) / splits,
        workers.scratch + static_cast<size_t>(thread) * workers.scratch_stride);
  });
}

}  // namespace trine::cpu
