// SPDX-License-Identifier: Apache-2.0
// The core's tokenizer, which Python does not use itself: the tests compare it with `tokenizers`.
#include <pybind11/stl.h>

#include "bind.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace py = pybind11;

namespace trine::python {
namespace {

text::Cut cut_of(const std::string& strategy) {
  if (strategy == "only_first") return text::Cut::kOnlyFirst;
  return strategy == "only_second" ? text::Cut::kOnlySecond : text::Cut::kLongestFirst;
}

py::tuple encode(const text::Tokenizer& tokenizer, const py::bytes& first,
                 const std::optional<py::bytes>& second, std::optional<int64_t> limit,
                 const std::string& strategy, bool special) {
  const std::string_view a = first, b = second ? std::string_view(*second) : "";
  text::Encoded out;
  {
    const py::gil_scoped_release release;
    tokenizer.encode(a, second ? &b : nullptr,
                     {.limit = limit, .cut = cut_of(strategy), .special = special}, out);
  }
  return py::make_tuple(out.ids, out.types, out.cut);
}

}  // namespace

void bind_text(py::module_& m) {
  py::class_<text::Tokenizer, std::shared_ptr<text::Tokenizer>>(m, "Tokenizer")
      .def(py::init([](const std::string& json, const std::string& settings) {
             return std::make_shared<text::Tokenizer>(json, settings, "tokenizer");
           }),
           py::arg("json"), py::arg("settings") = "")
      .def("encode", &encode, py::arg("first"), py::arg("second") = std::nullopt,
           py::arg("limit") = std::nullopt, py::arg("strategy") = "longest_first",
           py::arg("special") = true)
      .def(
          "decode",
          [](const text::Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
            return tokenizer.decode(ids, skip);
          },
          py::arg("ids"), py::arg("skip_special") = true)
      .def("find", &text::Tokenizer::find, py::arg("token"))
      .def("prompt_length", &text::Tokenizer::prompt_length, py::arg("prompt"), py::arg("limit"))
      .def("__len__", &text::Tokenizer::size);
  py::class_<text::TextStream>(m, "TextStream")
      .def(py::init<std::shared_ptr<const text::Tokenizer>>(), py::arg("tokenizer"))
      .def("push", &text::TextStream::push, py::arg("token"))
      .def("flush", &text::TextStream::flush);
}

}  // namespace trine::python
