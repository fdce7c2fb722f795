// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

namespace trine {
class Engine;
}

namespace trine::python {

// Of a Model object; InputError when it is closed.
std::shared_ptr<Engine> engine_of(const pybind11::object& model);
pybind11::object model_of(std::shared_ptr<Engine> engine);

void bind_errors(pybind11::module_&);
void bind_weights(pybind11::module_&);
void bind_graph(pybind11::module_&);
void bind_model(pybind11::module_&);
void bind_session(pybind11::module_&);
void bind_compiled(pybind11::module_&);
void bind_text(pybind11::module_&);
void bind_machine(pybind11::module_&);

}  // namespace trine::python
