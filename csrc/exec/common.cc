// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "exec/lower.h"

namespace trine {

void positions(const int32_t* ids, Ragged batch, int32_t padding_idx, int32_t* y) noexcept {
  for (int32_t b = 0; b < batch.sequences; ++b) {
    int32_t next = padding_idx + 1;
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
      cost.flops_per_pair = 4 * cols;
      break;
    case Op::embedding:
      cost.bytes_per_row += cols * sizeof(float) * 0.5 * static_cast<double>(node.inputs.size());
      break;
    case Op::layer_norm:
      cost.flops_per_row = 8 * cols;
      break;
    default:
      cost.flops_per_row = cols;
  }
  return cost;
}

}  // namespace trine
