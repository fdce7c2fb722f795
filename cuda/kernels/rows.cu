// SPDX-License-Identifier: Apache-2.0
#include "kernels/rows.h"

#include "gpu/quantised.h"
#include "kernels/rows.cuh"

namespace trine::cuda {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

rows::View vector_view(const float* p) {
  return rows::view_of({const_cast<float*>(p), 0, DType::kF32});
}

template <rows::Norm kNorm>
cudaError_t norm(const Matrix& x, const float* weight, const float* bias, const Matrix& y,
                 int64_t count, int64_t cols, float eps, cudaStream_t stream) {
  if (count == 0 || cols == 0) return cudaSuccess;
  const rows::NormParams p = {rows::view_of(x),
                              rows::view_of(y),
                              vector_view(weight),
                              vector_view(bias),
                              count,
                              static_cast<int>(cols),
                              eps};
  if (cols <= 1024) {
    TRINE_LAUNCH((rows::norm_rows<kNorm, 32>), blocks_for(count, rows::kNormBlock / 32),
                 rows::kNormBlock, 0, stream, p);
  } else if (cols <= 4096) {
    TRINE_LAUNCH((rows::norm_rows<kNorm, 128>), blocks_for(count, 1), 128, 0, stream, p);
  } else {
    TRINE_LAUNCH((rows::norm_rows<kNorm, 512>), blocks_for(count, 1), 512, 0, stream, p);
  }
  return cudaPeekAtLastError();
}

template <class Op>
cudaError_t map(const Op& op, const Matrix& y, int64_t count, int64_t cols, cudaStream_t stream) {
  if (count == 0 || cols == 0) return cudaSuccess;
  TRINE_LAUNCH(rows::map_chunks<Op>, blocks_for(count * rows::chunks_of(cols), kThreads), kThreads,
               0, stream, op, rows::view_of(y), count, static_cast<int>(cols));
  return cudaPeekAtLastError();
}

}  // namespace

cudaError_t layer_norm(const LayerNormArgs& args, cudaStream_t stream) {
  return norm<rows::Norm::kLayer>(args.x, args.weight, args.bias, args.y, args.rows, args.cols,
                                  args.eps, stream);
}

cudaError_t rms_norm(const RmsNormArgs& args, cudaStream_t stream) {
  return norm<rows::Norm::kRms>(args.x, args.weight, nullptr, args.y, args.rows, args.cols,
                                args.eps, stream);
}

cudaError_t l2_normalize(const L2NormalizeArgs& args, cudaStream_t stream) {
  return norm<rows::Norm::kL2>(args.x, nullptr, nullptr, args.y, args.rows, args.cols, args.eps,
                               stream);
}

cudaError_t embedding(const EmbeddingArgs& args, cudaStream_t stream) {
  rows::EmbeddingOp op = {};
  for (int t = 0; t < args.count; ++t) {
    op.ids[t] = args.ids[t];
    op.tables[t] = rows::view_of({const_cast<void*>(args.tables[t]), args.cols, args.dtypes[t]});
  }
  op.count = args.count;
  if (gpu::is_quantised_form(args.dtypes[0])) {
    rows::View& table = op.tables[0];
    table.ld = gpu::quantised_ldw(args.dtypes[0], args.cols);
    op.scales = static_cast<const unsigned char*>(args.tables[0]) + args.table_rows * table.ld;
  }
  return map(op, args.y, args.rows, args.cols, stream);
}

cudaError_t positions(const PositionsArgs& args, cudaStream_t stream) {
  if (args.batch.tokens == 0) return cudaSuccess;
  TRINE_LAUNCH(rows::number_tokens, static_cast<unsigned>(args.batch.sequences), 32, 0, stream,
               args.ids, args.batch.offsets, args.past, args.padding_idx, args.y);
  return cudaPeekAtLastError();
}

cudaError_t activation(const ActivationArgs& args, cudaStream_t stream) {
  return map(rows::ActivationOp{rows::view_of(args.x), args.activation}, args.y, args.rows,
             args.cols, stream);
}

cudaError_t add(const AddArgs& args, cudaStream_t stream) {
  return map(rows::AddOp{rows::view_of(args.a), rows::view_of(args.b)}, args.y, args.rows,
             args.cols, stream);
}

cudaError_t gated(const GatedArgs& args, cudaStream_t stream) {
  return map(rows::GatedOp{rows::view_of(args.gate), rows::view_of(args.up), args.activation},
             args.y, args.rows, args.cols, stream);
}

cudaError_t scale(const ScaleArgs& args, cudaStream_t stream) {
  return map(rows::ScaleOp{rows::view_of(args.x), args.factor}, args.y, args.rows, args.cols,
             stream);
}

cudaError_t copy_columns(const CopyColumnsArgs& args, cudaStream_t stream) {
  return map(rows::CopyOp{rows::view_of(args.x)}, args.y, args.rows, args.cols, stream);
}

cudaError_t spread(const SpreadArgs& args, cudaStream_t stream) {
  return map(rows::SpreadOp{rows::view_of(args.x), args.batch}, args.y, args.batch.tokens,
             args.cols, stream);
}

cudaError_t windows(const WindowsArgs& args, cudaStream_t stream) {
  return map(
      rows::WindowsOp{rows::view_of(args.x), args.batch, static_cast<int>(args.cols), args.size},
      args.y, args.batch.tokens, args.cols * args.size, stream);
}

cudaError_t rotary(const RotaryArgs& args, cudaStream_t stream) {
  if (args.batch.tokens == 0 || args.pairs == 0) return cudaSuccess;
  const rows::RotaryParams p = {args.positions,
                                args.inv_freq,
                                args.long_inv_freq,
                                rows::view_of(args.y),
                                static_cast<int>(args.pairs),
                                args.batch,
                                args.lengths,
                                args.scaling,
                                args.original_length,
                                args.base,
                                args.factor};
  TRINE_LAUNCH(rows::rotary_rows, blocks_for(args.batch.tokens * args.pairs, kThreads), kThreads, 0,
               stream, p);
  return cudaPeekAtLastError();
}

cudaError_t rope(const RopeArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.heads == 0) return cudaSuccess;
  const int64_t half = args.turned / 2;
  rows::RopeParams p = {rows::view_of(args.x),        rows::view_of(args.table),
                        rows::view_of(args.y),        args.rows,
                        static_cast<int>(args.heads), static_cast<int>(args.head_dim),
                        static_cast<int>(half),       false};
  p.vectors = p.x.vectors && p.table.vectors && p.y.vectors && half % rows::kChunk == 0 &&
              args.head_dim % rows::kChunk == 0;
  const int64_t items = rows::chunks_of(half) + rows::chunks_of(args.head_dim - 2 * half);
  TRINE_LAUNCH(rows::rope_rows, blocks_for(args.rows * args.heads * items, kThreads), kThreads, 0,
               stream, p);
  return cudaPeekAtLastError();
}

cudaError_t pool(const PoolArgs& args, cudaStream_t stream) {
  if (args.batch.sequences == 0 || args.cols == 0) return cudaSuccess;
  const rows::PoolParams p = {rows::view_of(args.x), rows::view_of(args.y),       args.skip,
                              args.batch.offsets,    static_cast<int>(args.cols), args.mode};
  const unsigned groups = blocks_for(rows::chunks_of(args.cols), rows::kPoolChunks);
  TRINE_LAUNCH(rows::pool_rows, groups * static_cast<unsigned>(args.batch.sequences),
               rows::kPoolChunks * rows::kPoolWays, 0, stream, p);
  return cudaPeekAtLastError();
}

}  // namespace trine::cuda
