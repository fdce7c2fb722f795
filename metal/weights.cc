// SPDX-License-Identifier: Apache-2.0
#include "weights.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "exec/host.h"
#include "gpu/values.h"
#include "weights/convert.h"

namespace trine::metal {
namespace {

struct Weight {
  Buffer buffer;
  Place place;
};

Packed packed(Buffer buffer, std::byte* first, size_t owned, DType dtype) {
  const auto weight = std::make_shared<Weight>();
  weight->buffer = std::move(buffer);
  weight->place = {weight->buffer.object.get(), first - weight->buffer.contents, first};
  return {weight, &weight->place, owned, dtype};
}

Packed again(const std::shared_ptr<void>& known, DType dtype) {
  return {known, &static_cast<Weight*>(known.get())->place, 0, dtype};  // its bytes are counted
}

std::byte* bytes_of(const Packed& p) { return static_cast<const Place*>(p.data)->host; }

bool fits_f16(float x) { return std::isfinite(f16_to_f32(f32_to_f16(x))); }

void convert(const host::Part& from, int64_t row, DType dtype, std::byte* to) {
  const auto* const data =
      static_cast<const std::byte*>(from.data) + trine::bytes_of(from.dtype, row * from.cols);
  const auto count = static_cast<size_t>(from.cols);
  if (from.dtype == dtype) {
    std::memcpy(to, data, count * size_of(dtype));
    return;
  }
  std::vector<float> floats(count);
  to_f32(from.dtype, data, floats.data(), count);
  if (dtype == DType::kF32) {
    std::memcpy(to, floats.data(), count * sizeof(float));
    return;
  }
  auto* const halves = reinterpret_cast<uint16_t*>(to);
  for (size_t i = 0; i < count; ++i) {
    if (dtype == DType::kF16 && std::isfinite(floats[i]) && !fits_f16(floats[i])) {
      throw DeviceError(
          cat("a weight is ", floats[i], ", more than float16 holds: use dtype=\"bfloat16\""));
    }
    halves[i] = dtype == DType::kBF16 ? f32_to_bf16(floats[i]) : f32_to_f16(floats[i]);
  }
}

}  // namespace

Packed Weights::allocate(size_t bytes, DType dtype) {
  Buffer buffer = device_->allocate(bytes);
  std::byte* const first = buffer.contents;
  return packed(std::move(buffer), first, bytes, dtype);
}

Packed Weights::copy(const void* data, size_t bytes, DType dtype) {
  Packed out = allocate(bytes, dtype);
  std::memcpy(bytes_of(out), data, bytes);
  return out;
}

// Without data where the bytes are in no mapped file, or do not lie as kernels need it.
Packed Weights::in_file(const Graph& graph, const void* data, size_t bytes, DType dtype,
                        size_t alignment) {
  const std::span<const std::byte> file = graph.weights->mapping_of(data);
  const auto address = reinterpret_cast<uintptr_t>(data);
  if (file.empty() || address % alignment != 0) return {};
  const size_t page = Device::page_bytes();
  const uintptr_t begin = address / page * page;
  const uintptr_t end = (address + bytes + page - 1) / page * page;
  Buffer buffer = device_->around(reinterpret_cast<const void*>(begin), end - begin);
  if (!buffer.object) return {};
  auto* const first = static_cast<std::byte*>(const_cast<void*>(data));
  return packed(std::move(buffer), first, 0, dtype);
}

Packed Weights::linear(const Graph& graph, NodeId weight, DType dtype) {
  const std::vector<host::Part> from = host::parts(graph, weight);
  const int64_t cols = from[0].cols, ldw = linear_ldw(cols);
  const bool whole = ldw == cols;
  if (whole) {
    if (const auto known = shared_.find(from, dtype)) return again(known, dtype);
  }
  int64_t rows = 0;
  for (const host::Part& p : from) rows += p.rows;
  const size_t row = static_cast<size_t>(ldw) * size_of(dtype);
  const size_t bytes = row * static_cast<size_t>(rows);
  Packed out;
  if (whole && from.size() == 1 && from[0].dtype == dtype)
    out = in_file(graph, from[0].data, bytes, dtype, 8 * size_of(dtype));  // LinearArgs::w_first
  if (out.data == nullptr) {
    out = allocate(bytes, dtype);
    std::byte* to = bytes_of(out);
    if (!whole) std::memset(to, 0, bytes);
    for (const host::Part& p : from) {
      for (int64_t r = 0; r < p.rows; ++r, to += row) convert(p, r, dtype, to);
    }
  }
  if (whole) shared_.add(from, dtype, out.owner);
  return out;
}

Packed Weights::quantised(const Graph& graph, NodeId weight, const Form& wanted) {
  Packed out = allocate(checked_bytes(wanted.dtype, wanted.shape).value(), wanted.dtype);
  gpu::pack_quantised(graph, weight, wanted.dtype, bytes_of(out));
  return out;
}

Packed Weights::dense(const Graph& graph, const Packed& from) {
  Packed out = in_file(graph, from.data, from.bytes, from.dtype, size_of(from.dtype));
  return out.data != nullptr ? out : copy(from.data, from.bytes, from.dtype);
}

Packed Weights::table(const Graph& graph, NodeId weight) {
  const Packed from = host::in_place(graph, weight);
  const std::vector<host::Part> parts = host::parts(graph, weight);
  if (const auto known = shared_.find(parts, from.dtype)) return again(known, from.dtype);
  Packed out = dense(graph, from);
  shared_.add(parts, from.dtype, out.owner);
  return out;
}

Packed Weights::floats(const Graph& graph, NodeId weight) {
  return dense(graph, host::as_f32(graph, weight));
}

}  // namespace trine::metal
