// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_disentangled.cuh"

namespace trine::cuda::attend {

// As many rows to a block as shared memory has room for: 99 KiB at least from sm_80 on.
cudaError_t disentangled_bf16(Params p, int rows, cudaStream_t stream) {
  return p.head_dim <= 64 ? launch_disentangled<bf16, 64, 4>(p, rows, stream)
                          : launch_disentangled<bf16, 256, 2>(p, rows, stream);
}

cudaError_t disentangled_f32(Params p, int rows, cudaStream_t stream) {
  if (p.head_dim > 64) return launch_disentangled<float, 256, 1>(p, rows, stream);
  const cudaError_t error = launch_disentangled<float, 64, 4>(p, rows, stream);
  if (error != cudaErrorInvalidValue) return error;
  static_cast<void>(cudaGetLastError());
  return launch_disentangled<float, 64, 2>(p, rows, stream);
}

}  // namespace trine::cuda::attend
