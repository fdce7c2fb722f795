// SPDX-License-Identifier: Apache-2.0
// What the lanes of a warp do together, over block.h's `collective`.
#pragma once

#include <cstdint>

#include "simt/block.h"

namespace trine::simt {

// The value of lane `source`.
uint64_t shuffle(const char* name, uint32_t mask, uint64_t value, int source, Site site);
// A bit for each lane of the mask whose predicate is true.
uint32_t ballot(const char* name, uint32_t mask, bool predicate, Site site);
// `row` is what lies at the caller's address; `matrices` registers come back.
void ldmatrix(const uint32_t (&row)[4], int matrices, bool trans, uint32_t* registers, Site site);
// c += a b, all of a warp.
void mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site);
void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site);
// Of bytes, a's signed.
void mma_m16n8k32(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bool unsigned_b,
                  Site site);
void mma_m8n8k16(int32_t (&c)[2], const uint32_t (&a)[1], const uint32_t (&b)[1], bool unsigned_b,
                 Site site);

}  // namespace trine::simt
