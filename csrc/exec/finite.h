// SPDX-License-Identifier: Apache-2.0
// Results that are no numbers, and which weight is to blame for them.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "weights/store.h"

namespace trine {

// Whether none of n floats is NaN or infinite.
bool all_finite(const float* x, size_t n) noexcept;

// `FILE: tensor "NAME" holds a NaN` (or `an infinity`) of the first tensor that does, of those that
// can be read as floats and are `wanted`; empty when none does. Reads all of them: for messages of
// errors.
std::string find_not_finite(const WeightStore& weights,
                            const std::function<bool(std::string_view)>& wanted);

}  // namespace trine
