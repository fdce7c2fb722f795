// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_launch.h"

namespace trine::cuda::attend {

cudaError_t rows_f32(Kind kind, Params p, int rows, cudaStream_t stream) {
  return launch_size<float>(kind, p, rows, stream);
}

}  // namespace trine::cuda::attend
