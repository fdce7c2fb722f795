// SPDX-License-Identifier: Apache-2.0
// The frequencies that a sequence's positions are turned by, where they depend on its length.
#pragma once

#include <cstdint>

#include "exec/args.h"

namespace trine {

// The pairs' frequencies for a sequence of `length` tokens: inv_freq up to original_length, beyond
// it long_inv_freq or dynamic NTK's, in float step by step as transformers computes them
// (modeling_rope_utils.py). Sequences are told apart, so that a result does not depend on the
// batch; transformers takes the longest one's for all.
void rotary_frequencies(const RotaryArgs&, int64_t length, float* to) noexcept;

// The length that rotary_frequencies is asked for.
int64_t rotary_length(const RotaryArgs&, int32_t sequence) noexcept;

}  // namespace trine
