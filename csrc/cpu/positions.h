// SPDX-License-Identifier: Apache-2.0
// DeBERTa's position tables as the attention kernel reads them. Columns are the tables' rows in the
// order of the distances they stand for, a run of equal ones once: so neighbouring distances lie in
// the same or in neighbouring columns, and every kernel finds them by a contiguous load and a
// permutation within it. The first columns may be unused (zeros). A head's columns are packed like
// the keys of a sequence, into panels of 16 [ceil(columns / 16) + 1][head_dim][16]; the panel
// behind the last is zeros, for tiles of two. In bf16 a line of a panel holds a pair of rows of it,
// [ceil(columns / 16) + 1][ceil(head_dim / 2)][16][2].
#pragma once

#include <cstddef>

#include "base/dtype.h"
#include "exec/distances.h"

namespace trine::cpu {

// `lines` of a panel: head_dim, or in bf16 half of it, rounded up.
Positions positions_of(const AttentionAttrs&, int64_t lines);

// `table` is [2 * span][heads * head_dim]; `packed` has heads * positions_of(..).head floats, zero.
void pack_positions(const float* table, const AttentionAttrs&, int64_t head_dim, float* packed);
void pack_positions_bf16(const float* table, const AttentionAttrs&, int64_t head_dim,
                         uint16_t* packed);
// The way back, of F32 or BF16: rows of `table`, which is zero, that stand for a distance.
void unpack_positions(const std::byte* packed, DType, const AttentionAttrs&, int64_t head_dim,
                      std::byte* table);

}  // namespace trine::cpu
