// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear.h"

#include <algorithm>
#include <limits>

#include "kernels/linear_hopper.h"
#include "kernels/linear_launch.h"
#include "kernels/linear_pack.cuh"

namespace trine::cuda {

using namespace tiles;

namespace {

// Rows of x can be copied by 16 bytes.
bool moves16(const LinearArgs& args) {
  const int64_t unit = 16 / static_cast<int64_t>(size_of(args.w_dtype));
  return args.x.dtype == args.w_dtype && args.k % unit == 0 && args.x.ld % unit == 0 &&
         aligned(args.x.data, 16);
}

template <class Tile>
cudaError_t launch(const LinearArgs& args, cudaStream_t stream) {
  if (args.w_dtype == DType::kBF16) {
    const LinearParams p = params<bf16>(args);
    return moves16(args) ? tiles::launch<bf16, Tile, true>(p, stream)
                         : tiles::launch<bf16, Tile, false>(p, stream);
  }
  const LinearParams p = params<float>(args);
  return moves16(args) ? tiles::launch<float, Tile, true>(p, stream)
                       : tiles::launch<float, Tile, false>(p, stream);
}

template <class Tile>
bool fits(const LinearArgs& args) {
  if (linear_chip().arch < 80 && !Tile::kTight) return false;  // isn't compiled
  return args.w_dtype == DType::kBF16 ? tiles::fits<bf16, Tile>(args)
                                      : tiles::fits<float, Tile>(args);
}

// wgmma is sm_90's alone, and TMA isn't emulated. The epilogue moves four columns at once, of y and
// of a residual of its type.
bool runs_on_hopper(const LinearArgs& args) {
#ifdef TRINE_SIMT
  static_cast<void>(args);
  return false;
#else
  return linear_chip().arch == 90 && args.w_dtype == DType::kBF16 && moves16(args) &&
         args.n % 4 == 0 && params<bf16>(args).vectors && linear_hopper_can_encode() &&
         (args.residual.data == nullptr || args.residual.dtype == args.y.dtype);
#endif
}

cudaError_t launch_hopper(int cols, const LinearArgs& args, cudaStream_t stream) {
#ifdef TRINE_SIMT
  static_cast<void>(cols), static_cast<void>(args), static_cast<void>(stream);
  return cudaErrorNotSupported;
#else
  return linear_hopper(cols, params<bf16>(args), linear_chip().multiprocessors, stream);
#endif
}

}  // namespace

#ifdef TRINE_SIMT
LinearChip linear_chip() { return {80, 108, 227 << 10}; }
#else
LinearChip linear_chip() {
  int device = 0, major = 0, minor = 0;
  LinearChip chip{};
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  cudaDeviceGetAttribute(&chip.multiprocessors, cudaDevAttrMultiProcessorCount, device);
  cudaDeviceGetAttribute(&chip.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  chip.arch = major * 10 + minor;
  return chip;
}
#endif

bool linear_runs(LinearTile tile, const LinearArgs& args) {
  if (gpu::is_quantised_form(args.w_dtype)) return linear_int_runs(tile, args);
  switch (tile) {
    case LinearTile::k16x8:
      return fits<Tile16x8>(args);
    case LinearTile::k16x32:
      return fits<Tile16x32>(args);
    case LinearTile::k32x32:
      return fits<Tile32x32>(args);
    case LinearTile::k64x64:
      return fits<Tile64x64>(args);
    case LinearTile::k128x128:
      return fits<ShallowTile128x128>(args);
    case LinearTile::kHopper128x64:
    case LinearTile::kHopper128x128:
    case LinearTile::kHopper128x192:
      return runs_on_hopper(args);
  }
  return false;
}

namespace {

// Microseconds, about, on an H100: for each tile that a multiprocessor takes one after the other
// its end and its stages of K, which may wait for L2 instead.
struct TileCost {
  LinearTile tile;
  int64_t rows, cols, multiprocessors;
  double launch, end, stage;
  double kilobytes;  // of a stage, as far as a multiprocessor gets them from L2
};
constexpr TileCost kHopperCosts[] = {
    {LinearTile::k32x32, 32, 32, 1, 4.2, 0.0, 0.10, 8.0},
    {LinearTile::kHopper128x64, 128, 64, 1, 2.4, 0.7, 0.18, 24.0},
    {LinearTile::kHopper128x128, 128, 128, 1, 2.4, 1.0, 0.30, 32.0},
    {LinearTile::kHopper128x192, 256, 192, 2, 2.4, 3.2, 0.44, 28.0}};
constexpr double kL2KilobytesPerMicrosecond = 9e3;

double cost_on_hopper(const TileCost& c, const LinearArgs& args, int64_t multiprocessors) {
  const double stages = static_cast<double>(ceil_div(args.k, Operand<bf16>::kPerStage));
  const int64_t tiles = ceil_div(args.m, c.rows) * ceil_div(args.n, c.cols);
  const int64_t at_once = multiprocessors / c.multiprocessors;
  const double busy = static_cast<double>(std::min(tiles, at_once) * c.multiprocessors);
  const double stage = std::max(c.stage, c.kilobytes * busy / kL2KilobytesPerMicrosecond);
  return c.launch + static_cast<double>(ceil_div(tiles, at_once)) * (c.end + stages * stage);
}

LinearTile cheapest_on_hopper(const LinearArgs& args, int64_t multiprocessors) {
  LinearTile best = LinearTile::kHopper128x192;
  double least = std::numeric_limits<double>::infinity();
  for (const TileCost& c : kHopperCosts) {
    const double cost = cost_on_hopper(c, args, multiprocessors);
    if (cost < least && linear_runs(c.tile, args)) best = c.tile, least = cost;
  }
  return best;
}

// A few rows: wide tiles where there are many weights to read, narrow ones where only they give
// all multiprocessors something to do.
LinearTile decode_tile(const LinearArgs& args) {
  const bool many = args.n * args.k >= 8 << 20;
  const bool short_float = args.w_dtype == DType::kF32 && args.k <= 1024 && args.n >= 2048;
  return many || short_float || !linear_runs(LinearTile::k16x8, args) ? LinearTile::k16x32
                                                                      : LinearTile::k16x8;
}

}  // namespace

LinearTile linear_tile(const LinearArgs& args) {
  const LinearChip chip = linear_chip();
  if (args.m <= 16 || (chip.arch < 80 && !gpu::is_quantised_form(args.w_dtype)))
    return decode_tile(args);
  if (linear_runs(LinearTile::kHopper128x192, args)) {
    return cheapest_on_hopper(args, chip.multiprocessors);
  }
  const auto fills = [&](LinearTile tile, int64_t side) {
    return ceil_div(args.m, side) * ceil_div(args.n, side) >= chip.multiprocessors &&
           linear_runs(tile, args);
  };
  if (fills(LinearTile::k128x128, 128)) return LinearTile::k128x128;
  return fills(LinearTile::k64x64, 64) ? LinearTile::k64x64 : LinearTile::k32x32;
}

cudaError_t linear(LinearTile tile, const LinearArgs& args, cudaStream_t stream) {
  if (args.m == 0 || args.n == 0) return cudaSuccess;
  if (!linear_runs(tile, args)) return cudaErrorInvalidValue;
  if (gpu::is_quantised_form(args.w_dtype)) return linear_int(tile, args, stream);
  switch (tile) {
    case LinearTile::k16x8:
      return launch<Tile16x8>(args, stream);
    case LinearTile::k16x32:
      return launch<Tile16x32>(args, stream);
    case LinearTile::k32x32:
      return launch<Tile32x32>(args, stream);
    case LinearTile::k64x64:
      return launch<Tile64x64>(args, stream);
    case LinearTile::k128x128:
      return fits<Tile128x128>(args) ? launch<Tile128x128>(args, stream)
                                     : launch<ShallowTile128x128>(args, stream);
    case LinearTile::kHopper128x64:
      return launch_hopper(64, args, stream);
    case LinearTile::kHopper128x128:
      return launch_hopper(128, args, stream);
    case LinearTile::kHopper128x192:
      return launch_hopper(192, args, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t linear(const LinearArgs& args, cudaStream_t stream) {
  return linear(linear_tile(args), args, stream);
}

cudaError_t pack_linear(const PackLinearArgs& args, cudaStream_t stream) {
  const int64_t ldw = linear_ldw(args.w_dtype, args.k), elements = args.n * ldw;
  if (elements == 0) return cudaSuccess;
  constexpr int kThreads = 256;
  TRINE_LAUNCH(pack_linear_rows, dim3(static_cast<unsigned>(ceil_div(elements, kThreads))),
               dim3(kThreads), 0, stream, args, ldw);
  return cudaGetLastError();
}

}  // namespace trine::cuda
