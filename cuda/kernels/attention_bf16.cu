// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_launch.h"

namespace trine::cuda::attend {

cudaError_t rows_bf16(Kind kind, Params p, int rows, cudaStream_t stream) {
  return launch_size<bf16>(kind, p, rows, stream);
}

}  // namespace trine::cuda::attend
