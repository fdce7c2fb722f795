// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_launch.h"

namespace trine::cuda::attend {

cudaError_t rows_f32(Kind kind, Params p, int rows, cudaStream_t stream) {
  return launch_size<float>(kind, p, rows, stream);
}

cudaError_t join(const Params& p, cudaStream_t stream) {
  constexpr int kWarps = 4;
  const int64_t rows = static_cast<int64_t>(p.sequences) * p.kv_heads * p.split_rows;
  TRINE_LAUNCH((join_chunks<kMaxHeadDim / 32>), static_cast<unsigned>((rows + kWarps - 1) / kWarps),
               32 * kWarps, 0, stream, p);
  return cudaPeekAtLastError();
}

}  // namespace trine::cuda::attend
