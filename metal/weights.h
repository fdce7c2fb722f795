// SPDX-License-Identifier: Apache-2.0
// Weights in memory that the GPU reads: where they are mapped from a file in the right form, the
// file's own pages, else copies. Packed::data is the Place of one.
#pragma once

#include <memory>
#include <span>

#include "backend.h"
#include "device.h"
#include "gpu/shared_weights.h"
#include "graph/graph.h"

namespace trine::metal {

class Weights {
 public:
  explicit Weights(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  // A linear's weight: rows of linear_ldw(cols) elements.
  Packed linear(const Graph& graph, NodeId weight, DType dtype);
  // Integers and scales (gpu/quantised.h), for linears and an embedding that shares its table.
  Packed quantised(const Graph& graph, NodeId weight, const Form& wanted);
  // An embedding's table, dense, as F32, F16 or BF16.
  Packed table(const Graph& graph, NodeId weight);
  // Dense float32.
  Packed floats(const Graph& graph, NodeId weight);
  // A copy of these bytes.
  Packed copy(const void* data, size_t bytes, DType dtype);

 private:
  Packed allocate(size_t bytes, DType dtype);
  Packed in_file(const Graph& graph, const void* data, size_t bytes, DType dtype, size_t alignment);
  Packed dense(const Graph& graph, const Packed& from);

  std::shared_ptr<Device> device_;
  gpu::SharedWeights shared_;
};

}  // namespace trine::metal
