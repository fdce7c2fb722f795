// SPDX-License-Identifier: Apache-2.0
// What gpu/lower.h asks of a device: arguments with places in buffers where cuda/kernels/rows.h has
// pointers, in the same order, and a function for each op that dispatches its kernels.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "graph/graph.h"
#include "kernels/launch.h"
#include "run.h"

namespace trine::metal {

class KvPool;

namespace ops {

// Rows in a buffer; `ld` elements from one row to the next.
struct Rows {
  Place at;
  int64_t ld = 0;
  DType dtype = DType::kF32;
};

struct Batch {
  Place offsets;
  int32_t sequences = 0, tokens = 0, max_length = 0;
};

struct LinearArgs {
  Rows x;
  Place w;
  int64_t ldw = 0;
  DType w_dtype = DType::kF32;
  Place bias;
  Rows residual, y;
  int64_t m = 0, n = 0, k = 0;
  Activation activation = Activation::kNone;
};
struct LayerNormArgs {
  Rows x;
  Place weight, bias;
  Rows y;
  int64_t rows, cols;
  float eps;
};
struct RmsNormArgs {
  Rows x;
  Place weight;
  Rows y;
  int64_t rows, cols;
  float eps;
};
struct L2NormalizeArgs {
  Rows x, y;
  int64_t rows, cols;
  float eps;
};
struct EmbeddingArgs {
  static constexpr int kMaxTables = trine::EmbeddingArgs::kMaxTables;
  Place ids[kMaxTables], tables[kMaxTables];
  DType dtypes[kMaxTables];
  int32_t count;
  Rows y;
  int64_t rows, cols;
  int64_t table_rows;
};
struct PositionsArgs {
  Place ids;
  Batch batch;
  Place past;
  int32_t padding_idx;
  Place y;
};
struct RotaryArgs {
  Place positions, inv_freq, long_inv_freq;
  Rows y;
  int64_t pairs;
  Batch batch;
  Place lengths;
  float scaling;
  int32_t original_length;
  float base, factor;
};
struct RopeArgs {
  Rows x, table, y;
  int64_t rows, heads, head_dim, turned;
};
struct ActivationArgs {
  Rows x, y;
  int64_t rows, cols;
  Activation activation;
};
struct ScaleArgs {
  Rows x, y;
  int64_t rows, cols;
  float factor;
};
struct AddArgs {
  Rows a, b, y;
  int64_t rows, cols;
};
struct GatedArgs {
  Rows gate, up, y;
  int64_t rows, cols;
  Activation activation;
};
struct PoolArgs {
  Rows x;
  Place skip;
  Rows y;
  int64_t cols;
  Batch batch;
  PoolMode mode;
};
struct CopyColumnsArgs {
  Rows x, y;
  int64_t rows, cols;
};
struct SpreadArgs {
  Rows x, y;
  int64_t cols;
  Batch batch;
};
struct WindowsArgs {
  Rows x, y;
  int64_t cols;
  int32_t size;
  Batch batch;
};
struct AttentionArgs {
  Rows q, k, v;
  Place bias;
  int32_t span = 0;
  Rows y;
  Batch batch;
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;
  bool causal = false;
  Rows position_keys, position_queries;
  Queries queries = Queries::kAll;
};

}  // namespace ops

// Where an attention step finds what belongs to the model and not to a run.
struct Fixed {
  const KvPool* const* pool = nullptr;  // of the keys and values; null until there are some
  std::shared_ptr<const Place> position_at;
  int32_t reach = 0;
};

// gpu/lower.h's.
struct Gpu {
  using Fixed = metal::Fixed;
  using LinearArgs = ops::LinearArgs;
  using EmbeddingArgs = ops::EmbeddingArgs;
  using AttentionArgs = ops::AttentionArgs;
  // The run itself remembers what fails.
  struct Dispatched {
    bool operator==(const Dispatched&) const = default;
  };
  static constexpr Dispatched kDone{};
  static void note(const char*, Dispatched, const RunContext&) noexcept {}

  static ops::Rows matrix(const Operand& o, const RunContext& c) noexcept;
  static Place weight(const Operand& o) noexcept { return *static_cast<const Place*>(o.data); }
  static Place floats(const Operand& o, const RunContext& c) noexcept { return matrix(o, c).at; }
  static Place ints(const Operand& o, const RunContext& c) noexcept { return matrix(o, c).at; }
  static Place ints(const int32_t* p, const RunContext& c) noexcept { return run_of(c).place(p); }
  static ops::Batch ragged(const RunContext& c) noexcept;
  static Place past(const RunContext& c) noexcept { return run_of(c).place(run_of(c).caches.past); }
  static int64_t linear_ldw(DType, int64_t k) noexcept { return metal::linear_ldw(k); }

  static Dispatched linear(const ops::LinearArgs&, const RunContext&) noexcept;
  static Dispatched layer_norm(const ops::LayerNormArgs&, const RunContext&) noexcept;
  static Dispatched rms_norm(const ops::RmsNormArgs&, const RunContext&) noexcept;
  static Dispatched l2_normalize(const ops::L2NormalizeArgs&, const RunContext&) noexcept;
  static Dispatched embedding(const ops::EmbeddingArgs&, const RunContext&) noexcept;
  static Dispatched positions(const ops::PositionsArgs&, const RunContext&) noexcept;
  static Dispatched rotary(const ops::RotaryArgs&, const RunContext&) noexcept;
  static Dispatched rope(const ops::RopeArgs&, const RunContext&) noexcept;
  static Dispatched activation(const ops::ActivationArgs&, const RunContext&) noexcept;
  static Dispatched scale(const ops::ScaleArgs&, const RunContext&) noexcept;
  static Dispatched add(const ops::AddArgs&, const RunContext&) noexcept;
  static Dispatched gated(const ops::GatedArgs&, const RunContext&) noexcept;
  static Dispatched pool(const ops::PoolArgs&, const RunContext&) noexcept;
  static Dispatched copy_columns(const ops::CopyColumnsArgs&, const RunContext&) noexcept;
  static Dispatched spread(const ops::SpreadArgs&, const RunContext&) noexcept;
  static Dispatched windows(const ops::WindowsArgs&, const RunContext&) noexcept;
  static Dispatched attention(const ops::AttentionArgs&, const Fixed&, int32_t cache,
                              const RunContext&) noexcept;
};

// The kernels that a step of this node may dispatch are made ready: DeviceError when one can't be.
void prepare(Device& device, const Node& node, std::span<const Operand> in);

}  // namespace trine::metal
