// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "exec/lower.h"

namespace trine {

void positions(const int32_t* ids, Ragged batch, const KvView* caches, int32_t padding_idx,
               int32_t* y) noexcept {
  for (int32_t b = 0; b < batch.sequences; ++b) {
    int32_t next = padding_idx + 1 + (caches != nullptr ? caches[b].past : 0);
    for (int32_t t = batch.offsets[b]; t < batch.offsets[b + 1]; ++t) {
      const bool padding = padding_idx >= 0 && ids[t] == padding_idx;
      y[t] = padding ? padding_idx : next++;
    }
  }
}

void copy_columns(const float* x, int64_t ldx, float* y, int64_t ldy, int64_t rows,
                  int64_t cols) noexcept {
  for (int64_t i = 0; i < rows; ++i)
    std::memcpy(y + i * ldy, x + i * ldx, static_cast<size_t>(cols) * sizeof(float));
}

void spread(const float* x, int64_t ldx, Ragged batch, float* y, int64_t ldy,
            int64_t cols) noexcept {
  for (int32_t b = 0; b < batch.sequences; ++b) {
    for (int64_t t = batch.offsets[b]; t < batch.offsets[b + 1]; ++t)
      std::memcpy(y + t * ldy, x + b * ldx, static_cast<size_t>(cols) * sizeof(float));
  }
}

void windows(const WindowsArgs& a) noexcept {
  const auto bytes = static_cast<size_t>(a.cols) * sizeof(float);
  for (int32_t b = 0; b < a.batch.sequences; ++b) {
    const int64_t begin = a.batch.offsets[b], end = a.batch.offsets[b + 1];
    for (int64_t t = begin; t < end; ++t) {
      float* y = a.y + t * a.ldy;
      for (int64_t s = 0; s < a.size; ++s, y += a.cols) {
        const int64_t from = t + s - (a.size - 1) / 2;
        if (from < begin || from >= end) {
          std::fill_n(y, a.cols, 0.0f);
        } else {
          std::memcpy(y, a.x + from * a.ldx, bytes);
        }
      }
    }
  }
}

void conv_weight(const ConvWeightArgs& a) noexcept {
  const int64_t in = a.inputs / a.groups, out = a.outputs / a.groups;
  for (int64_t o = 0; o < a.outputs; ++o) {
    float* y = a.y + o * a.ldy;
    std::fill_n(y, a.size * a.inputs, 0.0f);
    const int64_t first = o / out * in;
    for (int64_t i = 0; i < in; ++i) {
      for (int64_t s = 0; s < a.size; ++s)
        y[s * a.inputs + first + i] = a.w[(o * in + i) * a.size + s];
    }
  }
}

Cost cost_of(const Graph& graph, const Node& node) {
  const auto cols = static_cast<double>(node.shape.cols());
  Cost cost;
  for (NodeId id : node.inputs) {
    if (id == kNoNode) continue;
    const Node& in = graph[id];
    if (in.shape.rows != Rows::kFixed) {
      cost.bytes_per_row += static_cast<double>(in.shape.cols()) * sizeof(float);
    } else if (node.op != Op::embedding) {
      double bytes = sizeof(float);
      for (int64_t d : in.shape.dims) bytes *= static_cast<double>(d);
      cost.bytes_fixed += bytes;
    }
  }
  cost.bytes_per_row += cols * sizeof(float);
  switch (node.op) {
    case Op::linear:
      cost.flops_per_row = 2 * cols * static_cast<double>(graph[node.inputs[0]].shape.cols());
      break;
    case Op::attention:
      // Of one query, pairs are as many as rows of k.
      (node.as<AttentionAttrs>().queries == Queries::kAll ? cost.flops_per_pair
                                                          : cost.flops_per_token) =
          cols * (4 + 2 * (node.input(4) != kNoNode) + 2 * (node.input(5) != kNoNode));
      break;
    case Op::embedding:
      cost.bytes_per_row += cols * sizeof(float) * 0.5 * static_cast<double>(node.inputs.size());
      break;
    case Op::layer_norm:
      cost.flops_per_row = 8 * cols;
      break;
    case Op::rms_norm:
      cost.flops_per_row = 4 * cols;
      break;
    case Op::rope:
      cost.flops_per_row = 3 * cols;
      break;
    default:
      cost.flops_per_row = cols;
  }
  return cost;
}

}  // namespace trine
