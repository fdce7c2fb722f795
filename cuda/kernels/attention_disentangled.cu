// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_disentangled.cuh"

namespace trine::cuda::attend {

cudaError_t disentangled_bf16(Params p, int rows, cudaStream_t stream) {
  // sm_75 has too little for heads of more than 64 columns.
  if (p.head_dim > 64) return launch_disentangled<bf16, 256, 2>(p, rows, stream);
  return first_of([&] { return launch_disentangled<bf16, 64, 4>(p, rows, stream); },
                  [&] { return launch_disentangled<bf16, 64, 2>(p, rows, stream); });
}

cudaError_t disentangled_f32(Params p, int rows, cudaStream_t stream) {
  if (p.head_dim > 64) return launch_disentangled<float, 256, 1>(p, rows, stream);
  return first_of([&] { return launch_disentangled<float, 64, 4>(p, rows, stream); },
                  [&] { return launch_disentangled<float, 64, 2>(p, rows, stream); },
                  // Wider rows for the narrower tiles that they have.
                  [&] { return launch_disentangled<float, 96, 1>(p, rows, stream); });
}

}  // namespace trine::cuda::attend
