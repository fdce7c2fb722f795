// SPDX-License-Identifier: Apache-2.0
#include "exec/compiled.h"

#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <system_error>

#include "bind.h"
#include "exec/devices.h"

namespace py = pybind11;

namespace trine::python {
namespace {

py::object compile(const CompiledFile& file, int threads, const std::string& device,
                   const std::string& plugin) {
  std::shared_ptr<Engine> engine;
  {
    const py::gil_scoped_release release;
    engine = file.engine(make_backend({device, plugin}, file.dtype(), threads));
  }
  return model_of(std::move(engine));
}

void save(const py::object& model, const std::filesystem::path& path,
          std::map<std::string, std::string> metadata) {
  const std::shared_ptr<Engine> engine = engine_of(model);
  try {
    const py::gil_scoped_release release;
    engine->save(path, std::move(metadata));
  } catch (const std::system_error& error) {
    const py::object args =
        py::make_tuple(error.code().value(), error.code().message(), py::str(py::cast(path)));
    PyErr_SetObject(PyExc_OSError, args.ptr());
    throw py::error_already_set();
  }
}

}  // namespace

void bind_compiled(py::module_& m) {
  py::class_<CompiledFile>(m, "CompiledFile")
      .def(py::init([](const std::filesystem::path& path) {
             const py::gil_scoped_release release;
             return std::make_unique<CompiledFile>(path);
           }),
           py::arg("path"))
      .def("find",
           [](const CompiledFile& file, const std::string& key) -> py::object {
             const auto found = file.metadata().find(key);
             return found == file.metadata().end() ? py::none()
                                                   : py::object(py::str(found->second));
           })
      .def_property_readonly("dtype",
                             [](const CompiledFile& file) { return model_name(file.dtype()); })
      .def("compile", &compile, py::arg("threads"), py::arg("device") = "cpu",
           py::arg("plugin") = "");
  m.def("save", &save, py::arg("model"), py::arg("path"), py::arg("metadata"));
}

}  // namespace trine::python
