// SPDX-License-Identifier: Apache-2.0
// The way back from the CPU's forms (exec/compiled.h): what a compiled file holds of a weight as
// rows again, from which another device packs its own. Nothing is rounded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backend.h"
#include "graph/attrs.h"
#include "weights/store.h"

namespace trine::cpu {

// `packed` in `form`, of a weight of these dimensions, which may have been rounded when it was
// packed:
//   table, dense, bias     as they lie
//   panels, panels_bf16    [rows, columns] of F32 or BF16
//   positions              the same; rows that stand for no distance are zeros
//   panels_int8            kI8: rows of integers with their scales (exec/int8.h, row_bytes)
//   panels of groups       their dtype (exec/args.h): rows of Group (weights/groups.h)
// `attrs`: of the attention that reads a table of positions.
Numbers unpack(const Form& form, const std::byte* packed, std::span<const int64_t> dims,
               const AttentionAttrs* attrs = nullptr);

}  // namespace trine::cpu
