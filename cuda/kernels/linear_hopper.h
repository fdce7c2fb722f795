// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/linear.h"

namespace trine::cuda {

// What launches of linear look at: 10 * major + minor, and what a block may take.
struct LinearChip {
  int arch, multiprocessors, shared_bytes;
};
LinearChip linear_chip();

}  // namespace trine::cuda
