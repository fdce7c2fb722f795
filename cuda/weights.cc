// SPDX-License-Identifier: Apache-2.0
#include "weights.h"

#include "gpu/values.h"
#include "kernels/linear.h"
#include "memory.h"
#include "runtime.h"
#include "weights/convert.h"

namespace trine::cuda {
namespace {

bool is_read(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

}  // namespace

std::shared_ptr<std::byte> Weights::upload(const void* data, size_t bytes) {
  std::shared_ptr<std::byte> to = device_alloc(bytes, device_);
  check("copying weights to the GPU", cudaMemcpy(to.get(), data, bytes, cudaMemcpyHostToDevice));
  return to;
}

Packed Weights::linear(const Graph& graph, NodeId weight, DType dtype) {
  use(device_);
  std::vector<host::Part> from = host::parts(graph, weight);
  const int64_t cols = from[0].cols, ldw = linear_ldw(dtype, cols);
  int64_t rows = 0;
  for (const host::Part& p : from) rows += p.rows;
  const size_t row = static_cast<size_t>(ldw) * size_of(dtype);
  const bool whole = ldw == cols;
  if (whole) {
    if (const auto known = shared_.find(from, dtype))
      return {known, known.get(), 0, dtype};  // its bytes are counted already
  }
  const std::shared_ptr<std::byte> memory = device_alloc(row * static_cast<size_t>(rows), device_);
  std::byte* to = memory.get();
  for (const host::Part& p : from) {
    const int64_t count = p.rows * p.cols;
    const void* data = p.data;
    DType source = p.dtype;
    std::vector<float> unpacked;
    if (!is_read(source)) {
      unpacked.resize(static_cast<size_t>(count));
      to_f32(source, static_cast<const std::byte*>(data), unpacked.data(),
             static_cast<size_t>(count));
      data = unpacked.data();
      source = DType::kF32;
    }
    const auto raw = upload(data, static_cast<size_t>(count) * size_of(source));
    check("packing weights", pack_linear({raw.get(), source, to, dtype, p.rows, p.cols}, nullptr));
    check("packing weights", cudaStreamSynchronize(nullptr));  // before `raw` goes
    to += row * static_cast<size_t>(p.rows);
  }
  if (whole) shared_.add(from, dtype, memory);
  return {memory, memory.get(), row * static_cast<size_t>(rows), dtype};
}

Packed Weights::quantised(const Graph& graph, NodeId weight, const Form& wanted) {
  use(device_);
  const size_t bytes = checked_bytes(wanted.dtype, wanted.shape).value();
  const std::shared_ptr<std::byte> packed = host::alloc(bytes);
  gpu::pack_quantised(graph, weight, wanted.dtype, packed.get());
  const auto memory = upload(packed.get(), bytes);
  return {memory, memory.get(), bytes, wanted.dtype};
}

Packed Weights::table(const Graph& graph, NodeId weight) {
  use(device_);
  const Packed dense = host::in_place(graph, weight);
  const std::vector<host::Part> from = host::parts(graph, weight);
  if (const auto known = shared_.find(from, dense.dtype))
    return {known, known.get(), 0, dense.dtype};
  const auto memory = upload(dense.data, dense.bytes);
  shared_.add(from, dense.dtype, memory);
  return {memory, memory.get(), dense.bytes, dense.dtype};
}

Packed Weights::floats(const Graph& graph, NodeId weight) {
  use(device_);
  const Packed dense = host::as_f32(graph, weight);
  const auto memory = upload(dense.data, dense.bytes);
  return {memory, memory.get(), dense.bytes, DType::kF32};
}

}  // namespace trine::cuda
