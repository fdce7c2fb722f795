// SPDX-License-Identifier: Apache-2.0
// linear on weights in integers: one launch rounds x, the next multiplies.
#include "kernels/linear_int.cuh"

#include "kernels/linear_launch.h"
#include "kernels/linear_round.cuh"

namespace trine::cuda {
namespace {

using namespace tiles;

RoundParams round_params(const LinearArgs& args) {
  RoundParams p{};
  p.x = args.x.data, p.ldx = args.x.ld;
  p.x_is_bf16 = args.x.dtype == DType::kBF16, p.vectors = moves4(args.x);
  p.rows = static_cast<unsigned char*>(args.workspace);
  p.ld = rounded_ldx(args.w_dtype, args.k);
  p.beside = reinterpret_cast<int8::Row*>(p.rows + args.m * p.ld);
  p.m = static_cast<int>(args.m), p.k = static_cast<int>(args.k);
  return p;
}

cudaError_t round_x(const LinearArgs& args, const RoundParams& p, cudaStream_t stream) {
  if (args.w_dtype == DType::kI8) {
    TRINE_LAUNCH(linear_round_rows, dim3(static_cast<unsigned>(args.m)), dim3(kRoundThreads), 0,
                 stream, p);
  } else {
    const int64_t warps = args.m * ceil_div(args.k, kGroupedStage);
    const auto blocks = static_cast<unsigned>(ceil_div(warps, kRoundThreads / 32));
    TRINE_LAUNCH(linear_round_groups, dim3(blocks), dim3(kRoundThreads), 0, stream, p);
  }
  return cudaGetLastError();
}

template <class T, class Tile>
cudaError_t launch(const LinearArgs& args, cudaStream_t stream) {
  const RoundParams x = round_params(args);
  const cudaError_t error = round_x(args, x, stream);
  if (error != cudaSuccess) return error;
  LinearParams p = params<T>(args);
  p.x = x.rows, p.ldx = x.ld, p.x_beside = x.beside;
  p.w_scales = static_cast<const unsigned char*>(args.w) + args.n * args.ldw;
  return tiles::launch<T, Tile, true>(p, stream);
}

// work(operand, tile) with null pointers of these types: the tile of those that have one.
template <class T, class Result, class Work>
Result with_tile(LinearTile tile, const LinearArgs& args, Result none, const Work& work) {
  constexpr T* kOperand = nullptr;
  switch (tile) {
    case LinearTile::k16x8:
      return work(kOperand, static_cast<Tile16x8*>(nullptr));
    case LinearTile::k16x32:
      return work(kOperand, static_cast<Tile16x32*>(nullptr));
    case LinearTile::k32x32:
      return work(kOperand, static_cast<Tile32x32*>(nullptr));
    case LinearTile::k64x64:
      return work(kOperand, static_cast<Tile64x64*>(nullptr));
    case LinearTile::k128x128:
      // Groups have as much to do with floats as with mma, and no registers for such a tile.
      if constexpr (std::is_same_v<T, int8_t>) {
        return tiles::fits<T, Tile128x128>(args)
                   ? work(kOperand, static_cast<Tile128x128*>(nullptr))
                   : work(kOperand, static_cast<ShallowTile128x128*>(nullptr));
      }
      return none;
    default:
      return none;
  }
}

template <class Result, class Work>
Result with_types(LinearTile tile, const LinearArgs& args, Result none, const Work& work) {
  if (args.w_dtype == DType::kI8) return with_tile<int8_t>(tile, args, none, work);
  return args.w_dtype == kInt4Groups ? with_tile<Groups<4>>(tile, args, none, work)
                                     : with_tile<Groups<8>>(tile, args, none, work);
}

}  // namespace

bool linear_int_runs(LinearTile tile, const LinearArgs& args) {
  return with_types(tile, args, false,
                    [&]<class T, class Tile>(T*, Tile*) { return tiles::fits<T, Tile>(args); });
}

cudaError_t linear_int(LinearTile tile, const LinearArgs& args, cudaStream_t stream) {
  return with_types(tile, args, cudaErrorInvalidValue,
                    [&]<class T, class Tile>(T*, Tile*) { return launch<T, Tile>(args, stream); });
}

}  // namespace trine::cuda
