// SPDX-License-Identifier: Apache-2.0
// Between linear.cu and linear_hopper.cu, which is compiled for sm_90a.
#pragma once

#include "kernels/linear.h"
#include "kernels/linear_epilogue.cuh"

namespace trine::cuda {

// What launches of linear look at: 10 * major + minor, and what a block may take.
struct LinearChip {
  int arch, multiprocessors, shared_bytes;
};
LinearChip linear_chip();

// Whether the driver makes tensor maps.
bool linear_hopper_can_encode();
// x and w in bf16, aligned to be copied by 16 bytes; p.vectors, and n a multiple of 4.
// Tiles have 64, 128 or 192 columns.
cudaError_t linear_hopper(int cols, const LinearParams& p, int multiprocessors,
                          cudaStream_t stream);

}  // namespace trine::cuda
