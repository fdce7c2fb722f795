// SPDX-License-Identifier: Apache-2.0
// The graph of a model: plain data, written by Python (or read from a file), rewritten by the
// passes of compile/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "graph/attrs.h"
#include "weights/store.h"

namespace trine {

enum class Op : uint8_t {
#define OP(name, attrs, inputs, meaning) name,
#include "graph/ops.def"
#undef OP
};

struct OpInfo {
  std::string_view name;
  std::string_view inputs;
  std::string_view meaning;
};
const OpInfo& info(Op) noexcept;
const std::vector<OpInfo>& all_ops();
// ModelError when there is no such op.
Op parse_op(std::string_view name);
Attrs default_attrs(Op);

using NodeId = int32_t;
inline constexpr NodeId kNoNode = -1;

// What the first dimension of a value counts. A fixed value depends on weights alone.
enum class Rows : uint8_t { kFixed, kTokens, kSequences };

// kFixed: all dimensions. kTokens, kSequences: {cols}, the rows are the batch's.
struct Shape {
  Rows rows = Rows::kFixed;
  std::vector<int64_t> dims;

  int64_t cols() const noexcept { return dims.empty() ? 1 : dims.back(); }
  bool operator==(const Shape&) const = default;
};
std::string to_string(const Shape&);

struct Node {
  Op op;
  std::vector<NodeId> inputs;  // kNoNode where an optional input is absent
  Attrs attrs;
  Shape shape;
  DType dtype = DType::kF32;
  std::string name;    // the scope in the checkpoint, "encoder.layer.3.output.dense"
  std::string source;  // the line that made it, "mpnet.py:42"

  NodeId input(size_t i) const noexcept { return i < inputs.size() ? inputs[i] : kNoNode; }
  template <class T>
  const T& as() const {
    return std::get<T>(attrs);
  }
};

// A value that folding computed; 64-byte aligned. In the graph of a compiled file there is no data;
// `elsewhere`, if given, gets what the file has of it, in whatever type.
struct Constant {
  std::shared_ptr<const float[]> data;
  std::vector<int64_t> dims;
  std::function<Numbers()> elsewhere = {};
};

struct Graph {
  std::shared_ptr<const WeightStore> weights;
  std::vector<Node> nodes;  // an input comes before its user
  std::vector<std::pair<std::string, NodeId>> outputs;
  std::vector<Constant> constants;
  std::vector<std::string> ignored;  // tensors that the model knows and has no use for

  explicit Graph(std::shared_ptr<const WeightStore> store) : weights(std::move(store)) {}

  // Appends a node after checking its inputs and inferring its shape. ModelError names the op, the
  // shapes and the line.
  NodeId add(Op op, std::vector<NodeId> inputs, Attrs attrs, std::string name, std::string source);
  // A constant node of these numbers: ModelError unless there are as many as `dims` say.
  NodeId add_constant(std::span<const float> values, std::vector<int64_t> dims, std::string name,
                      std::string source);
  void add_output(std::string name, NodeId id);
  const Node& operator[](NodeId id) const { return nodes[static_cast<size_t>(id)]; }

  // A line per node: id, op, inputs, attributes, shape, scope, source.
  std::string dump() const;
};

// Shape and dtype of a node from its inputs; ModelError when they don't fit. graph/infer.cc.
void infer(const Graph&, Node&);
// Order, arity and shapes of a whole graph: after every pass, and for a graph read from a file.
void verify(const Graph&);
// "linear (node 42, encoder.layer.3, mpnet.py:31)", for error texts.
std::string describe(const Graph&, const Node&);

}  // namespace trine
