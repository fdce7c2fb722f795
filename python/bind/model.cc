// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "bind.h"
#include "cpu/kernel_table.h"
#include "cpu/peak.h"
#include "exec/compare.h"
#include "exec/devices.h"
#include "exec/engine.h"
#include "exec/host.h"

namespace py = pybind11;

namespace trine::python {
namespace {

DType python_dtype(std::string_view wanted) {
  std::string known;
  for (const DType dtype : kModelDTypes) {
    if (model_name(dtype) == wanted) return dtype;
    known += cat(known.empty() ? "" : ", ", model_name(dtype));
  }
  throw InputError(cat("dtype ", quoted(wanted), " is not known; known are ", known));
}

using Ids = py::array_t<int32_t, py::array::c_style>;

std::span<const int32_t> view(const Ids& array, const char* what) {
  if (array.ndim() != 1)
    throw InputError(cat(what, " must have one dimension, not ", array.ndim()));
  return {array.data(), static_cast<size_t>(array.size())};
}

// The Python object: an engine that can be closed. Closing while calls run waits for none of them:
// each holds the engine. The lock is for a Python without a GIL.
class Model {
 public:
  explicit Model(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}

  std::shared_ptr<Engine> engine() const {
    const std::lock_guard lock(mutex_);
    if (!engine_) throw InputError("the model is closed");
    return engine_;
  }

  py::dict run(const Ids& ids, const Ids& offsets, const std::optional<Ids>& token_types,
               const std::optional<Ids>& prompt_lengths,
               const std::vector<std::string>& outputs) const {
    const std::shared_ptr<Engine> engine = this->engine();
    const BatchView batch{
        view(ids, "ids"), view(offsets, "offsets"),
        token_types ? view(*token_types, "token_types") : std::span<const int32_t>{},
        prompt_lengths ? view(*prompt_lengths, "prompt_lengths") : std::span<const int32_t>{}};
    const Plan* plan;
    {
      const py::gil_scoped_release release;
      plan = &engine->plan(outputs);
    }
    py::dict results;
    std::vector<float*> places;
    for (const PlanOutput& output : plan->outputs) {
      const auto rows =
          output.rows == Rows::kTokens ? batch.tokens() : std::max(batch.sequences(), 0);
      py::array_t<float> array(
          {static_cast<py::ssize_t>(rows), static_cast<py::ssize_t>(output.value.cols)});
      places.push_back(array.mutable_data());
      results[py::str(output.name)] = std::move(array);
    }
    const py::gil_scoped_release release;
    engine->run_finite(*plan, batch, places);
    return results;
  }

  py::list profile(const Ids& ids, const Ids& offsets,
                   const std::vector<std::string>& outputs) const {
    const std::shared_ptr<Engine> engine = this->engine();
    const BatchView batch{view(ids, "ids"), view(offsets, "offsets"), {}, {}};
    std::vector<StepProfile> steps;
    {
      const py::gil_scoped_release release;
      steps = engine->profile(engine->plan(outputs), batch);
    }
    py::list rows;
    for (const StepProfile& s : steps) {
      py::dict row;
      row["op"] = s.op;
      row["name"] = s.name;
      row["dtype"] = model_name(s.dtype);
      row["ms"] = s.seconds * 1e3;
      row["flops"] = s.flops;
      row["bytes"] = s.bytes;
      rows.append(std::move(row));
    }
    return rows;
  }

  py::dict info() const {
    const EngineInfo i = engine()->info();
    py::dict out;
    out["device"] = i.backend.device;
    if (!i.backend.hardware.empty()) out["hardware"] = i.backend.hardware;
    out["isa"] = i.backend.isa;
    out["threads"] = i.backend.threads;
    out["dtype"] = model_name(i.backend.dtype);
    out["parameters"] = i.parameters;
    out["weight_bytes"] = i.weight_bytes;
    out["bytes_mapped"] = i.bytes_mapped;
    out["bytes_allocated"] = i.bytes_allocated;
    out["unused_tensors"] = i.unused_tensors;
    return out;
  }

  py::dict outputs() const {
    py::dict out;
    const std::shared_ptr<Engine> engine = this->engine();
    const Graph& graph = engine->graph();
    for (const auto& [name, id] : graph.outputs) {
      const Shape& shape = graph[id].shape;
      out[py::str(name)] =
          py::make_tuple(shape.rows == Rows::kTokens ? "tokens" : "sequences", shape.cols());
    }
    return out;
  }

  void close() {
    std::shared_ptr<Engine> last;  // goes when the lock is free again
    const std::lock_guard lock(mutex_);
    last.swap(engine_);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<Engine> engine_;
};

// Runs two compilations of one graph, the one on the reference and the one under test, and compares
// every node that both have: "the reference executor node by node".
py::list compare(const Graph& graph, const Ids& ids, const Ids& offsets,
                 const std::vector<std::string>& outputs, int threads, const std::string& dtype,
                 const std::string& device, const std::string& plugin) {
  const BatchView batch{view(ids, "ids"), view(offsets, "offsets"), {}, {}};
  py::list rows;
  std::vector<NodeComparison> found;
  {
    const py::gil_scoped_release release;
    found = compare_with_ref(graph, make_backend({device, plugin}, python_dtype(dtype), threads),
                             batch, outputs);
  }
  for (const NodeComparison& n : found) {
    py::dict row;
    row["node"] = n.node;
    row["op"] = n.op;
    row["name"] = n.name;
    row["max_abs_difference"] = n.max_abs_difference;
    row["max_abs_reference"] = n.max_abs_reference;
    rows.append(std::move(row));
  }
  return rows;
}

}  // namespace

std::shared_ptr<Engine> engine_of(const py::object& model) {
  return model.cast<const Model&>().engine();
}

py::object model_of(std::shared_ptr<Engine> engine) {
  return py::cast(std::make_unique<Model>(std::move(engine)));
}

void bind_model(py::module_& m) {
  py::class_<Model>(m, "Model")
      .def("run", &Model::run, py::arg("ids"), py::arg("offsets"), py::kw_only(),
           py::arg("token_types") = py::none(), py::arg("prompt_lengths") = py::none(),
           py::arg("outputs"))
      .def("prepare",
           [](const Model& model, const std::vector<std::string>& outputs) {
             const auto engine = model.engine();
             const py::gil_scoped_release release;
             engine->plan(outputs);
           })
      .def("profile", &Model::profile, py::arg("ids"), py::arg("offsets"), py::arg("outputs"))
      .def("dump",
           [](const Model& model, const std::vector<std::string>& outputs) {
             const auto engine = model.engine();
             const py::gil_scoped_release release;
             return engine->plan(outputs).graph.dump();
           })
      .def("info", &Model::info)
      .def_property_readonly("outputs", &Model::outputs)
      .def("close", &Model::close);
  m.def(
      "compile",
      [](const Graph& graph, const std::string& device, const std::string& dtype, int threads,
         const std::string& plugin) {
        const py::gil_scoped_release release;
        return std::make_unique<Model>(std::make_shared<Engine>(
            graph, make_backend({device, plugin}, python_dtype(dtype), threads)));
      },
      py::arg("graph"), py::arg("device"), py::arg("dtype"), py::arg("threads"),
      py::arg("plugin") = "");
  m.def("compare", &compare, py::arg("graph"), py::arg("ids"), py::arg("offsets"),
        py::arg("outputs"), py::arg("threads"), py::arg("dtype") = "float32",
        py::arg("device") = "cpu", py::arg("plugin") = "");
  m.def(
      "default_dtype",
      [](const std::string& device, const std::string& plugin) {
        return model_name(default_dtype({device, plugin}));
      },
      py::arg("device") = "cpu", py::arg("plugin") = "");
  m.def(
      "choose_device",
      [](const std::string& name) {
        Device device;
        {
          const py::gil_scoped_release release;
          device = choose_device(name);
        }
        return py::make_tuple(device.name, device.plugin, device.reason);
      },
      py::arg("name"));
  m.def(
      "peak_gflops",
      [](int threads, const std::string& dtype) {
        const DType chosen = python_dtype(dtype);
        host::require_dtype("cpu", chosen, kHostDTypes);
        const py::gil_scoped_release release;
        return cpu::peak_gflops(cpu::select_kernel_table().isa, threads, chosen);
      },
      py::arg("threads") = 1, py::arg("dtype") = "float32");
}

}  // namespace trine::python
