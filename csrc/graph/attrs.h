// SPDX-License-Identifier: Apache-2.0
// Attributes of the ops: plain structs. `visit` names every field once; Python keywords, dumps and
// the file format all go through it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "exec/args.h"

namespace trine {

struct NoAttrs {
  template <class Self, class Visitor>
  static void visit(Self&, Visitor&&) {}
};

struct InputAttrs {
  std::string name;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("name", self.name);
  }
};

struct WeightAttrs {
  std::string name;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("name", self.name);
  }
};

struct ConstantAttrs {
  int32_t index = -1;  // into Graph::constants
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("index", self.index);
  }
};

struct RelativeBiasAttrs {
  int32_t num_buckets = 32;
  int32_t max_distance = 128;
  int32_t span = 0;  // the longest sequence
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("num_buckets", self.num_buckets);
    field("max_distance", self.max_distance);
    field("span", self.span);
  }
};

struct PositionsAttrs {
  int32_t padding_idx = -1;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("padding_idx", self.padding_idx);
  }
};

struct LinearAttrs {
  Activation activation = Activation::kNone;
  // A pooling was moved in front of it (compile/sink.cc): it computes what a linear over tokens
  // computed, with the weights as that one holds them.
  bool pooled = false;
  // Not to be quantised, whatever the dtype of the model (host::weight_dtype).
  bool keep = false;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("activation", self.activation);
    field("pooled", self.pooled);
    field("keep", self.keep);
  }
};

struct EmbeddingAttrs {
  // Its one table is a linear's weight, too: where that is quantised, rows are read from its copy.
  bool tied = false;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("tied", self.tied);
  }
};

struct AttentionAttrs {
  int32_t heads = 0;
  int32_t kv_heads = 0;
  float scale = 0;
  bool causal = false;
  int32_t cache = -1;  // the layer of a sequence's cache that keeps k and v, if it has one
  // Of the position tables: their 2 * span rows, span = position_buckets or, where that is not
  // positive (no buckets), max_relative_positions.
  int32_t position_buckets = 0;
  int32_t max_relative_positions = 0;
  Queries queries = Queries::kAll;  // what is not kAll, compile/ made

  int32_t span() const noexcept {
    return position_buckets > 0 ? position_buckets : max_relative_positions;
  }
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("heads", self.heads);
    field("kv_heads", self.kv_heads);
    field("scale", self.scale);
    field("causal", self.causal);
    field("cache", self.cache);
    field("position_buckets", self.position_buckets);
    field("max_relative_positions", self.max_relative_positions);
    field("queries", self.queries);
  }
};

struct WindowsAttrs {
  int32_t size = 1;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("size", self.size);
  }
};

struct ConvWeightAttrs {
  int32_t groups = 1;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("groups", self.groups);
  }
};

struct LayerNormAttrs {
  float eps = 1e-5f;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("eps", self.eps);
  }
};

struct RmsNormAttrs {
  float eps = 1e-6f;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("eps", self.eps);
  }
};

struct RotaryAttrs {
  float scaling = 1;
  int32_t original_length = 0;
  float base = 0;
  float factor = 0;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("scaling", self.scaling);
    field("original_length", self.original_length);
    field("base", self.base);
    field("factor", self.factor);
  }
};

struct RopeAttrs {
  int32_t heads = 0;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("heads", self.heads);
  }
};

struct GatedAttrs {
  Activation activation = Activation::kNone;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("activation", self.activation);
  }
};

struct ScaleAttrs {
  float factor = 1;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("factor", self.factor);
  }
};

struct ActivationAttrs {
  Activation activation = Activation::kNone;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("activation", self.activation);
  }
};

struct PoolAttrs {
  PoolMode mode = PoolMode::kMean;
  bool include_prompt = true;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("mode", self.mode);
    field("include_prompt", self.include_prompt);
  }
};

struct L2NormalizeAttrs {
  float eps = 1e-12f;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("eps", self.eps);
  }
};

struct SliceAttrs {
  int64_t begin = 0;
  int64_t end = 0;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& field) {
    field("begin", self.begin);
    field("end", self.end);
  }
};

using Attrs =
    std::variant<NoAttrs, InputAttrs, WeightAttrs, ConstantAttrs, RelativeBiasAttrs, PositionsAttrs,
                 LinearAttrs, EmbeddingAttrs, AttentionAttrs, WindowsAttrs, ConvWeightAttrs,
                 LayerNormAttrs, RmsNormAttrs, RotaryAttrs, RopeAttrs, GatedAttrs, ScaleAttrs,
                 ActivationAttrs, PoolAttrs, L2NormalizeAttrs, SliceAttrs>;

// Names as configurations spell them ("gelu_new" and "gelu_pytorch_tanh" are both the tanh form).
std::string_view name_of(Activation) noexcept;
std::string_view name_of(PoolMode) noexcept;
std::string_view name_of(Queries) noexcept;
// ModelError that lists the known names when `name` is none of them.
Activation parse_activation(std::string_view name);
PoolMode parse_pool_mode(std::string_view name);
Queries parse_queries(std::string_view name);

}  // namespace trine
