// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cpu/ops.h"

namespace trine::cpu {

namespace {

// About 5 us on one AVX-512 core: below, waking a second thread costs what it saves.
constexpr int64_t kSerialFlop = 500'000;
// What it takes to pack a number of K and copy one of V.
constexpr int64_t kFlopPerMove = 16;
// Each item packs K (and copies V) again, so pieces of a sequence stay long.
constexpr int64_t kMinQueries = 96;
// Enough items that the last one leaves no thread idle for long.
constexpr int64_t kItemsPerThread = 4;

int64_t length_of(const Ragged& batch, int64_t sequence) {
  return batch.offsets[sequence + 1] - batch.offsets[sequence];
}

// One query of each sequence: an item packs all its keys for it, but that is a copy, not a product.
void attention_of_one(const AttentionArgs& args, const AttentionKernel& kernel,
                      const Workers& workers) noexcept {
  const int64_t items = int64_t{args.batch.sequences} * args.heads;
  const auto attend = [&](int64_t item, int thread) {
    const auto b = static_cast<int32_t>(item / args.heads),
               h = static_cast<int32_t>(item % args.heads);
    const int64_t length = length_of(args.batch, b);
    if (length == 0) {
      std::fill_n(args.y + b * args.ldy + int64_t{h} * args.head_dim, args.head_dim, 0.0f);
      return;
    }
    const int64_t query = args.queries == Queries::kFirst ? 0 : length - 1;
    kernel.run(args, b, h, query, query + 1,
               workers.scratch + static_cast<size_t>(thread) * workers.scratch_stride);
  };
  const int64_t moved =
      int64_t{args.batch.offsets[args.batch.sequences]} * args.heads * args.head_dim;
  if (workers.pool->size() > 1 && moved * kFlopPerMove >= kSerialFlop) {
    workers.pool->parallel_for(items, attend);
  } else {
    for (int64_t item = 0; item < items; ++item) attend(item, 0);
  }
}

void attend(const AttentionArgs& args, const AttentionKernel& kernel,
            const Workers& workers) noexcept {
  if (args.caches != nullptr) return attention_cached(args, kernel, workers);
  if (args.queries != Queries::kAll) return attention_of_one(args, kernel, workers);
  int64_t pairs = 0, longest = 0;
  for (int32_t b = 0; b < args.batch.sequences; ++b) {
    const int64_t length = length_of(args.batch, b);
    pairs += length * length;
    longest = std::max(longest, length);
  }
  const int64_t products = 2 + (args.position_keys != nullptr) + (args.position_queries != nullptr);
  const int64_t flop = 2 * products * pairs * args.heads * args.head_dim;
  const int64_t whole = int64_t{args.batch.sequences} * args.heads;
  const int64_t threads = workers.pool->size();
  if (threads == 1 || flop < kSerialFlop) {
    for (int64_t item = 0; item < whole; ++item) {
      const auto b = static_cast<int32_t>(item / args.heads),
                 h = static_cast<int32_t>(item % args.heads);
      kernel.run(args, b, h, 0, length_of(args.batch, b), workers.scratch);
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
    kernel.run(args, b, h, length * part / splits, length * (part + 1) / splits,
               workers.scratch + static_cast<size_t>(thread) * workers.scratch_stride);
  });
}

}  // namespace

void attention(const AttentionArgs& args, const Workers& workers) noexcept {
  attend(args, workers.table->attention, workers);
}

void attention_bf16(const AttentionArgs& args, const Workers& workers) noexcept {
  attend(args, workers.table->attention_bf16, workers);
}

}  // namespace trine::cpu
