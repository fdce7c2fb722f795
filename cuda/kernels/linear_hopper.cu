// SPDX-License-Identifier: Apache-2.0
// Launches of linear_hopper.cuh. The driver's function that encodes tensor maps is asked of the
// runtime library: nothing links to the driver.
#include "kernels/linear_hopper.cuh"

#include <algorithm>

#include "kernels/linear_hopper.h"

namespace trine::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  const bool ok = error == cudaSuccess && found == cudaDriverEntryPointSuccess;
  return ok ? reinterpret_cast<Encode>(function) : nullptr;
}

Encode encode() {
  static const Encode function = find_encode();
  return function;
}

// Tiles of `box` rows by 128 bytes, swizzled; zeros beyond the matrix.
bool make_map(CUtensorMap& map, const void* data, int64_t rows, int64_t cols, int64_t ld,
              uint32_t box) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(ld) * 2};
  const cuuint32_t boxes[2] = {hopper::kDepth, box}, steps[2] = {1, 1};
  return encode()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes,
                  strides, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <class Tile, Activation activation, bool kAny>
cudaError_t launch(const LinearParams& p, const CUtensorMap& x, const CUtensorMap& w, int blocks,
                   cudaStream_t stream) {
  const auto kernel = hopper::linear_hopper<Tile, activation, kAny>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes);
  if (error != cudaSuccess) return error;
  kernel<<<blocks, hopper::kThreads, Tile::kSharedBytes, stream>>>(p, x, w);
  return cudaGetLastError();
}

template <class Tile>
cudaError_t launch(const LinearParams& p, int multiprocessors, cudaStream_t stream) {
  CUtensorMap x, w;
  if (!make_map(x, p.x, p.m, p.k, p.ldx, hopper::kRows) ||
      !make_map(w, p.w, p.n, p.k, p.ldw, Tile::kCols / Tile::kCluster)) {
    return cudaErrorInvalidValue;
  }
  constexpr int kHeight = hopper::kRows * Tile::kCluster;
  const int64_t tiles =
      int64_t{(p.m + kHeight - 1) / kHeight} * ((p.n + Tile::kCols - 1) / Tile::kCols);
  const int clusters = static_cast<int>(std::min<int64_t>(tiles, multiprocessors / Tile::kCluster));
  const int blocks = clusters * Tile::kCluster;
  switch (p.activation) {
    case Activation::kNone:
      return launch<Tile, Activation::kNone, false>(p, x, w, blocks, stream);
    case Activation::kGelu:
      return launch<Tile, Activation::kGelu, false>(p, x, w, blocks, stream);
    default:
      return launch<Tile, Activation::kNone, true>(p, x, w, blocks, stream);
  }
}

}  // namespace

bool linear_hopper_can_encode() { return encode() != nullptr; }

cudaError_t linear_hopper(int cols, const LinearParams& p, int multiprocessors,
                          cudaStream_t stream) {
  switch (cols) {
    case 64:
      return launch<hopper::HopperTile<64, 8, 1>>(p, multiprocessors, stream);
    case 128:
      return launch<hopper::HopperTile<128, 6, 1>>(p, multiprocessors, stream);
    case 192:
      return launch<hopper::HopperTile<192, 5, 2>>(p, multiprocessors, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace trine::cuda
