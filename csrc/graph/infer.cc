// SPDX-License-Identifier: Apache-2.0
// Shape and dtype inference, one function per op. All checks of a graph's consistency are here, so
// that nothing behind it needs any.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/error.h"
#include "graph/graph.h"
#include "weights/convert.h"

namespace trine {
namespace {

class Inference {
 public:
  Inference(const Graph& graph, Node& node) : graph_(graph), node_(node) {}
  void run();

 private:
  template <class... A>
  [[noreturn]] void fail(const A&... what) const {
    throw ModelError(cat(describe(graph_, node_), ": ", what...));
  }

  void arity(size_t least, size_t most) const {
    if (node_.inputs.size() < least || node_.inputs.size() > most) {
      fail("takes (", info(node_.op).inputs, "), got ", node_.inputs.size(), " inputs");
    }
    for (size_t i = 0; i < node_.inputs.size(); ++i) {
      const NodeId id = node_.inputs[i];
      if (id == kNoNode && i >= least) continue;
      if (id < 0 || static_cast<size_t>(id) >= graph_.nodes.size() ||
          &graph_.nodes[static_cast<size_t>(id)] == &node_) {
        fail("input ", i, " is %", id, ", which is no earlier node");
      }
    }
  }

  const Node& in(size_t i) const { return graph_[node_.inputs[i]]; }
  bool has(size_t i) const { return node_.input(i) != kNoNode; }

  // Float rows: [T, cols], [B, cols] or a fixed matrix.
  const Shape& rows_of(size_t i) const {
    const Node& n = in(i);
    const size_t dims = n.shape.rows == Rows::kFixed ? 2 : 1;
    if (n.shape.dims.size() != dims || (n.dtype != DType::kF32 && n.shape.rows != Rows::kFixed)) {
      fail("input ", i, " must be float rows, but is ", to_string(n.shape), " ", name_of(n.dtype),
           " from ", describe(graph_, n));
    }
    return n.shape;
  }

  void want_vector(size_t i, int64_t size, const char* what) const {
    const Node& n = in(i);
    if (n.shape.rows != Rows::kFixed || n.shape.dims != std::vector<int64_t>{size}) {
      fail(what, " must be [", size, "], but is ", to_string(n.shape), " from ",
           describe(graph_, n));
    }
  }

  void same_rows(size_t i, const Shape& shape) const {
    if (in(i).shape != shape) {
      fail("input ", i, " is ", to_string(in(i).shape), ", but must be ", to_string(shape),
           " as input 0");
    }
  }

  void input();
  void weight();
  void constant();
  void concat_rows();
  void relative_bias();
  void positions();
  void embedding();
  void linear();
  void attention();
  void position_table(size_t i) const;
  void windows();
  void conv_weight();
  void layer_norm();
  void rms_norm();
  void rotary();
  void rope();
  void gated();
  void scale();
  void activation();
  void add();
  void pool();
  void spread();
  void l2_normalize();
  void concat();
  void slice();

  const Graph& graph_;
  Node& node_;
};

void Inference::input() {
  arity(0, 0);
  const auto& name = node_.as<InputAttrs>().name;
  if (name != "input_ids" && name != "token_type_ids") fail("unknown input \"", name, "\"");
  node_.shape = {Rows::kTokens, {1}};
  node_.dtype = DType::kI32;
}

void Inference::weight() {
  arity(0, 0);
  const Tensor& tensor = graph_.weights->at(node_.as<WeightAttrs>().name);
  if (!is_readable(tensor.dtype)) {
    fail("tensor \"", tensor.name, "\" of ", tensor.file, " is ", name_of(tensor.dtype), "; ",
         kReadable);
  }
  node_.shape = {Rows::kFixed, {tensor.shape.begin(), tensor.shape.end()}};
  for (int64_t d : node_.shape.dims) {
    if (d < 1)
      fail("tensor \"", tensor.name, "\" of ", tensor.file, " is empty: ", to_string(node_.shape));
  }
  node_.dtype = tensor.dtype;
}

void Inference::constant() {
  arity(0, 0);
  const int32_t index = node_.as<ConstantAttrs>().index;
  if (index < 0 || static_cast<size_t>(index) >= graph_.constants.size())
    fail("there is no constant ", index);
  node_.shape = {Rows::kFixed, graph_.constants[static_cast<size_t>(index)].dims};
  node_.dtype = DType::kF32;
}

void Inference::concat_rows() {
  arity(1, 16);
  std::vector<int64_t> dims = in(0).shape.dims;
  if (dims.empty()) fail("cannot stack scalars");
  dims[0] = 0;
  for (size_t i = 0; i < node_.inputs.size(); ++i) {
    const Shape& s = in(i).shape;
    if (s.rows != Rows::kFixed || s.dims.size() != dims.size() ||
        !std::equal(s.dims.begin() + 1, s.dims.end(), dims.begin() + 1)) {
      fail("part ", i, " is ", to_string(s), ", part 0 is ", to_string(in(0).shape));
    }
    dims[0] += s.dims[0];
  }
  node_.shape = {Rows::kFixed, std::move(dims)};
  node_.dtype = DType::kF32;
}

void Inference::relative_bias() {
  arity(1, 1);
  const auto& a = node_.as<RelativeBiasAttrs>();
  const Shape& table = in(0).shape;
  if (table.rows != Rows::kFixed || table.dims.size() != 2)
    fail("the table must be [buckets, heads], but is ", to_string(table));
  const int64_t buckets = a.num_buckets;
  if (buckets < 4 || buckets % 2 != 0)
    fail("the number of buckets must be even and at least 4, but is ", buckets);
  if (buckets > table.dims[0])
    fail("the table has ", table.dims[0], " rows for ", buckets, " buckets");
  if (a.max_distance <= buckets / 4)
    fail("max_distance ", a.max_distance, " must exceed a quarter of ", buckets, " buckets");
  if (a.span < 1 || a.span > (1 << 20)) fail("span ", a.span, " is out of range");
  node_.shape = {Rows::kFixed, {table.dims[1], 2 * int64_t{a.span} - 1}};
}

void Inference::positions() {
  arity(1, 1);
  if (in(0).dtype != DType::kI32) fail("needs token ids");
  const int32_t padding_idx = node_.as<PositionsAttrs>().padding_idx;
  if (padding_idx < -1 || padding_idx > 1 << 30) fail("padding_idx ", padding_idx, " is no id");
  node_.shape = {Rows::kTokens, {1}};
  node_.dtype = DType::kI32;
}

void Inference::embedding() {
  arity(2, 2 * EmbeddingArgs::kMaxTables);
  if (node_.inputs.size() % 2) fail("needs a table for each ids");
  if (node_.as<EmbeddingAttrs>().tied && node_.inputs.size() != 2)
    fail("is tied, so it has one table, not ", node_.inputs.size() / 2);
  for (size_t i = 0; i < node_.inputs.size(); i += 2) {
    if (in(i).dtype != DType::kI32 || in(i).shape.rows != Rows::kTokens)
      fail("input ", i, " must be token ids");
    const Shape& table = in(i + 1).shape;
    if (table.rows != Rows::kFixed || table.dims.size() != 2)
      fail("table ", i / 2, " must be a matrix, but is ", to_string(table));
    if (table.dims[1] != in(1).shape.dims[1]) {
      fail("table ", i / 2, " is ", to_string(table), ", table 0 is ", to_string(in(1).shape),
           ": rows differ in length");
    }
  }
  node_.shape = {Rows::kTokens, {in(1).shape.dims[1]}};
}

void Inference::linear() {
  arity(2, 4);
  const Shape& x = rows_of(0);
  const Shape& w = in(1).shape;
  if (w.rows != Rows::kFixed || w.dims.size() != 2)
    fail("the weight must be [out, in], but is ", to_string(w));
  if (w.dims[1] != x.cols()) {
    fail("the weight is ", to_string(w), ", but x has ", x.cols(), " columns (",
         describe(graph_, in(0)), ")");
  }
  Shape y = x;
  y.dims.back() = w.dims[0];
  if (has(2)) want_vector(2, w.dims[0], "the bias");
  if (has(3) && in(3).shape != y)
    fail("the residual is ", to_string(in(3).shape), ", the result ", to_string(y));
  node_.shape = std::move(y);
}

void Inference::attention() {
  arity(3, 6);
  const auto& a = node_.as<AttentionAttrs>();
  const int64_t width = rows_of(0).cols();
  if (a.heads < 1 || width % a.heads)
    fail(width, " columns of q don't split into ", a.heads, " heads");
  if (a.kv_heads < 1 || a.heads % a.kv_heads)
    fail(a.heads, " heads don't share ", a.kv_heads, " key heads");
  const int64_t head_dim = width / a.heads;
  for (size_t i : {size_t{1}, size_t{2}}) {
    if (rows_of(i).cols() != head_dim * a.kv_heads) {
      fail("input ", i, " has ", rows_of(i).cols(), " columns; ", a.kv_heads, " heads of ",
           head_dim, " are wanted");
    }
  }
  const Rows queries = a.queries == Queries::kAll ? Rows::kTokens : Rows::kSequences;
  for (size_t i = 0; i < 3; ++i) {
    const Rows wanted = i == 0 ? queries : Rows::kTokens;
    if (rows_of(i).rows != wanted)
      fail("input ", i, " must be rows of ", wanted == Rows::kTokens ? "tokens" : "sequences");
  }
  if (has(3)) {
    const Shape& bias = in(3).shape;
    if (bias.rows != Rows::kFixed || bias.dims.size() != 2 || bias.dims[0] != a.heads ||
        bias.dims[1] % 2 == 0) {
      fail("the bias must be [", a.heads, ", 2 * span - 1], but is ", to_string(bias));
    }
  }
  for (size_t i : {size_t{4}, size_t{5}}) {
    if (has(i)) position_table(i);
  }
  if (a.cache < -1) fail("there is no cache ", a.cache);
  if (a.cache >= 0 && (!a.causal || has(3) || has(4) || has(5) || a.queries != Queries::kAll))
    fail("a cache is for causal attention of all queries without a bias or position tables");
  node_.shape = {queries, {width}};
}

void Inference::position_table(size_t i) const {
  const auto& a = node_.as<AttentionAttrs>();
  const int64_t rows = 2 * int64_t{a.span()};
  const std::vector<int64_t> wanted{rows, rows_of(0).cols()};
  if (in(i).shape.rows != Rows::kFixed || in(i).shape.dims != wanted) {
    fail("position table ", i, " must be [", rows, ", ", wanted[1], "], but is ",
         to_string(in(i).shape));
  }
  if (a.causal || a.kv_heads != a.heads)
    fail("disentangled attention is neither causal nor shares key heads");
  constexpr int32_t kMost = 1 << 20;
  if (a.span() < 1 || a.span() > kMost || a.max_relative_positions > kMost)
    fail("position_buckets ", a.position_buckets, " and max_relative_positions ",
         a.max_relative_positions, " are out of range");
  // The logarithm's base would be 1 or less (and its buckets fall with the distance).
  const int32_t exact = a.position_buckets / 2;
  if (a.position_buckets > 0 && (exact < 1 || a.max_relative_positions - 1 <= exact)) {
    fail("max_relative_positions ", a.max_relative_positions, " must exceed half of ",
         a.position_buckets, " position_buckets by more than 1");
  }
}

void Inference::windows() {
  arity(1, 1);
  const int32_t size = node_.as<WindowsAttrs>().size;
  if (rows_of(0).rows != Rows::kTokens) fail("needs rows of tokens");
  if (size < 1 || size > 1024) fail("size ", size, " is out of range");
  node_.shape = {Rows::kTokens, {size * rows_of(0).cols()}};
}

void Inference::conv_weight() {
  arity(1, 1);
  const int32_t groups = node_.as<ConvWeightAttrs>().groups;
  const Shape& w = in(0).shape;
  if (w.rows != Rows::kFixed || w.dims.size() != 3)
    fail("the weight must be [out, in / groups, size], but is ", to_string(w));
  if (groups < 1 || w.dims[0] % groups != 0)
    fail(w.dims[0], " outputs don't split into ", groups, " groups");
  node_.shape = {Rows::kFixed, {w.dims[0], w.dims[2] * w.dims[1] * groups}};
}

void Inference::layer_norm() {
  arity(3, 3);
  node_.shape = rows_of(0);
  want_vector(1, node_.shape.cols(), "the weight");
  want_vector(2, node_.shape.cols(), "the bias");
  if (!(node_.as<LayerNormAttrs>().eps >= 0))
    fail("eps ", node_.as<LayerNormAttrs>().eps, " is out of range");
}

void Inference::rms_norm() {
  arity(2, 2);
  node_.shape = rows_of(0);
  want_vector(1, node_.shape.cols(), "the weight");
  if (!(node_.as<RmsNormAttrs>().eps >= 0))
    fail("eps ", node_.as<RmsNormAttrs>().eps, " is out of range");
}

void Inference::rotary() {
  arity(2, 3);
  const auto& a = node_.as<RotaryAttrs>();
  if (in(0).dtype != DType::kI32 || in(0).shape.rows != Rows::kTokens)
    fail("needs positions of tokens");
  const Shape& frequencies = in(1).shape;
  if (frequencies.rows != Rows::kFixed || frequencies.dims.size() != 1 ||
      frequencies.dims[0] > RotaryArgs::kMaxPairs) {
    fail("inv_freq must be a vector of at most ", RotaryArgs::kMaxPairs, ", but is ",
         to_string(frequencies));
  }
  const int64_t pairs = frequencies.dims[0];
  if (has(2)) want_vector(2, pairs, "long_inv_freq");
  if (!std::isfinite(a.scaling)) fail("the scaling must be finite");
  if (a.original_length < 0 || (has(2) && a.original_length == 0))
    fail("original_length ", a.original_length, " is out of range");
  if (a.original_length > 0 && !has(2) && !(pairs > 1 && a.base > 0 && a.factor >= 1))
    fail("dynamic frequencies need base > 0, factor >= 1 and two pairs or more");
  node_.shape = {Rows::kTokens, {2 * pairs}};
}

void Inference::rope() {
  arity(2, 2);
  const int32_t heads = node_.as<RopeAttrs>().heads;
  node_.shape = rows_of(0);
  if (node_.shape.rows != Rows::kTokens || rows_of(1).rows != Rows::kTokens)
    fail("needs rows of tokens");
  if (heads < 1 || node_.shape.cols() % heads != 0)
    fail(node_.shape.cols(), " columns don't split into ", heads, " heads");
  const int64_t turned = rows_of(1).cols();
  if (turned % 2 != 0 || turned > node_.shape.cols() / heads) {
    fail("a table of ", turned, " columns doesn't fit heads of ", node_.shape.cols() / heads);
  }
}

void Inference::gated() {
  arity(2, 2);
  node_.shape = rows_of(0);
  rows_of(1);
  same_rows(1, node_.shape);
}

void Inference::scale() {
  arity(1, 1);
  node_.shape = rows_of(0);
  if (!std::isfinite(node_.as<ScaleAttrs>().factor)) fail("the factor must be finite");
}

void Inference::activation() {
  arity(1, 1);
  node_.shape = rows_of(0);
}

void Inference::add() {
  arity(2, 2);
  node_.shape = rows_of(0);
  rows_of(1);
  same_rows(1, node_.shape);
}

void Inference::pool() {
  arity(1, 1);
  if (rows_of(0).rows != Rows::kTokens) fail("pools rows of tokens, not ", to_string(in(0).shape));
  node_.shape = {Rows::kSequences, {in(0).shape.cols()}};
}

void Inference::spread() {
  arity(1, 1);
  if (rows_of(0).rows != Rows::kSequences)
    fail("spreads rows of sequences, not ", to_string(in(0).shape));
  node_.shape = {Rows::kTokens, {in(0).shape.cols()}};
}

void Inference::l2_normalize() {
  arity(1, 1);
  node_.shape = rows_of(0);
}

void Inference::concat() {
  arity(1, 16);
  Shape y = rows_of(0);
  if (y.rows == Rows::kFixed) fail("concatenates rows of tokens or sequences");
  y.dims.back() = 0;
  for (size_t i = 0; i < node_.inputs.size(); ++i) {
    if (rows_of(i).rows != y.rows)
      fail("part ", i, " is ", to_string(in(i).shape), ", part 0 is ", to_string(in(0).shape));
    y.dims.back() += in(i).shape.cols();
  }
  node_.shape = std::move(y);
}

void Inference::slice() {
  arity(1, 1);
  const auto& a = node_.as<SliceAttrs>();
  Shape y = rows_of(0);
  if (a.begin < 0 || a.begin >= a.end || a.end > y.cols()) {
    fail("columns [", a.begin, ", ", a.end, ") don't lie within ", to_string(y));
  }
  y.dims.back() = a.end - a.begin;
  node_.shape = std::move(y);
}

void Inference::run() {
  if (node_.attrs.index() != default_attrs(node_.op).index()) fail("has another op's attributes");
  node_.dtype = DType::kF32;
  switch (node_.op) {
#define OP(name, attrs, inputs, meaning) \
  case Op::name:                         \
    return name();
#include "graph/ops.def"
#undef OP
  }
}

}  // namespace

void infer(const Graph& graph, Node& node) { Inference(graph, node).run(); }

void verify(const Graph& graph) {
  for (size_t id = 0; id < graph.nodes.size(); ++id) {
    const Node& node = graph.nodes[id];
    for (NodeId input : node.inputs) {
      if (input != kNoNode && (input < 0 || static_cast<size_t>(input) >= id)) {
        throw ModelError(
            cat(describe(graph, node), ": input %", input, " does not come before it"));
      }
    }
    Node again = node;
    infer(graph, again);
    if (again.shape != node.shape || again.dtype != node.dtype) {
      throw ModelError(cat(describe(graph, node), ": its shape is stored as ",
                           to_string(node.shape), ", but is ", to_string(again.shape)));
    }
  }
  for (const auto& [name, id] : graph.outputs) {
    if (id < 0 || static_cast<size_t>(id) >= graph.nodes.size())
      throw ModelError(cat("output \"", name, "\" is no node"));
  }
}

}  // namespace trine
