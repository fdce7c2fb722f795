// SPDX-License-Identifier: Apache-2.0
// Kernels that do one thing of the dialect each, for test_dialect.cc. All run one warp.
#pragma once

#include <cstdint>

namespace trine::cuda {

// Registers of 32 lanes, in device memory.
struct MmaOperands {
  float c[32][4];
  uint32_t a[32][4], b[32][2];
};
void probe_mma_bf16(MmaOperands* operands, bool by_shuffles);
void probe_mma_tf32(MmaOperands* operands, bool by_shuffles);

// Bytes, a's signed; by_quarters: as sm_75 does it.
struct ByteMmaOperands {
  int32_t c[32][4];
  uint32_t a[32][4], b[32][2];
};
void probe_mma_bytes(ByteMmaOperands* operands, bool unsigned_b, bool by_quarters);

// ldmatrix of 1, 2 or 4 matrices: lane l gives rows[l], out of shared memory.
struct LoadedMatrices {
  uint16_t rows[32][8];
  uint32_t registers[32][4];
};
void probe_ldmatrix(LoadedMatrices* loaded, int matrices, bool trans);

// Rows of 16 bytes through shared memory by cp.async in two groups; where `valid` is 0, zeros.
struct Copied {
  uint32_t from[64][4], to[64][4];
  int valid[64];
};
void probe_copies(Copied* copied);

// Conversions and fast functions of x[i], i < n.
struct Converted {
  const float* x;
  uint32_t *tf32, *tf32_twin, *pair, *pair_twin;  // pair: (x[i], -x[i])
  float *exp, *exp2, *tanh;
  int n;
};
void probe_conversions(const Converted& converted);

// Seven results of each lane, of shuffles and votes.
void probe_warp(int* out);

}  // namespace trine::cuda
