// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include "bind.h"
#include "weights/store.h"

namespace py = pybind11;

namespace trine::python {
namespace {

std::shared_ptr<WeightStore> open_one(const std::filesystem::path& path) {
  return path.extension() == ".json" ? WeightStore::open_index(path) : WeightStore::open({path});
}

// The first file's store, and the others' tensors in it under their prefixes.
std::shared_ptr<WeightStore> open(
    const std::vector<std::pair<std::filesystem::path, std::string>>& files) {
  auto all = std::make_shared<WeightStore>();
  for (const auto& [path, prefix] : files) {
    std::shared_ptr<WeightStore> store = open_one(path);
    if (prefix.empty() && all->size() == 0) {
      all = std::move(store);
      continue;
    }
    all->merge(store, prefix);
  }
  return all;
}

}  // namespace

void bind_weights(py::module_& m) {
  py::class_<WeightStore, std::shared_ptr<WeightStore>>(m, "WeightStore")
      .def(py::init(&open), py::arg("files"), py::call_guard<py::gil_scoped_release>())
      .def("names",
           [](const WeightStore& s) {
             std::vector<std::string> names;
             for (const Tensor& t : s) names.emplace_back(t.name);
             return names;
           })
      .def("shape", [](const WeightStore& s,
                       const std::string& name) { return py::tuple(py::cast(s.at(name).shape)); })
      .def("dtype", [](const WeightStore& s,
                       const std::string& name) { return std::string(name_of(s.at(name).dtype)); })
      .def("read",
           [](const WeightStore& s, const std::string& name) {
             const Tensor& t = s.at(name);
             return py::bytes(reinterpret_cast<const char*>(t.data), t.bytes);
           })
      .def_property_readonly("bytes_mapped", &WeightStore::bytes_mapped);
}

}  // namespace trine::python
