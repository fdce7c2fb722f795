// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_split.cuh"

namespace trine::cuda::attend {

cudaError_t split_bf16(const Params& p, cudaStream_t stream) {
  return launch_split_size<bf16>(p, stream);
}

cudaError_t split_f32(const Params& p, cudaStream_t stream) {
  return launch_split_size<float>(p, stream);
}

}  // namespace trine::cuda::attend
