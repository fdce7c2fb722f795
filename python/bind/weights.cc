// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <cstring>

#include "base/bytes.h"
#include "bind.h"
#include "weights/convert.h"
#include "weights/gguf.h"
#include "weights/store.h"

namespace py = pybind11;

namespace trine::python {
namespace {

std::shared_ptr<WeightStore> open_one(const std::filesystem::path& path) {
  return path.extension() == ".json" ? WeightStore::open_index(path) : WeightStore::open({path});
}

using Files = std::vector<std::pair<std::filesystem::path, std::string>>;

// The first file's store, and the others' tensors in it under their prefixes.
std::shared_ptr<WeightStore> open(const Files& files) {
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

py::object bytes_of_rows(const Tensor& t) {
  const Numbers numbers = numbers_of(t);
  return py::bytes(reinterpret_cast<const char*>(numbers.data), t.bytes);
}

py::array floats(const Tensor& t) {
  py::array_t<float> out(std::vector<py::ssize_t>(t.shape.begin(), t.shape.end()));
  float* const to = out.mutable_data();
  const auto size = static_cast<size_t>(out.size());
  {
    const py::gil_scoped_release unlocked;
    const Numbers numbers = numbers_of(t);
    to_f32(numbers.dtype, numbers.data, to, size);
  }
  return out;
}

// Text that is not UTF-8 stays bytes: whoever needs a string says which key it is.
py::object text_of(std::span<const std::byte> bytes) {
  const auto* const data = reinterpret_cast<const char*>(bytes.data());
  const auto size = static_cast<py::ssize_t>(bytes.size());
  if (PyObject* text = PyUnicode_DecodeUTF8(data, size, "strict")) {
    return py::reinterpret_steal<py::object>(text);
  }
  PyErr_Clear();
  return py::bytes(data, bytes.size());
}

py::object object_of(const GgufValue& value) {
  const auto bytes = value.bytes;
  switch (value.type) {
    case GgufType::kU8:
      return py::int_(load_le<uint8_t>(bytes, 0));
    case GgufType::kI8:
      return py::int_(load_le<int8_t>(bytes, 0));
    case GgufType::kU16:
      return py::int_(load_le<uint16_t>(bytes, 0));
    case GgufType::kI16:
      return py::int_(load_le<int16_t>(bytes, 0));
    case GgufType::kU32:
      return py::int_(load_le<uint32_t>(bytes, 0));
    case GgufType::kI32:
      return py::int_(load_le<int32_t>(bytes, 0));
    case GgufType::kF32:
      return py::float_(load_le<float>(bytes, 0));
    case GgufType::kBool:
      return py::bool_(load_le<uint8_t>(bytes, 0) != 0);
    case GgufType::kString:
      return text_of(bytes);
    case GgufType::kU64:
      return py::int_(load_le<uint64_t>(bytes, 0));
    case GgufType::kI64:
      return py::int_(load_le<int64_t>(bytes, 0));
    case GgufType::kF64:
      return py::float_(load_le<double>(bytes, 0));
    case GgufType::kArray: {
      py::list list;
      for (GgufItems items(value); items.left() > 0;) list.append(object_of(items.next()));
      return list;
    }
  }
  return py::none();
}

// The metadata, and name, dtype and shape of each tensor.
py::tuple read_gguf(const std::filesystem::path& path) {
  const MappedFile file(path);
  const Gguf content = parse_gguf(file.bytes(), file.name());
  py::dict metadata;
  for (const GgufKey& key : content.metadata) {
    metadata[py::str(key.name.data(), key.name.size())] = object_of(key.value);
  }
  py::list tensors;
  for (const GgufEntry& t : content.tensors) {
    tensors.append(py::make_tuple(t.name, name_of(t.dtype), py::tuple(py::cast(t.shape))));
  }
  return py::make_tuple(metadata, tensors);
}

using Renamed = std::tuple<std::string, std::string, int64_t>;

std::shared_ptr<WeightStore> open_gguf(const std::filesystem::path& path,
                                       const std::vector<Renamed>& names) {
  std::vector<GgufName> wanted;
  wanted.reserve(names.size());
  for (const auto& [stored, name, heads] : names) wanted.push_back({stored, name, heads});
  return WeightStore::open_gguf(path, wanted);
}

using Joined = std::tuple<std::string, std::string, int64_t, int64_t>;

std::shared_ptr<WeightStore> open_meta(const std::vector<std::filesystem::path>& shards,
                                       const std::vector<Joined>& names) {
  std::vector<MetaName> wanted;
  wanted.reserve(names.size());
  for (const auto& [stored, name, heads, cut] : names) wanted.push_back({stored, name, heads, cut});
  return WeightStore::open_meta(shards, wanted);
}

}  // namespace

void bind_weights(py::module_& m) {
  py::class_<WeightStore, std::shared_ptr<WeightStore>>(m, "WeightStore")
      // A call_guard would hold on while pybind11 puts the object into its tables.
      .def(py::init([](const Files& files) {
             const py::gil_scoped_release release;
             return open(files);
           }),
           py::arg("files"))
      .def_static("open_gguf", &open_gguf, py::arg("path"), py::arg("names"),
                  py::call_guard<py::gil_scoped_release>())
      .def_static("open_meta", &open_meta, py::arg("shards"), py::arg("names"),
                  py::call_guard<py::gil_scoped_release>())
      .def("same", &WeightStore::same, py::arg("name"), py::arg("other"),
           py::call_guard<py::gil_scoped_release>())
      .def("share", &WeightStore::share, py::arg("name"), py::arg("other"))
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
           [](const WeightStore& s, const std::string& name) { return bytes_of_rows(s.at(name)); })
      .def("floats",
           [](const WeightStore& s, const std::string& name) { return floats(s.at(name)); })
      .def_property_readonly("bytes_mapped", &WeightStore::bytes_mapped);
  m.def("read_gguf", &read_gguf, py::arg("path"));
}

}  // namespace trine::python
