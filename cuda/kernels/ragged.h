// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace trine::cuda {

// A ragged batch: sequence b owns rows offsets[b] .. offsets[b + 1] of every per-token array. The
// host knows as much of it as grids need.
struct Ragged {
  const int32_t* offsets = nullptr;  // [sequences + 1], on the device
  int32_t sequences = 0;
  int32_t tokens = 0;      // offsets[sequences]
  int32_t max_length = 0;  // no sequence is longer
};

}  // namespace trine::cuda
