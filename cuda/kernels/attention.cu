// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention.h"

#include <algorithm>

#include "kernels/attention_launch.h"

namespace trine::cuda {
namespace {

using attend::Params;

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Rows of a (sequence, key head) where that is short.
int split_rows(const AttentionArgs& args) {
  const int group = args.heads / args.kv_heads;
  if (args.queries != Queries::kAll) return group;
  return group * std::min(args.batch.max_length, std::max(1, attend::kShortRows / group));
}

int chunks(const AttentionArgs& args) {
  const int keys = args.cache.data != nullptr ? args.cache.max_keys : args.batch.max_length;
  return (keys + kChunkKeys - 1) / kChunkKeys;
}

bool valid(const AttentionArgs& args) {
  if (args.head_dim < 1 || args.head_dim > kMaxHeadDim || args.kv_heads < 1 ||
      args.heads % args.kv_heads != 0)
    return false;
  const DType dtype = args.q.dtype;
  if (args.k.dtype != dtype || args.v.dtype != dtype) return false;
  const bool positions = args.position_at != nullptr;
  if (positions && (args.causal || args.bias != nullptr)) return false;
  for (const Matrix* table : {&args.position_keys, &args.position_queries}) {
    if (table->data != nullptr && (!positions || table->dtype != dtype)) return false;
  }
  // With a bias, or without a mask, scores may be scaled by anything.
  if (args.causal && (args.bias != nullptr || !(args.scale > 0))) return false;
  if (args.cache.data == nullptr) return true;
  return args.causal && (chunks(args) <= 1 || args.workspace != nullptr);
}

Params params_of(const AttentionArgs& args) {
  Params p = {};
  p.q = args.q.data, p.k = args.k.data, p.v = args.v.data;
  p.ldq = args.q.ld, p.ldk = args.k.ld, p.ldv = args.v.ld;
  p.bias = args.bias, p.span = args.span;
  p.y = args.y.data, p.ldy = args.y.ld, p.y_is_bf16 = args.y.dtype == DType::kBF16;
  p.offsets = args.batch.offsets, p.sequences = args.batch.sequences;
  p.heads = args.heads, p.kv_heads = args.kv_heads, p.head_dim = args.head_dim;
  p.scale = args.scale * attend::kLog2E;
  p.queries = args.queries;
  p.position_keys = args.position_keys.data, p.ld_keys = args.position_keys.ld;
  p.position_queries = args.position_queries.data, p.ld_queries = args.position_queries.ld;
  p.position_at = args.position_at, p.reach = args.reach;
  p.cache = args.cache;
  p.chunks = chunks(args);
  p.partial = static_cast<float*>(args.workspace);
  const auto size = static_cast<int64_t>(size_of(args.q.dtype));
  const auto rows_aligned = [&](const void* data, int64_t ld) {
    return data == nullptr || (aligned(data) && ld * size % 16 == 0);
  };
  p.vectors = args.head_dim * size % 16 == 0 && rows_aligned(p.q, p.ldq) &&
              rows_aligned(p.k, p.ldk) && rows_aligned(p.v, p.ldv) &&
              rows_aligned(p.position_keys, p.ld_keys) &&
              rows_aligned(p.position_queries, p.ld_queries) &&
              rows_aligned(p.cache.data, p.cache.page_stride) && p.cache.keys * size % 16 == 0 &&
              p.cache.values * size % 16 == 0;
  return p;
}

}  // namespace

int64_t attention_workspace(const AttentionArgs& args) {
  if (args.cache.data == nullptr || chunks(args) <= 1) return 0;
  const int64_t rows = int64_t{args.batch.sequences} * args.kv_heads * split_rows(args);
  return rows * chunks(args) * (args.head_dim + 2) * static_cast<int64_t>(sizeof(float));
}

int64_t attention_counters(const AttentionArgs& args) {
  if (args.cache.data == nullptr) return 0;
  return int64_t{args.batch.sequences} * args.kv_heads * ((split_rows(args) + 15) / 16);
}

bool attention_fits(const AttentionArgs& sizes, DType dtype, bool positions, int shared_bytes) {
  Params p = {};
  p.heads = sizes.heads, p.kv_heads = sizes.kv_heads, p.head_dim = sizes.head_dim;
  p.chunks = 2;  // a sum that waits for the next chunk's
  p.shared_limit = shared_bytes;
  const bool bf16 = dtype == DType::kBF16;
  const auto kind = sizes.causal ? attend::Kind::kCausal : attend::Kind::kPlain;
  const auto fit = [&](int sequences, int rows) {
    p.sequences = sequences;
    if (positions) {
      return bf16 ? attend::disentangled_bf16(p, rows, nullptr)
                  : attend::disentangled_f32(p, rows, nullptr);
    }
    const cudaError_t error =
        bf16 ? attend::rows_bf16(kind, p, rows, nullptr) : attend::rows_f32(kind, p, rows, nullptr);
    if (error != cudaSuccess || !sizes.causal) return error;
    return bf16 ? attend::split_bf16(p, nullptr) : attend::split_f32(p, nullptr);
  };
  // Many long sequences have kernels of their own.
  return fit(1, 1) == cudaSuccess && fit(1024, 1024) == cudaSuccess;
}

cudaError_t attention(const AttentionArgs& args, cudaStream_t stream) {
  if (!valid(args)) return cudaErrorInvalidValue;
  if (args.batch.sequences == 0) return cudaSuccess;
  const bool all = args.queries == Queries::kAll;
  if (all && args.batch.tokens == 0) return cudaSuccess;
  Params p = params_of(args);
  const bool bf16 = args.q.dtype == DType::kBF16;
  const int longest = all ? args.batch.max_length : 1;
  if (args.position_at != nullptr) {
    return bf16 ? attend::disentangled_bf16(p, longest, stream)
                : attend::disentangled_f32(p, longest, stream);
  }
  if (args.cache.data == nullptr) {
    const attend::Kind kind = args.causal                                 ? attend::Kind::kCausal
                              : args.bias != nullptr || !(args.scale > 0) ? attend::Kind::kBias
                                                                          : attend::Kind::kPlain;
    return bf16 ? attend::rows_bf16(kind, p, longest, stream)
                : attend::rows_f32(kind, p, longest, stream);
  }
  // Each launch leaves the sequences of the other one alone.
  const auto is_short = [&](int length) {
    return length == 1 || length * (p.heads / p.kv_heads) <= attend::kShortRows;
  };
  const int longest_new = args.batch.max_length;
  if (args.batch.sequences > 1 || (args.cache.all && is_short(longest_new))) {
    p.split_rows = split_rows(args);
    p.counters = args.counters;
    const cudaError_t error = bf16 ? attend::split_bf16(p, stream) : attend::split_f32(p, stream);
    if (error != cudaSuccess) return error;
  }
  if (args.cache.all && is_short(longest_new)) return cudaSuccess;
  // Also where one query is asked for: a block a tile of tokens appends them.
  return bf16 ? attend::rows_bf16(attend::Kind::kCausal, p, longest_new, stream)
              : attend::rows_f32(attend::Kind::kCausal, p, longest_new, stream);
}

}  // namespace trine::cuda
