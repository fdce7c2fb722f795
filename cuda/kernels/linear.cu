// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear.h"

#include <algorithm>
#include <limits>

#include "kernels/linear_hopper.h"
#include "kernels/linear_mma.cuh"
#include "kernels/linear_pack.cuh"

namespace trine::cuda {
namespace {

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

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

// Four elements of a row can be moved at once, wherever a multiple of four columns begins.
bool moves4(const Matrix& matrix) {
  return matrix.ld % 4 == 0 && aligned(matrix.data, 4 * size_of(matrix.dtype));
}

// Rows of x can be copied by 16 bytes.
bool moves16(const LinearArgs& args) {
  const int64_t unit = 16 / static_cast<int64_t>(size_of(args.w_dtype));
  return args.x.dtype == args.w_dtype && args.k % unit == 0 && args.x.ld % unit == 0 &&
         aligned(args.x.data, 16);
}

LinearParams params(const LinearArgs& args) {
  LinearParams p{};
  p.x = args.x.data, p.ldx = args.x.ld;
  p.w = args.w, p.ldw = args.ldw;
  p.bias = args.bias;
  p.residual = args.residual.data, p.ldr = args.residual.ld;
  p.y = args.y.data, p.ldy = args.y.ld;
  p.m = static_cast<int>(args.m), p.n = static_cast<int>(args.n), p.k = static_cast<int>(args.k);
  const bool bf16_w = args.w_dtype == DType::kBF16;
  const int64_t stages =
      ceil_div(args.k, bf16_w ? Operand<bf16>::kPerStage : Operand<float>::kPerStage);
  const int64_t most = bf16_w ? Operand<bf16>::kChunkStages : Operand<float>::kChunkStages;
  p.chunk = static_cast<int>(ceil_div(stages, ceil_div(stages, most)));
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
template <class Tile>
int groups_for(int chunks, int64_t m, int shared_bytes) {
  for (int rounds = 1; rounds <= chunks; ++rounds) {
    const int groups = static_cast<int>(ceil_div(chunks, rounds));
    if (groups <= Tile::kMaxGroups && Tile::shared_bytes(groups, chunks, m) <= shared_bytes) {
      return groups;
    }
  }
  return 0;
}

template <class T, class Tile, bool kAsync>
cudaError_t launch(LinearParams p, cudaStream_t stream) {
  p.x_rows = Tile::x_rows(p.m);
  const int groups = groups_for<Tile>(p.chunks, p.m, linear_chip().shared_bytes);
  const int bytes = Tile::shared_bytes(groups, p.chunks, p.m);
  const int64_t blocks = ceil_div(p.m, Tile::kRows) * ceil_div(p.n, Tile::kCols);
  const cudaError_t error = cudaFuncSetAttribute(
      linear_mma<T, Tile, kAsync>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  TRINE_LAUNCH((linear_mma<T, Tile, kAsync>), dim3(static_cast<unsigned>(blocks)),
               dim3(static_cast<unsigned>(groups * Tile::kThreads)), static_cast<size_t>(bytes),
               stream, p);
  return cudaGetLastError();
}

template <class Tile>
cudaError_t launch(const LinearArgs& args, cudaStream_t stream) {
  const LinearParams p = params(args);
  if (args.w_dtype == DType::kBF16) {
    return moves16(args) ? launch<bf16, Tile, true>(p, stream)
                         : launch<bf16, Tile, false>(p, stream);
  }
  return moves16(args) ? launch<float, Tile, true>(p, stream)
                       : launch<float, Tile, false>(p, stream);
}

template <class Tile>
bool fits(const LinearArgs& args) {
  const LinearChip chip = linear_chip();
  const bool compiled = chip.arch >= 80 || Tile::kTight;
  return compiled && groups_for<Tile>(params(args).chunks, args.m, chip.shared_bytes) > 0;
}

// wgmma is sm_90's alone, and TMA isn't emulated. The epilogue moves four columns at once, of y and
// of a residual of its type.
bool runs_on_hopper(const LinearArgs& args) {
#ifdef TRINE_SIMT
  static_cast<void>(args);
  return false;
#else
  return linear_chip().arch == 90 && args.w_dtype == DType::kBF16 && moves16(args) &&
         args.n % 4 == 0 && params(args).vectors && linear_hopper_can_encode() &&
         (args.residual.data == nullptr || args.residual.dtype == args.y.dtype);
#endif
}

cudaError_t launch_hopper(int cols, const LinearArgs& args, cudaStream_t stream) {
#ifdef TRINE_SIMT
  static_cast<void>(cols), static_cast<void>(args), static_cast<void>(stream);
  return cudaErrorNotSupported;
#else
  return linear_hopper(cols, params(args), linear_chip().multiprocessors, stream);
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
  if (args.m <= 16 || chip.arch < 80) return decode_tile(args);
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
