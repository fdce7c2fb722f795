// SPDX-License-Identifier: Apache-2.0
#include "graph/serialize.h"

#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>

#include "base/error.h"
#include "base/json.h"

namespace trine {
namespace {

constexpr std::string_view kRows[] = {"fixed", "tokens", "sequences"};  // in the order of Rows

struct WriteField {
  JsonObject& out;

  template <class T>
  void operator()(const char* key, const T& value) {
    if constexpr (std::is_enum_v<T>) {
      out.set(key, name_of(value));
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!std::isfinite(value)) throw ModelError(cat("attribute ", key, " is ", value));
      out.set(key, static_cast<double>(value));
    } else {
      out.set(key, value);
    }
  }
};

struct ReadField {
  const JsonObject& in;
  size_t& found;

  static void parse(std::string_view name, Activation& to) { to = parse_activation(name); }
  static void parse(std::string_view name, PoolMode& to) { to = parse_pool_mode(name); }
  static void parse(std::string_view name, Queries& to) { to = parse_queries(name); }

  template <class T>
  void operator()(const char* key, T& field) {
    const Json* value = in.find(key);
    if (value == nullptr) throw ModelError(cat("attribute ", key, " is missing"));
    ++found;
    if constexpr (std::is_enum_v<T>) {
      parse(value->as_string(), field);
    } else if constexpr (std::is_same_v<T, bool>) {
      field = value->as_bool();
    } else if constexpr (std::is_same_v<T, std::string>) {
      field = value->as_string();
    } else if constexpr (std::is_same_v<T, float>) {
      const double number = value->as_double();
      if (std::abs(number) > std::numeric_limits<float>::max())
        throw ModelError(cat("attribute ", key, " is ", number));
      field = static_cast<float>(number);
    } else {
      const int64_t number = value->as_int();
      if (!std::in_range<T>(number)) throw ModelError(cat("attribute ", key, " is ", number));
      field = static_cast<T>(number);
    }
  }
};

Json write_node(const Node& node) {
  JsonObject attrs, out;
  std::visit([&](const auto& a) { std::decay_t<decltype(a)>::visit(a, WriteField{attrs}); },
             node.attrs);
  out.set("op", info(node.op).name);
  out.set("inputs", Json::Array(node.inputs.begin(), node.inputs.end()));
  out.set("attrs", std::move(attrs));
  out.set("rows", kRows[static_cast<size_t>(node.shape.rows)]);
  out.set("dims", Json::Array(node.shape.dims.begin(), node.shape.dims.end()));
  out.set("dtype", name_of(node.dtype));
  out.set("name", node.name);
  out.set("source", node.source);
  return out;
}

class Reader {
 public:
  Reader(std::string_view text, const std::string& source)
      : source_(source), text_(text), store_(std::make_shared<WeightStore>()), graph_(store_) {}

  Graph run() {
    const Json document = Json::parse(text_, source_);
    const Json::Array& nodes = document.at("nodes").as_array();
    for (const Json& node : nodes) {
      try {
        add(node, nodes.size());
      } catch (const ModelError& error) {
        throw ModelError(cat("node ", graph_.nodes.size(), ": ", error.what()));
      }
    }
    for (const Json& output : document.at("outputs").as_array()) {
      graph_.add_output(output.at("name").as_string(), id_of(output.at("node")));
    }
    return std::move(graph_);
  }

 private:
  static NodeId id_of(const Json& value) {
    const int64_t id = value.as_int();
    // What is beyond the nodes so far, inference refuses.
    if (id < kNoNode || id > INT32_MAX) throw ModelError(cat("there is no node ", id));
    return static_cast<NodeId>(id);
  }

  static Shape read_shape(const Json& json) {
    Shape shape;
    std::optional<Rows> rows;
    for (size_t i = 0; i < std::size(kRows); ++i) {
      if (kRows[i] == json.at("rows").as_string()) rows = static_cast<Rows>(i);
    }
    if (!rows) throw ModelError(cat("rows are ", quoted(json.at("rows").as_string())));
    shape.rows = *rows;
    for (const Json& dim : json.at("dims").as_array()) {
      const int64_t d = dim.as_int();
      if (d < 1 || d > INT32_MAX) throw ModelError(cat("dimension ", d, " is out of range"));
      shape.dims.push_back(d);
    }
    // Then no product of dimensions is too large to be counted.
    if (!checked_bytes(DType::kF64, shape.dims)) throw ModelError("the shape is out of range");
    return shape;
  }

  static DType read_dtype(const Json& json) {
    const std::string& name = json.as_string();
    for (int i = 0; i <= static_cast<int>(DType::kI4); ++i) {
      if (name_of(static_cast<DType>(i)) == name) return static_cast<DType>(i);
    }
    throw ModelError(cat("unknown dtype ", quoted(name)));
  }

  static Attrs read_attrs(Op op, const JsonObject& json) {
    Attrs attrs = default_attrs(op);
    size_t found = 0;
    std::visit([&](auto& a) { std::decay_t<decltype(a)>::visit(a, ReadField{json, found}); },
               attrs);
    if (found != json.size()) throw ModelError(cat("op ", info(op).name, " has fewer attributes"));
    return attrs;
  }

  void add(const Json& json, size_t nodes) {
    const Op op = parse_op(json.at("op").as_string());
    Attrs attrs = read_attrs(op, json.at("attrs").as_object());
    const Shape shape = read_shape(json);
    const DType dtype = read_dtype(json.at("dtype"));
    if (op == Op::weight) {
      declare(std::get<WeightAttrs>(attrs).name, dtype, shape);
    } else if (op == Op::constant) {
      declare(std::get<ConstantAttrs>(attrs).index, shape, nodes);
    } else if (shape.rows == Rows::kFixed) {
      throw ModelError(cat("op ", info(op).name, " depends on weights alone and is not folded"));
    }
    std::vector<NodeId> inputs;
    for (const Json& input : json.at("inputs").as_array()) inputs.push_back(id_of(input));
    const NodeId id = graph_.add(op, std::move(inputs), std::move(attrs),
                                 json.at("name").as_string(), json.at("source").as_string());
    if (graph_[id].shape != shape || graph_[id].dtype != dtype) {
      throw ModelError(cat(describe(graph_, graph_[id]), ": its shape is stored as ",
                           to_string(shape), " of ", name_of(dtype), ", but is ",
                           to_string(graph_[id].shape)));
    }
  }

  void declare(const std::string& name, DType dtype, const Shape& shape) {
    if (store_->find(name) == nullptr) store_->declare(name, dtype, shape.dims, source_);
  }

  void declare(int32_t index, const Shape& shape, size_t nodes) {
    if (index < 0 || static_cast<size_t>(index) >= nodes)
      throw ModelError(cat("there is no constant ", index));
    auto& constants = graph_.constants;
    constants.resize(std::max(constants.size(), static_cast<size_t>(index) + 1));
    if (constants[static_cast<size_t>(index)].dims.empty())
      constants[static_cast<size_t>(index)].dims = shape.dims;
  }

  const std::string& source_;
  std::string_view text_;
  std::shared_ptr<WeightStore> store_;
  Graph graph_;
};

}  // namespace

std::string to_json(const Graph& graph) {
  Json::Array nodes, outputs;
  for (const Node& node : graph.nodes) nodes.push_back(write_node(node));
  for (const auto& [name, id] : graph.outputs) {
    JsonObject output;
    output.set("name", name);
    output.set("node", id);
    outputs.push_back(std::move(output));
  }
  JsonObject document;
  document.set("nodes", std::move(nodes));
  document.set("outputs", std::move(outputs));
  return Json(std::move(document)).dump();
}

Graph graph_from_json(std::string_view text, const std::string& source) {
  try {
    return Reader(text, source).run();
  } catch (const ModelError& error) {
    const std::string_view what = error.what();
    if (what.starts_with(source)) throw;
    throw ModelError(cat(source, ": ", what));
  }
}

}  // namespace trine
