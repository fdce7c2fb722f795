// SPDX-License-Identifier: Apache-2.0
// Weights in host memory, as the host backends (cpu, ref) hold them.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "backend.h"

namespace trine {
struct Group;  // weights/groups.h
}

namespace trine::host {

// Zeroed, 64-byte aligned; large pieces ask for huge pages where the system has them.
std::shared_ptr<std::byte> alloc(size_t bytes);

// The tensors and constants that a weight operand is stacked from: one, or a concat_rows node's
// parts. What a compiled file holds quantised has rows of another kind (cpu/unpack.h), for
// quantise_row and groups_of_row alone.
struct Part {
  const void* data;
  DType dtype;
  int64_t rows, cols;                // a vector is one column of rows
  std::shared_ptr<std::byte> owner;  // of a copy, where the file has the rows in another order
};
std::vector<Part> parts(const Graph&, NodeId weight);
// Element `col` of a row; where the type has blocks, the first of one.
inline const std::byte* at(const Part& p, int64_t row, int64_t col) noexcept {
  return static_cast<const std::byte*>(p.data) + bytes_of(p.dtype, row * p.cols + col);
}

// In what a linear holds its weights when the model's dtype is `dtype`. What runs over sequences
// (poolers, heads of classifiers) or has less than a panel of columns (the scores of a tagger or a
// reader) takes next to no time and stays in float32, and so does what is folded at compile. What
// the graph says is not to be quantised is bf16 instead.
DType weight_dtype(const Node& linear, DType dtype) noexcept;

// In what input `slot` of `consumer` is held: as weight_dtype says if a linear multiplies it, or
// reads it and this is the embedding that shares it; else kF32. DeviceError where sums in int8
// could overflow.
DType multiplied_dtype(const Graph&, NodeId weight, const Node& consumer, size_t slot, DType dtype);

// DeviceError unless the device has the dtype.
void require_dtype(std::string_view device, DType dtype, std::span<const DType> has);

// In what attention multiplies on a host, and keeps keys and values, when the model's dtype is
// `dtype`: bf16 in what is quantised, too.
DType attention_dtype(DType dtype) noexcept;

// The operand as dense bf16, rounded to nearest.
Packed as_bf16(const Graph&, NodeId weight);

// A row as integers of exec/int8.h; returns their scale.
float quantise_row(const Part&, int64_t row, int8_t* to);

// k elements of a row from k0 on, a multiple of the largest block (256), as groups. False as
// to_groups has it (weights/groups.h).
bool groups_of_row(const Part&, int64_t row, int64_t k0, int64_t k, GroupForm, Group* groups);

// The operand as rows of int8, as the reference reads them (exec/int8.h).
Packed as_int8(const Graph&, NodeId weight);

// In what groups int4 holds this weight (weights/groups.h): 8 bits for a tied table that is in no
// blocks yet.
GroupForm group_form(const Graph&, NodeId weight);

// The operand as rows of Group. ModelError where an element is not finite or too large.
Packed as_groups(const Graph&, NodeId weight);

// What both host backends say of such a weight; `part` of a concat_rows node.
[[noreturn]] void throw_not_in_groups(const Graph&, NodeId weight, size_t part);

// The operand as dense float32 with `padding` zeros behind it: in place when it lies so in the
// checkpoint and no padding is asked for, else a copy.
Packed as_f32(const Graph&, NodeId weight, int64_t padding = 0);

// The operand in place, whatever its alignment, as F32, F16 or BF16 (for embedding tables, read row
// by row); a copy when it is of several parts or of another type.
Packed in_place(const Graph&, NodeId weight);
// Of what in_place gives.
DType table_dtype(const Graph&, NodeId weight);

}  // namespace trine::host
