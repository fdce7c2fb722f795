// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "bind.h"

#include "base/error.h"
#include "base/version.h"
#include "cpu/kernel_table.h"
#include "cpu/peak.h"

namespace py = pybind11;

namespace trine::python {

// InputError is a ValueError for Python users; all three share trine.Error.
void bind_errors(py::module_& m) {
  static py::handle base, model, input, device;
  const auto make = [&](const char* name, py::tuple bases, const char* doc) {
    py::dict body;
    body["__doc__"] = doc;
    body["__module__"] = "trine";
    py::object type = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(&PyType_Type))(
        name, bases, body);
    m.attr(name) = type;
    return type.release();
  };
  base =
      make("Error", py::make_tuple(py::handle(PyExc_Exception)), "Base class of trine's errors.");
  model = make("ModelError", py::make_tuple(base),
               "A checkpoint that is broken, lacks a tensor or is of an unknown architecture.");
  input = make("InputError", py::make_tuple(base, py::handle(PyExc_ValueError)),
               "An argument that cannot be run.");
  device = make("DeviceError", py::make_tuple(base),
                "The device is missing, lacks something or failed.");
  // A path in the text need not be UTF-8.
  static const auto raise = [](py::handle type, const char* what) {
    const py::object text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
        what, static_cast<py::ssize_t>(std::strlen(what)), "backslashreplace"));
    PyErr_SetObject(type.ptr(), text.ptr());
  };
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const ModelError& e) {
      raise(model, e.what());
    } catch (const InputError& e) {
      raise(input, e.what());
    } catch (const DeviceError& e) {
      raise(device, e.what());
    }
  });
}

void bind_machine(py::module_& m) {
  m.def("isas", [] {
    py::list names;
    for (const cpu::Isa isa : cpu::kIsas) {
      if (const cpu::KernelTable* table = cpu::kernel_table(isa)) names.append(table->name);
    }
    return names;
  });
  m.def("isa", [] { return cpu::select_kernel_table().name; });
  m.def("read_bandwidth", &cpu::read_bandwidth_gbs, py::arg("threads") = 1,
        py::call_guard<py::gil_scoped_release>());
}

}  // namespace trine::python

// Models, sessions and what is read from files may be used by several threads with no GIL; a graph
// and its weights have one thread while they are built.
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "The C++ core of trine; use the package trine instead.";
  m.attr("__version__") = trine::core_version();
  trine::python::bind_errors(m);
  trine::python::bind_weights(m);
  trine::python::bind_graph(m);
  trine::python::bind_model(m);
  trine::python::bind_session(m);
  trine::python::bind_compiled(m);
  trine::python::bind_text(m);
  trine::python::bind_machine(m);
}
