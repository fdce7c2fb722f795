// SPDX-License-Identifier: Apache-2.0
// The ops that treat every row (or, for pool, every sequence) on its own.
#include <algorithm>

#include "cpu/ops.h"

namespace trine::cpu {

namespace {

// Elements that one thread treats in about 2 us, a few instructions each; what is less than two
// such pieces stays on the calling thread.
constexpr int64_t kCheap = 16384;
constexpr int64_t kDear = 8192;  // with exponentials

template <class Args>
using RowKernel = void (*)(const Args&, int64_t begin, int64_t end) noexcept;

// `kernel` on all of [0, rows), in pieces of about `piece` elements.
template <class Args>
void split_rows(RowKernel<Args> kernel, const Args& args, int64_t rows, int64_t cols, int64_t piece,
                const Workers& workers) noexcept {
  const int64_t step = std::max<int64_t>(1, piece / std::max<int64_t>(1, cols));
  const int64_t pieces = (rows + step - 1) / step;
  if (pieces < 3 || workers.pool->size() == 1) return kernel(args, 0, rows);
  workers.pool->parallel_for(pieces, [&](int64_t item, int) {
    kernel(args, item * step, std::min(rows, (item + 1) * step));
  });
}

}  // namespace

void layer_norm(const LayerNormArgs& args, const Workers& workers) noexcept {
  split_rows(workers.table->layer_norm, args, args.rows, args.cols, kCheap, workers);
}

void embedding(const EmbeddingArgs& args, const Workers& workers) noexcept {
  split_rows(workers.table->embedding, args, args.rows, args.cols * args.count, kCheap, workers);
}

void activation(const ActivationArgs& args, const Workers& workers) noexcept {
  split_rows(workers.table->activation, args, args.rows, args.cols, kDear, workers);
}

void add(const AddArgs& args, const Workers& workers) noexcept {
  split_rows(workers.table->add, args, args.rows, args.cols, kCheap, workers);
}

void pool(const PoolArgs& args, const Workers& workers) noexcept {
  // A sequence is one row of the split; its share is the average length.
  const int64_t sequences = args.batch.sequences;
  const int64_t tokens = sequences > 0 ? args.batch.offsets[sequences] : 0;
  const int64_t average = sequences > 0 ? std::max<int64_t>(1, tokens / sequences) : 1;
  split_rows(workers.table->pool, args, sequences, args.cols * average, kCheap, workers);
}

void l2_normalize(const L2NormalizeArgs& args, const Workers& workers) noexcept {
  split_rows(workers.table->l2_normalize, args, args.rows, args.cols, kCheap, workers);
}

void rms_norm(const RmsNormArgs& args, const Workers& workers) noexcept {
  split_rows(workers.table->rms_norm, args, args.rows, args.cols, kCheap, workers);
}

void rotary(const RotaryArgs& args, const Workers& workers) noexcept {
  split_rows(workers.table->rotary, args, args.rows, 2 * args.pairs, kDear, workers);
}

void rope(const RopeArgs& args, const Workers& workers) noexcept {
  split_rows(workers.table->rope, args, args.rows, args.heads * args.head_dim, kCheap, workers);
}

void gated(const GatedArgs& args, const Workers& workers) noexcept {
  split_rows(workers.table->gated, args, args.rows, args.cols, kDear, workers);
}

void scale(const ScaleArgs& args, const Workers& workers) noexcept {
  split_rows(workers.table->scale, args, args.rows, args.cols, kCheap, workers);
}

}  // namespace trine::cpu
