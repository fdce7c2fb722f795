// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <set>
#include <type_traits>

#include "base/error.h"
#include "bind.h"
#include "exec/engine.h"
#include "graph/graph.h"

namespace py = pybind11;

namespace trine::python {
namespace {

// Fills an op's attributes from keywords; a keyword that the op does not have is an error.
struct FromKeywords {
  const py::dict& given;
  std::set<std::string>& taken;

  template <class T>
  void operator()(const char* key, T& field) {
    if (!given.contains(key)) return;
    taken.insert(key);
    const py::object value = given[key];
    try {
      if constexpr (std::is_same_v<T, Activation>) {
        field = parse_activation(value.cast<std::string>());
      } else if constexpr (std::is_same_v<T, PoolMode>) {
        field = parse_pool_mode(value.cast<std::string>());
      } else if constexpr (std::is_same_v<T, Queries>) {
        field = parse_queries(value.cast<std::string>());
      } else {
        field = value.cast<T>();
      }
    } catch (const py::cast_error&) {
      throw ModelError(cat("attribute ", key, " cannot be ", py::repr(value).cast<std::string>()));
    }
  }
};

Attrs attrs_from(Op op, const py::dict& given) {
  Attrs attrs = default_attrs(op);
  std::set<std::string> taken;
  std::visit([&](auto& a) { std::decay_t<decltype(a)>::visit(a, FromKeywords{given, taken}); },
             attrs);
  for (const auto& [key, unused] : given) {
    const auto name = key.cast<std::string>();
    if (!taken.contains(name))
      throw ModelError(cat("op ", info(op).name, " has no attribute ", name));
  }
  return attrs;
}

py::tuple shape_of(const Graph& graph, NodeId id) {
  if (id < 0 || static_cast<size_t>(id) >= graph.nodes.size())
    throw ModelError(cat("there is no node ", id));
  const Shape& shape = graph[id].shape;
  py::list dims;
  if (shape.rows != Rows::kFixed) dims.append(shape.rows == Rows::kTokens ? "T" : "B");
  for (int64_t d : shape.dims) dims.append(d);
  return py::tuple(dims);
}

}  // namespace

void bind_graph(py::module_& m) {
  py::class_<Graph>(m, "Graph")
      .def(py::init([](std::shared_ptr<WeightStore> store) { return Graph(std::move(store)); }),
           py::arg("weights"))
      .def(
          "add",
          [](Graph& g, const std::string& op, std::vector<NodeId> inputs, const py::dict& attrs,
             std::string name, std::string source) {
            const Op which = parse_op(op);
            return g.add(which, std::move(inputs), attrs_from(which, attrs), std::move(name),
                         std::move(source));
          },
          py::arg("op"), py::arg("inputs"), py::arg("attrs"), py::arg("name") = "",
          py::arg("source") = "")
      .def(
          "add_constant",
          [](Graph& g, const std::vector<float>& values, std::vector<int64_t> dims,
             std::string name, std::string source) {
            return g.add_constant(values, std::move(dims), std::move(name), std::move(source));
          },
          py::arg("values"), py::arg("dims"), py::arg("name") = "", py::arg("source") = "")
      .def("add_output", &Graph::add_output, py::arg("name"), py::arg("node"))
      .def("shape", &shape_of, py::arg("node"))
      .def("has_weight",
           [](const Graph& g, const std::string& name) { return g.weights->find(name) != nullptr; })
      .def("ignore", [](Graph& g, std::string name) { g.ignored.push_back(std::move(name)); })
      .def("dump", &Graph::dump)
      .def_property_readonly("outputs", [](const Graph& g) {
        py::list names;
        for (const auto& [name, id] : g.outputs) names.append(name);
        return names;
      });

  m.def(
      "activation", [](const std::string& name) { return name_of(parse_activation(name)); },
      py::arg("name"));
  m.def("ops", [] {
    py::list rows;
    for (const OpInfo& row : all_ops())
      rows.append(py::make_tuple(row.name, row.inputs, row.meaning));
    return rows;
  });
}

}  // namespace trine::python
