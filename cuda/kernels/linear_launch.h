// SPDX-License-Identifier: Apache-2.0
// What launches of linear_mma.cuh have in common; a translation unit for dense weights and one for
// integers.
#pragma once

#include "kernels/linear.h"
#include "kernels/linear_hopper.h"
#include "kernels/linear_mma.cuh"

namespace trine::cuda {

// Weights in integers; x has been rounded into the workspace.
bool linear_int_runs(LinearTile tile, const LinearArgs& args);
cudaError_t linear_int(LinearTile tile, const LinearArgs& args, cudaStream_t stream);

namespace tiles {

// rows, columns, a warp's rows and columns, stages, groups. The first two hold the rows of a decode
// step: a warp has its whole chunk, or half of it, in flight. Rings are as
// deep as there is room: a stage must last for the latency of memory over their number.
using Tile16x8 = MmaTile<16, 8, 16, 8, 8, 16>;
using Tile16x32 = MmaTile<16, 32, 16, 32, 4, 8>;
using Tile32x32 = MmaTile<32, 32, 32, 32, 4, 6>;
using Tile64x64 = MmaTile<64, 64, 32, 32, 5, 2>;
using Tile128x128 = MmaTile<128, 128, 64, 32, 5, 1>;
// For the 99 KB of sm_86, sm_89 and sm_120.
using ShallowTile128x128 = MmaTile<128, 128, 64, 32, 3, 1>;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline bool aligned(const void* p, size_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

// Four elements of a row can be moved at once, wherever a multiple of four columns begins.
inline bool moves4(const Matrix& matrix) {
  return matrix.ld % 4 == 0 && aligned(matrix.data, 4 * size_of(matrix.dtype));
}

template <class T>
LinearParams params(const LinearArgs& args) {
  LinearParams p{};
  p.x = args.x.data, p.ldx = args.x.ld;
  p.w = args.w, p.ldw = args.ldw;
  p.bias = args.bias;
  p.residual = args.residual.data, p.ldr = args.residual.ld;
  p.y = args.y.data, p.ldy = args.y.ld;
  p.m = static_cast<int>(args.m), p.n = static_cast<int>(args.n), p.k = static_cast<int>(args.k);
  const int64_t stages = ceil_div(args.k, Operand<T>::kPerStage);
  p.chunk = static_cast<int>(ceil_div(stages, ceil_div(stages, Operand<T>::kChunkStages)));
  p.chunks = static_cast<int>(ceil_div(stages, p.chunk));
  p.activation = args.activation;
  p.x_is_bf16 = args.x.dtype == DType::kBF16;
  p.residual_is_bf16 = args.residual.dtype == DType::kBF16;
  p.y_is_bf16 = args.y.dtype == DType::kBF16;
  p.vectors = moves4(args.y) && (args.residual.data == nullptr || moves4(args.residual)) &&
              (args.bias == nullptr || aligned(args.bias, 16));
  return p;
}

// As many groups as chunks, or as there is room for; rounds of equal size.
template <class T, class Tile>
int groups_for(int chunks, int64_t m, int shared_bytes) {
  for (int rounds = 1; rounds <= chunks; ++rounds) {
    const int groups = static_cast<int>(ceil_div(chunks, rounds));
    if (groups <= Tile::kMaxGroups &&
        Tile::template shared_bytes<T>(groups, chunks, m) <= shared_bytes) {
      return groups;
    }
  }
  return 0;
}

template <class T, class Tile, bool kAsync>
cudaError_t launch(LinearParams p, cudaStream_t stream) {
  p.x_rows = Tile::x_rows(p.m);
  const int groups = groups_for<T, Tile>(p.chunks, p.m, linear_chip().shared_bytes);
  const int bytes = Tile::template shared_bytes<T>(groups, p.chunks, p.m);
  const int64_t blocks = ceil_div(p.m, Tile::kRows) * ceil_div(p.n, Tile::kCols);
  const cudaError_t error = cudaFuncSetAttribute(
      linear_mma<T, Tile, kAsync>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  TRINE_LAUNCH((linear_mma<T, Tile, kAsync>), dim3(static_cast<unsigned>(blocks)),
               dim3(static_cast<unsigned>(groups * Tile::kThreads)), static_cast<size_t>(bytes),
               stream, p);
  return cudaGetLastError();
}

template <class T, class Tile>
bool fits(const LinearArgs& args) {
  return groups_for<T, Tile>(params<T>(args).chunks, args.m, linear_chip().shared_bytes) > 0;
}

}  // namespace tiles
}  // namespace trine::cuda
