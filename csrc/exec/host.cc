// SPDX-License-Identifier: Apache-2.0
#include "exec/host.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "base/error.h"
#include "exec/int8.h"
#include "weights/convert.h"
#include "weights/groups.h"

namespace trine::host {
namespace {

constexpr size_t kLine = 64;
#if defined(__linux__)
constexpr size_t kHugePage = size_t{2} << 20;
#endif
constexpr int64_t kLeastColumns = 16;  // of a linear that is worth another form than float32

Numbers numbers_of(const Graph& graph, const Node& node) {
  if (node.op == Op::weight)
    return trine::numbers_of(graph.weights->at(node.as<WeightAttrs>().name));
  const Constant& c = graph.constants[static_cast<size_t>(node.as<ConstantAttrs>().index)];
  if (c.elsewhere) return c.elsewhere();
  return {reinterpret_cast<const std::byte*>(c.data.get()), DType::kF32, nullptr};
}

void add_part(const Graph& graph, const Node& node, std::vector<Part>& out) {
  Numbers numbers = numbers_of(graph, node);
  Part part{};
  part.data = numbers.data;
  part.dtype = numbers.dtype;
  part.owner = std::move(numbers.owner);
  const auto& dims = node.shape.dims;
  part.rows = dims.empty() ? 1 : dims[0];
  part.cols = 1;
  for (size_t i = 1; i < dims.size(); ++i) part.cols *= dims[i];
  out.push_back(part);
}

}  // namespace

std::shared_ptr<std::byte> alloc(size_t bytes) {
  bytes = (bytes + kLine - 1) / kLine * kLine;
  if (bytes == 0) bytes = kLine;
#if defined(__linux__)
  if (bytes >= kHugePage) {
    // Fresh pages are zero, and are placed where the thread that first writes them runs.
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    madvise(p, bytes, MADV_HUGEPAGE);
    return {static_cast<std::byte*>(p), [bytes](std::byte* q) { munmap(q, bytes); }};
  }
#endif
  auto* p = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{kLine}));
  std::memset(p, 0, bytes);
  return {p, [](std::byte* q) { ::operator delete(q, std::align_val_t{kLine}); }};
}

std::vector<Part> parts(const Graph& graph, NodeId weight) {
  std::vector<Part> out;
  const Node& node = graph[weight];
  if (node.op != Op::concat_rows) {
    add_part(graph, node, out);
    return out;
  }
  for (NodeId id : node.inputs) add_part(graph, graph[id], out);
  return out;
}

Packed as_f32(const Graph& graph, NodeId weight, int64_t padding) {
  const std::vector<Part> from = parts(graph, weight);
  int64_t count = 0;
  for (const Part& p : from) count += p.rows * p.cols;
  const bool aligned = reinterpret_cast<uintptr_t>(from[0].data) % alignof(float) == 0;
  if (from.size() == 1 && padding == 0 && from[0].dtype == DType::kF32 && aligned) {
    return {from[0].owner, const_cast<void*>(from[0].data),
            static_cast<size_t>(count) * sizeof(float), DType::kF32};
  }
  const size_t bytes = static_cast<size_t>(count + padding) * sizeof(float);
  const std::shared_ptr<std::byte> memory = alloc(bytes);
  auto* to = reinterpret_cast<float*>(memory.get());
  for (const Part& p : from) {
    const int64_t n = p.rows * p.cols;
    to_f32(p.dtype, static_cast<const std::byte*>(p.data), to, static_cast<size_t>(n));
    to += n;
  }
  return {memory, memory.get(), bytes, DType::kF32};
}

DType weight_dtype(const Node& linear, DType dtype) noexcept {
  const bool over_tokens = linear.shape.rows == Rows::kTokens || linear.as<LinearAttrs>().pooled;
  if (!over_tokens || linear.shape.cols() < kLeastColumns) return DType::kF32;
  return is_quantised(dtype) && linear.as<LinearAttrs>().keep ? DType::kBF16 : dtype;
}

DType multiplied_dtype(const Graph& graph, NodeId weight, const Node& consumer, size_t slot,
                       DType dtype) {
  const auto& dims = graph[weight].shape.dims;
  DType found = DType::kF32;
  if (consumer.op == Op::linear && slot == 1) found = weight_dtype(consumer, dtype);
  if (consumer.op == Op::embedding && consumer.as<EmbeddingAttrs>().tied && is_quantised(dtype) &&
      dims[0] >= kLeastColumns)
    found = dtype;
  if (found == DType::kI8 && dims[1] > int8::kMostDepth)
    throw DeviceError(cat(describe(graph, consumer), ": ", dims[1],
                          " values a row are too many for "
                          "int8, ",
                          int8::kMostDepth, " at most; keep this weight"));
  return found;
}

void require_dtype(std::string_view device, DType dtype, std::span<const DType> has) {
  std::string names;
  for (const DType d : has) {
    if (d == dtype) return;
    names += cat(names.empty() ? "" : d == has.back() ? " and " : ", ", model_name(d));
  }
  throw DeviceError(
      cat("dtype ", model_name(dtype), " is not there yet on ", device, "; ", names, " are"));
}

DType attention_dtype(DType dtype) noexcept {
  return dtype == DType::kBF16 || is_quantised(dtype) ? DType::kBF16 : DType::kF32;
}

Packed as_bf16(const Graph& graph, NodeId weight) {
  const Packed from = as_f32(graph, weight);
  const size_t count = from.bytes / sizeof(float);
  const std::shared_ptr<std::byte> memory = alloc(count * sizeof(uint16_t));
  const auto* const floats = static_cast<const float*>(from.data);
  auto* const to = reinterpret_cast<uint16_t*>(memory.get());
  for (size_t i = 0; i < count; ++i) to[i] = f32_to_bf16(floats[i]);
  return {memory, memory.get(), count * sizeof(uint16_t), DType::kBF16};
}

float quantise_row(const Part& part, int64_t row, int8_t* to) {
  if (part.dtype == DType::kI8) {  // they are that already
    const int64_t bytes = int8::row_bytes(part.cols);
    const auto* const from = static_cast<const std::byte*>(part.data) + row * bytes;
    std::memcpy(to, from, static_cast<size_t>(part.cols));
    float scale;
    std::memcpy(&scale, from + bytes - sizeof scale, sizeof scale);
    return scale;
  }
  constexpr int64_t kStep = 256;  // the largest block of a type
  float floats[kStep];
  const auto for_each_piece = [&](auto body) {
    for (int64_t k0 = 0; k0 < part.cols; k0 += kStep) {
      const int64_t count = std::min(kStep, part.cols - k0);
      to_f32(part.dtype, at(part, row, k0), floats, static_cast<size_t>(count));
      body(k0, count);
    }
  };
  float largest = 0.0f;
  for_each_piece([&](int64_t, int64_t n) { largest = int8::largest(floats, n, largest); });
  const int8::Scale scale = int8::scale_of(largest);
  for_each_piece([&](int64_t k0, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
      to[k0 + i] = static_cast<int8_t>(int8::quantised(floats[i], scale.inverse));
  });
  return scale.scale;
}

Packed as_int8(const Graph& graph, NodeId weight) {
  const auto& dims = graph[weight].shape.dims;
  const int64_t stride = int8::row_bytes(dims[1]);
  const auto bytes = static_cast<size_t>(dims[0] * stride);
  const std::shared_ptr<std::byte> memory = alloc(bytes);
  auto* to = reinterpret_cast<int8_t*>(memory.get());
  for (const Part& part : parts(graph, weight)) {
    for (int64_t i = 0; i < part.rows; ++i, to += stride) {
      const float scale = quantise_row(part, i, to);
      std::memcpy(to + stride - 4, &scale, sizeof scale);
    }
  }
  return {memory, memory.get(), bytes, DType::kI8};
}

GroupForm group_form(const Graph& graph, NodeId weight) {
  const Node& node = graph[weight];
  if (node.op == Op::concat_rows) return group_form(graph, node.inputs[0]);  // one for all
  const bool tied = std::any_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& n) {
    return n.op == Op::embedding && n.as<EmbeddingAttrs>().tied && n.inputs[1] == weight;
  });
  // In 4 bits SmolLM2's tied table costs 9 % of perplexity.
  if (tied && block_of(node.dtype) == 1) return GroupForm::kInt8;
  return trine::group_form(node.dtype);
}

void throw_not_in_groups(const Graph& graph, NodeId weight, size_t part) {
  const NodeId id = graph[weight].op == Op::concat_rows ? graph[weight].inputs[part] : weight;
  const bool named = graph[id].op == Op::weight;
  throw ModelError(cat("int4 cannot hold ",
                       quoted(named ? graph[id].as<WeightAttrs>().name : graph[id].name),
                       ": it has numbers that are not finite or above 65504; take another dtype, "
                       "or name it in `keep`"));
}

bool groups_of_row(const Part& part, int64_t row, int64_t k0, int64_t k, GroupForm form,
                   Group* groups) {
  const auto was = group_form_of(part.dtype);
  if (!was) return to_groups(part.dtype, at(part, row, k0), k, form, groups);
  const auto* const from =
      static_cast<const Group*>(part.data) + row * groups_of(part.cols) + k0 / kGroup;
  bool finite = true;
  for (int64_t g = 0; g < groups_of(k); ++g)
    finite = regrouped(from[g], *was, std::min(kGroup, k - g * kGroup), form, groups[g]) && finite;
  return finite;
}

Packed as_groups(const Graph& graph, NodeId weight) {
  const std::vector<Part> from = parts(graph, weight);
  const GroupForm form = group_form(graph, weight);
  int64_t count = 0;
  for (const Part& p : from) count += p.rows * groups_of(p.cols);
  const size_t bytes = static_cast<size_t>(count) * sizeof(Group);
  const std::shared_ptr<std::byte> memory = alloc(bytes);
  auto* to = reinterpret_cast<Group*>(memory.get());
  for (const Part& p : from) {
    for (int64_t i = 0; i < p.rows; ++i, to += groups_of(p.cols)) {
      if (!groups_of_row(p, i, 0, p.cols, form, to))
        throw_not_in_groups(graph, weight, static_cast<size_t>(&p - from.data()));
    }
  }
  return {memory, memory.get(), bytes, dtype_of(form)};
}

DType table_dtype(const Graph& graph, NodeId weight) {
  const DType dtype = graph[weight].dtype;  // of a concat_rows node it is F32
  return dtype == DType::kF16 || dtype == DType::kBF16 ? dtype : DType::kF32;
}

Packed in_place(const Graph& graph, NodeId weight) {
  const std::vector<Part> from = parts(graph, weight);
  const DType dtype = from[0].dtype;
  if (from.size() != 1 || dtype != table_dtype(graph, weight)) return as_f32(graph, weight);
  const size_t bytes = bytes_of(dtype, from[0].rows * from[0].cols);
  return {from[0].owner, const_cast<void*>(from[0].data), bytes, dtype};
}

}  // namespace trine::host
