// SPDX-License-Identifier: Apache-2.0
#include "graph/graph.h"

#include <algorithm>
#include <array>
#include <new>
#include <type_traits>

#include "base/error.h"
#include "base/platform.h"

namespace trine {
namespace {

struct OpRow {
  OpInfo info;
  Attrs defaults;
};

// Row by row, not as one list: with what an exception leaves behind at each place of it, gcc 12
// takes minutes and gigabytes.
TRINE_NOINLINE void add_row(std::vector<OpRow>& rows, const OpInfo& info, Attrs defaults) {
  rows.push_back({info, std::move(defaults)});
}

const std::vector<OpRow>& op_rows() {
  static const std::vector<OpRow> all = [] {
    std::vector<OpRow> rows;
#define OP(name, attrs, inputs, meaning) add_row(rows, {#name, inputs, meaning}, attrs{});
#include "graph/ops.def"
#undef OP
    return rows;
  }();
  return all;
}

template <class Enum>
struct Spelling {
  std::string_view name;
  Enum value;
};

// The first spelling of a value is the one that is written.
constexpr std::array kActivations = std::to_array<Spelling<Activation>>({
    {"none", Activation::kNone},
    {"linear", Activation::kNone},
    {"identity", Activation::kNone},
    {"gelu", Activation::kGelu},
    {"gelu_python", Activation::kGelu},
    {"gelu_tanh", Activation::kGeluTanh},
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_python_tanh", Activation::kGeluTanh},
    {"gelu_accurate", Activation::kGeluTanh},
    {"relu", Activation::kRelu},
    {"tanh", Activation::kTanh},
    {"sigmoid", Activation::kSigmoid},
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"quick_gelu", Activation::kQuickGelu},
});

constexpr std::array kPoolModes = std::to_array<Spelling<PoolMode>>({
    {"cls", PoolMode::kCls},
    {"mean", PoolMode::kMean},
    {"max", PoolMode::kMax},
    {"mean_sqrt_len_tokens", PoolMode::kMeanSqrtLen},
    {"weightedmean", PoolMode::kWeightedMean},
    {"lasttoken", PoolMode::kLastToken},
});

constexpr std::array kQueries = std::to_array<Spelling<Queries>>({
    {"all", Queries::kAll},
    {"first", Queries::kFirst},
    {"last", Queries::kLast},
});

template <class Table, class Enum>
std::string_view spell(const Table& table, Enum value) noexcept {
  for (const auto& row : table) {
    if (row.value == value) return row.name;
  }
  return "?";
}

template <class Table>
auto parse(const Table& table, std::string_view what, std::string_view name) {
  std::string known;
  for (const auto& row : table) {
    if (row.name == name) return row.value;
    known += cat(known.empty() ? "" : ", ", row.name);
  }
  throw ModelError(cat("unknown ", what, " \"", name, "\"; known are ", known));
}

struct DumpField {
  std::string& out;

  void begin(const char* key) { out += cat(out.empty() ? "" : ", ", key, "="); }
  template <class T>
  void operator()(const char* key, const T& value) {
    begin(key);
    if constexpr (std::is_same_v<T, bool>) {
      out += value ? "true" : "false";
    } else if constexpr (std::is_enum_v<T>) {
      out += name_of(value);
    } else {
      out += cat(value);
    }
  }
};

std::string dump_attrs(const Attrs& attrs) {
  std::string out;
  std::visit([&](const auto& a) { std::decay_t<decltype(a)>::visit(a, DumpField{out}); }, attrs);
  return out;
}

std::string padded(std::string text, size_t width) {
  text.resize(std::max(width, text.size() + 1), ' ');
  return text;
}

}  // namespace

std::string_view name_of(Activation a) noexcept { return spell(kActivations, a); }
std::string_view name_of(PoolMode m) noexcept { return spell(kPoolModes, m); }
std::string_view name_of(Queries q) noexcept { return spell(kQueries, q); }
Activation parse_activation(std::string_view name) {
  return parse(kActivations, "activation", name);
}
PoolMode parse_pool_mode(std::string_view name) { return parse(kPoolModes, "pooling mode", name); }
Queries parse_queries(std::string_view name) { return parse(kQueries, "kind of queries", name); }

const OpInfo& info(Op op) noexcept { return op_rows()[static_cast<size_t>(op)].info; }

const std::vector<OpInfo>& all_ops() {
  static const std::vector<OpInfo> all = [] {
    std::vector<OpInfo> rows;
    for (const OpRow& row : op_rows()) rows.push_back(row.info);
    return rows;
  }();
  return all;
}

Op parse_op(std::string_view name) {
  for (size_t i = 0; i < op_rows().size(); ++i) {
    if (op_rows()[i].info.name == name) return static_cast<Op>(i);
  }
  throw ModelError(cat("unknown op \"", name, "\""));
}

Attrs default_attrs(Op op) { return op_rows()[static_cast<size_t>(op)].defaults; }

std::string to_string(const Shape& shape) {
  std::string out = "[";
  if (shape.rows != Rows::kFixed) out += shape.rows == Rows::kTokens ? "T" : "B";
  for (int64_t d : shape.dims) out += cat(out.size() > 1 ? ", " : "", d);
  return out + "]";
}

std::string describe(const Graph& graph, const Node& node) {
  const auto* begin = graph.nodes.data();
  const bool inside = &node >= begin && &node < begin + graph.nodes.size();
  const auto id =
      inside ? static_cast<int64_t>(&node - begin) : static_cast<int64_t>(graph.nodes.size());
  std::string out = cat(info(node.op).name, " (node ", id);
  if (!node.name.empty()) out += ", " + node.name;
  if (!node.source.empty()) out += ", " + node.source;
  return out + ")";
}

NodeId Graph::add(Op op, std::vector<NodeId> inputs, Attrs attrs, std::string name,
                  std::string source) {
  Node node{op,          std::move(inputs), std::move(attrs), {},
            DType::kF32, std::move(name),   std::move(source)};
  while (!node.inputs.empty() && node.inputs.back() == kNoNode) node.inputs.pop_back();
  infer(*this, node);
  nodes.push_back(std::move(node));
  return static_cast<NodeId>(nodes.size() - 1);
}

NodeId Graph::add_constant(std::span<const float> values, std::vector<int64_t> dims,
                           std::string name, std::string source) {
  int64_t count = 1;
  for (int64_t d : dims) {
    if (d < 1 || d > (int64_t{1} << 31) || (count *= d) > (int64_t{1} << 31))
      throw ModelError("a constant is empty or too large");
  }
  if (static_cast<size_t>(count) != values.size())
    throw ModelError(cat("a constant has ", values.size(), " values for ", count, " places"));
  constexpr std::align_val_t kLine{64};
  auto* memory = new (kLine) float[values.size()];
  std::copy(values.begin(), values.end(), memory);
  std::shared_ptr<const float[]> data(
      memory, [](const float* p) { ::operator delete[](const_cast<float*>(p), kLine); });
  const auto index = static_cast<int32_t>(constants.size());
  constants.push_back({std::move(data), std::move(dims)});
  return add(Op::constant, {}, ConstantAttrs{index}, std::move(name), std::move(source));
}

void Graph::add_output(std::string name, NodeId id) {
  if (id < 0 || static_cast<size_t>(id) >= nodes.size())
    throw ModelError(cat("output \"", name, "\" is no node"));
  const Node& node = (*this)[id];
  if (node.shape.rows == Rows::kFixed || node.dtype != DType::kF32) {
    throw ModelError(cat("output \"", name, "\" must be float rows of tokens or sequences, but is ",
                         to_string(node.shape), " from ", describe(*this, node)));
  }
  for (const auto& [other, unused] : outputs) {
    if (other == name) throw ModelError(cat("output \"", name, "\" is named twice"));
  }
  outputs.emplace_back(std::move(name), id);
}

std::string Graph::dump() const {
  std::string out;
  for (size_t id = 0; id < nodes.size(); ++id) {
    const Node& node = nodes[id];
    std::string call = cat(info(node.op).name, "(");
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      call += cat(i ? ", " : "", "%", node.inputs[i]);
      if (node.inputs[i] == kNoNode) call.replace(call.size() - 3, 3, "-");
    }
    const std::string attrs = dump_attrs(node.attrs);
    if (!attrs.empty()) call += (node.inputs.empty() ? "" : "; ") + attrs;
    out += padded(cat("%", id), 6) + padded(call + ")", 56) +
           padded(to_string(node.shape) + " " + std::string(name_of(node.dtype)), 20) +
           padded(node.name, 44) + node.source;
    out.erase(out.find_last_not_of(' ') + 1);
    out += '\n';
  }
  for (const auto& [name, id] : outputs) out += cat("output ", name, " = %", id, "\n");
  return out;
}

}  // namespace trine
