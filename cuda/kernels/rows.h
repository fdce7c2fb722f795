// SPDX-License-Identifier: Apache-2.0
// Launches of everything that works row by row: all ops but linear and attention, and those that
// run once at load. The structs mirror exec/args.h, with device pointers; what a kernel needs of a
// batch's sizes to choose its grid comes from the host. Launches are asynchronous on the stream,
// allocate nothing and may be captured in a graph.
//
// Every matrix is float or bfloat16, each on its own; arithmetic is float. Accesses are 16 bytes
// wide where all the rows concerned are aligned to 16 bytes, with the same bits as where they are
// not. A row's bits depend on that row alone (pool: on its sequence).
#pragma once

#ifdef TRINE_SIMT
#include "simt/cuda.h"
#else
#include <cuda_runtime_api.h>
#endif

#include <cstdint>

#include "exec/args.h"
#include "kernels/matrix.h"
#include "kernels/ragged.h"

namespace trine::cuda {

struct LayerNormArgs {
  Matrix x;
  const float* weight;  // [cols], or null for 1
  const float* bias;    // [cols], or null for 0
  Matrix y;             // may be x
  int64_t rows, cols;
  float eps;
};
cudaError_t layer_norm(const LayerNormArgs& args, cudaStream_t stream);

struct RmsNormArgs {
  Matrix x;
  const float* weight;
  Matrix y;  // may be x
  int64_t rows, cols;
  float eps;
};
cudaError_t rms_norm(const RmsNormArgs& args, cudaStream_t stream);

struct L2NormalizeArgs {
  Matrix x, y;  // y may be x
  int64_t rows, cols;
  float eps;
};
cudaError_t l2_normalize(const L2NormalizeArgs& args, cudaStream_t stream);

struct EmbeddingArgs {
  static constexpr int kMaxTables = trine::EmbeddingArgs::kMaxTables;
  const int32_t* ids[kMaxTables];
  const void* tables[kMaxTables];  // dense rows of kF32, kF16 or kBF16
  DType dtypes[kMaxTables];
  int32_t count;
  Matrix y;
  int64_t rows, cols;
  int64_t table_rows = 0;  // of a quantised one (gpu/quantised.h), which is the only one
};
cudaError_t embedding(const EmbeddingArgs& args, cudaStream_t stream);

// Positions of tokens that are not padding, counted from padding_idx + 1 + past (exec/lower.h).
struct PositionsArgs {
  const int32_t* ids;
  Ragged batch;
  const int32_t* past;  // [sequences], or null; below 0 counts as 0
  int32_t padding_idx;
  int32_t* y;
};
cudaError_t positions(const PositionsArgs& args, cudaStream_t stream);

struct ActivationArgs {
  Matrix x, y;  // y may be x
  int64_t rows, cols;
  Activation activation;
};
cudaError_t activation(const ActivationArgs& args, cudaStream_t stream);

struct AddArgs {
  Matrix a, b, y;  // y may be a or b
  int64_t rows, cols;
};
cudaError_t add(const AddArgs& args, cudaStream_t stream);

struct GatedArgs {
  Matrix gate, up, y;  // y may be gate or up
  int64_t rows, cols;
  Activation activation;
};
cudaError_t gated(const GatedArgs& args, cudaStream_t stream);

struct ScaleArgs {
  Matrix x, y;  // y may be x
  int64_t rows, cols;
  float factor;
};
cudaError_t scale(const ScaleArgs& args, cudaStream_t stream);

// cols of x to y, converted where their types differ: copies, parts of concat, float outputs.
struct CopyColumnsArgs {
  Matrix x, y;
  int64_t rows, cols;
};
cudaError_t copy_columns(const CopyColumnsArgs& args, cudaStream_t stream);

// Each sequence's row of x to all of its tokens' rows of y.
struct SpreadArgs {
  Matrix x, y;
  int64_t cols;
  Ragged batch;
};
cudaError_t spread(const SpreadArgs& args, cudaStream_t stream);

struct WindowsArgs {
  Matrix x, y;
  int64_t cols;
  int32_t size;
  Ragged batch;
};
cudaError_t windows(const WindowsArgs& args, cudaStream_t stream);

// The table is best float, whatever the activations are.
struct RotaryArgs {
  const int32_t* positions;
  const float* inv_freq;       // [pairs]
  const float* long_inv_freq;  // [pairs], or null
  Matrix y;                    // [tokens][2 * pairs]
  int64_t pairs;
  Ragged batch;
  const int32_t* lengths;  // [sequences], or null: as many as they have rows
  float scaling;
  int32_t original_length;
  float base, factor;
};
cudaError_t rotary(const RotaryArgs& args, cudaStream_t stream);

struct RopeArgs {
  Matrix x;
  Matrix table;  // [rows][turned]: cosines, then sines
  Matrix y;      // may be x
  int64_t rows;
  int64_t heads, head_dim, turned;
};
cudaError_t rope(const RopeArgs& args, cudaStream_t stream);

// Row t of a sequence is added to the (t - begin) % 32-th of 32 sums, which are then added in
// order: other bits than the ascending sum of the CPU, and as independent of the batch.
struct PoolArgs {
  Matrix x;
  const int32_t* skip;  // [sequences], or null
  Matrix y;
  int64_t cols;
  Ragged batch;
  PoolMode mode;
};
cudaError_t pool(const PoolArgs& args, cudaStream_t stream);

}  // namespace trine::cuda
