// SPDX-License-Identifier: Apache-2.0
#include "lower.h"

#include "gpu/lower.h"
#include "kernels/linear.h"
#include "kernels/rows.h"
#include "kv_pool.h"
#include "run.h"

namespace trine::cuda {
namespace {

// What gpu/lower.h asks of a device.
struct Gpu {
  using Fixed = cuda::Fixed;
  using LinearArgs = cuda::LinearArgs;
  using EmbeddingArgs = cuda::EmbeddingArgs;
  using AttentionArgs = cuda::AttentionArgs;
  static constexpr cudaError_t kDone = cudaSuccess;

  static void note(const char* step, cudaError_t error, const RunContext& c) noexcept {
    run_of(c).note(step, error);
  }

  static Matrix matrix(const Operand& o, const RunContext& c) noexcept {
    // Columns count in elements of the value's own type.
    if (!o) return {};
    Operand start = o;
    start.column = 0;
    auto* const bytes = start.at<std::byte>(c);
    return {bytes + o.column * static_cast<int64_t>(size_of(o.dtype)), o.ld, o.dtype};
  }
  static const void* weight(const Operand& o) noexcept { return o.data; }
  static const float* floats(const Operand& o, const RunContext& c) noexcept {
    return o.at<const float>(c);
  }
  static int32_t* ints(const Operand& o, const RunContext& c) noexcept { return o.at<int32_t>(c); }
  static const int32_t* ints(const int32_t* p, const RunContext&) noexcept { return p; }
  static Ragged ragged(const RunContext& c) noexcept { return cuda::ragged(c); }
  static const int32_t* past(const RunContext& c) noexcept { return run_of(c).caches.past; }
  static int64_t linear_ldw(DType dtype, int64_t k) noexcept { return cuda::linear_ldw(dtype, k); }

#define TRINE_OP(op, Args)                                                \
  static cudaError_t op(const Args& args, const RunContext& c) noexcept { \
    return cuda::op(args, run_of(c).stream);                              \
  }
  TRINE_OP(layer_norm, LayerNormArgs)
  TRINE_OP(rms_norm, RmsNormArgs)
  TRINE_OP(l2_normalize, L2NormalizeArgs)
  TRINE_OP(embedding, EmbeddingArgs)
  TRINE_OP(positions, PositionsArgs)
  TRINE_OP(rotary, RotaryArgs)
  TRINE_OP(rope, RopeArgs)
  TRINE_OP(activation, ActivationArgs)
  TRINE_OP(scale, ScaleArgs)
  TRINE_OP(add, AddArgs)
  TRINE_OP(gated, GatedArgs)
  TRINE_OP(pool, PoolArgs)
  TRINE_OP(copy_columns, CopyColumnsArgs)
  TRINE_OP(spread, SpreadArgs)
  TRINE_OP(windows, WindowsArgs)
#undef TRINE_OP

  static cudaError_t linear(LinearArgs& a, const RunContext& c) noexcept {
    a.workspace = run_of(c).workspace;
    return cuda::linear(a, run_of(c).stream);
  }

  static cudaError_t attention(AttentionArgs& a, const Fixed& fixed, int32_t cache,
                               const RunContext& c) noexcept {
    const Run& run = run_of(c);
    a.position_at = fixed.position_at.get();
    a.reach = fixed.reach;
    a.workspace = run.workspace;
    a.counters = run.counters;
    if (cache >= 0 && run.caches.past != nullptr) {
      const KvPool& pool = **fixed.pool;
      const auto size = static_cast<int64_t>(size_of(a.k.dtype));
      a.cache = {pool.base(),
                 static_cast<int64_t>(pool.page_bytes()) / size,
                 static_cast<int64_t>(pool.keys_at(cache)) / size,
                 static_cast<int64_t>(pool.values_at(cache)) / size,
                 run.caches.pages,
                 run.caches.pages_ld,
                 run.caches.past,
                 static_cast<int32_t>(c.max_total),
                 run.caches.all_cached};
    }
    return cuda::attention(a, run.stream);
  }
};

}  // namespace

AttentionArgs attention_sizes(const Node& node) { return gpu::attention_sizes<Gpu>(node); }

Step lower(const Graph& graph, const Node& node, std::span<const Operand> in, const Operand& out,
           const Fixed& fixed) {
  return gpu::lower<Gpu>(graph, node, in, out, fixed);
}

}  // namespace trine::cuda
