// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_disentangled.cuh"

namespace trine::cuda::attend {

// As many rows to a block as leave room for two blocks, or one of wide heads, in 99 KiB, the least
// that sm_80 and later have.
cudaError_t disentangled_bf16(Params p, int rows, cudaStream_t stream) {
  return p.head_dim <= 64 ? launch_disentangled<bf16, 64, 4>(p, rows, stream)
                          : launch_disentangled<bf16, 256, 2>(p, rows, stream);
}

cudaError_t disentangled_f32(Params p, int rows, cudaStream_t stream) {
  return p.head_dim <= 64 ? launch_disentangled<float, 64, 2>(p, rows, stream)
                          : launch_disentangled<float, 256, 1>(p, rows, stream);
}

}  // namespace trine::cuda::attend
