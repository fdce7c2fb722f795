// SPDX-License-Identifier: Apache-2.0
// attention's launches, a translation unit for each of a few kernels.
#pragma once

#include "kernels/attention.cuh"

namespace trine::cuda::attend {

// rows: queries of the longest sequence.
cudaError_t rows_bf16(Kind kind, Params p, int rows, cudaStream_t stream);
cudaError_t rows_f32(Kind kind, Params p, int rows, cudaStream_t stream);
cudaError_t disentangled_bf16(Params p, int rows, cudaStream_t stream);
cudaError_t disentangled_f32(Params p, int rows, cudaStream_t stream);
// Of short sequences with caches.
cudaError_t split_bf16(const Params& p, cudaStream_t stream);
cudaError_t split_f32(const Params& p, cudaStream_t stream);

// With two buffers if they fit, else with one; p.stages says which. cudaErrorInvalidValue where
// neither fits, as the driver has it.
template <class Kernel, class Bytes>
cudaError_t launch(Kernel kernel, unsigned blocks, int threads, const Bytes& bytes, Params& p,
                   cudaStream_t stream) {
  if (p.shared_limit > 0) return bytes(1) <= p.shared_limit ? cudaSuccess : cudaErrorInvalidValue;
  for (p.stages = 2; p.stages >= 1; --p.stages) {
    const int shared = bytes(p.stages);
    if (shared > 48 * 1024) {
      const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
      if (error != cudaSuccess) {
        if (p.stages == 1) return error;
        static_cast<void>(cudaGetLastError());
        continue;
      }
    }
    TRINE_LAUNCH(kernel, blocks, static_cast<unsigned>(threads), static_cast<unsigned>(shared),
                 stream, p);
    return cudaPeekAtLastError();
  }
  return cudaErrorInvalidValue;
}

// The first kernel that the device has shared memory for: 227 KiB on sm_90, 99 at least from sm_80
// on, 64 on sm_75.
template <class Launch, class... Others>
cudaError_t first_of(Launch launch, Others... others) {
  const cudaError_t error = launch();
  if constexpr (sizeof...(Others) > 0) {
    if (error == cudaErrorInvalidValue) {
      static_cast<void>(cudaGetLastError());
      return first_of(others...);
    }
  }
  return error;
}

template <class T, int kD, int kRowTiles, int kWarps, Kind kKind>
cudaError_t launch_rows(Params p, int rows, cudaStream_t stream) {
  using S = Shape<T, kD>;
  constexpr int kRows = 16 * kRowTiles * kWarps;
  p.tiles = (rows + kRows - 1) / kRows;
  const int64_t blocks = int64_t{p.heads} * p.sequences * p.tiles;
  const auto bytes = [&](int stages) {
    constexpr int kQueries = kRows * S::kLd * static_cast<int>(sizeof(T));
    const int totals = kKind == Kind::kCausal && p.chunks > 1 ? kRows * kD * 4 : 0;
    const int tiles = stages * 2 * S::kTile * S::kLd * static_cast<int>(sizeof(T));
    return tiles + (S::kHeldQueries ? (kQueries > totals ? kQueries : totals) : kQueries + totals);
  };
  return launch(attention_rows<T, kD, kRowTiles, kWarps, kKind>, static_cast<unsigned>(blocks),
                32 * kWarps, bytes, p, stream);
}

template <class T, int kD>
cudaError_t launch_kind(Kind kind, const Params& p, int rows, cudaStream_t stream) {
  // Wide rows take registers for outputs, and shared memory for queries.
  constexpr int kWarps = Shape<T, kD>::kBytes <= 256 ? 4 : 2;
  // Twice the rows a warp read K and V half as often; where that leaves enough blocks for two on
  // each of some 130 multiprocessors.
  if constexpr (Shape<T, kD>::kBytes <= 128 && sizeof(T) == 2) {
    if (int64_t{p.heads} * p.sequences * ((rows + 127) / 128) >= 256 && rows > 64) {
      switch (kind) {
        case Kind::kPlain:
          return launch_rows<T, kD, 2, kWarps, Kind::kPlain>(p, rows, stream);
        case Kind::kBias:
          return launch_rows<T, kD, 2, kWarps, Kind::kBias>(p, rows, stream);
        case Kind::kCausal:
          return launch_rows<T, kD, 2, kWarps, Kind::kCausal>(p, rows, stream);
      }
    }
  }
  switch (kind) {
    case Kind::kPlain:
      return launch_rows<T, kD, 1, kWarps, Kind::kPlain>(p, rows, stream);
    case Kind::kBias:
      return launch_rows<T, kD, 1, kWarps, Kind::kBias>(p, rows, stream);
    case Kind::kCausal:
      if constexpr (kD == 128) {
        return first_of(
            [&] { return launch_rows<T, kD, 1, kWarps, Kind::kCausal>(p, rows, stream); },
            // Fewer rows for sm_75, whose sums of chunks lie in shared memory, too.
            [&] { return launch_rows<T, kD, 1, kWarps / 2, Kind::kCausal>(p, rows, stream); });
      }
      return launch_rows<T, kD, 1, kWarps, Kind::kCausal>(p, rows, stream);
  }
  return cudaErrorInvalidValue;
}

// Other sizes of heads are filled up with zeros to the next one.
template <class T>
cudaError_t launch_size(Kind kind, const Params& p, int rows, cudaStream_t stream) {
  if (p.head_dim <= 32) return launch_kind<T, 32>(kind, p, rows, stream);
  if (p.head_dim <= 64) return launch_kind<T, 64>(kind, p, rows, stream);
  if (p.head_dim <= 96) return launch_kind<T, 96>(kind, p, rows, stream);
  if (p.head_dim <= 128) return launch_kind<T, 128>(kind, p, rows, stream);
  return launch_kind<T, 256>(kind, p, rows, stream);
}

}  // namespace trine::cuda::attend
