// SPDX-License-Identifier: Apache-2.0
// Weights in the GPU's memory, as the kernels read them.
#pragma once

#include <memory>

#include "backend.h"
#include "gpu/shared_weights.h"
#include "graph/graph.h"

namespace trine::cuda {

class Weights {
 public:
  explicit Weights(int device) : device_(device) {}

  // A linear's weight: rows of linear_ldw(dtype, cols), converted on the GPU. The same tensor in
  // the same form is there once: a tied head and its embedding share it where they can.
  Packed linear(const Graph& graph, NodeId weight, DType dtype);
  // Integers and scales (gpu/quantised.h), for linears and an embedding that shares its table.
  Packed quantised(const Graph& graph, NodeId weight, const Form& wanted);
  // An embedding's table, dense, as F32, F16 or BF16.
  Packed table(const Graph& graph, NodeId weight);
  // Dense float32.
  Packed floats(const Graph& graph, NodeId weight);

 private:
  std::shared_ptr<std::byte> upload(const void* data, size_t bytes);

  int device_;
  gpu::SharedWeights shared_;
};

}  // namespace trine::cuda
