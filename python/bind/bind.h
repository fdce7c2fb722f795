// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

namespace trine::python {

void bind_errors(pybind11::module_&);
void bind_weights(pybind11::module_&);
void bind_graph(pybind11::module_&);
void bind_model(pybind11::module_&);
void bind_machine(pybind11::module_&);

}  // namespace trine::python
