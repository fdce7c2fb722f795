// SPDX-License-Identifier: Apache-2.0
#include "exec/session.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bind.h"

namespace py = pybind11;

namespace trine::python {
namespace {

using Ids = py::array_t<int32_t, py::array::c_style>;

const char* name_of(Finish finish) {
  switch (finish) {
    case Finish::kNone:
      break;
    case Finish::kEndToken:
      return "stop";
    case Finish::kLength:
      return "length";
    case Finish::kNotANumber:
      return "nan";
  }
  return nullptr;
}

py::list step(Session& session) {
  std::vector<Generated> tokens;
  {
    const py::gil_scoped_release release;
    tokens = session.step();
  }
  py::list out;
  for (const Generated& g : tokens) {
    py::dict row;
    row["sequence"] = g.sequence;
    row["token"] = g.sample.token;
    row["logprob"] = g.sample.logprob;
    row["top"] = g.sample.top;
    row["finish"] = name_of(g.finish);
    out.append(std::move(row));
  }
  return out;
}

py::dict info(const Session& session) {
  SessionInfo i;
  {
    const py::gil_scoped_release release;
    i = session.info();
  }
  py::dict out;
  out["sequences"] = i.sequences;
  out["active"] = i.active;
  out["tokens"] = i.tokens;
  out["cache_bytes"] = i.cache_bytes;
  return out;
}

}  // namespace

// A step may be under way in another thread: whatever waits for it lets go of the GIL.
void bind_session(py::module_& m) {
  using Released = py::call_guard<py::gil_scoped_release>;
  py::class_<Session>(m, "Session")
      .def(py::init([](const py::object& model, int64_t capacity, const std::string& output,
                       int64_t prefill_tokens) {
             auto engine = engine_of(model);
             const py::gil_scoped_release release;
             return std::make_unique<Session>(std::move(engine),
                                              SessionOptions{output, capacity, prefill_tokens});
           }),
           py::arg("model"), py::kw_only(), py::arg("capacity"), py::arg("output") = "next_logits",
           py::arg("prefill_tokens") = 512)
      .def(
          "add",
          [](Session& session, const Ids& prompt, int64_t max_new_tokens, float temperature,
             int32_t top_k, float top_p, float min_p, float repetition_penalty,
             int32_t min_new_tokens, int32_t logprobs, uint64_t seed,
             std::vector<int32_t> end_tokens, std::optional<int64_t> prefix) {
            const std::span<const int32_t> ids(prompt.data(), static_cast<size_t>(prompt.size()));
            const py::gil_scoped_release release;
            return session.add(ids, max_new_tokens,
                               {temperature, top_k, top_p, min_p, repetition_penalty,
                                min_new_tokens, logprobs, seed, std::move(end_tokens)},
                               prefix);
          },
          py::arg("prompt"), py::kw_only(), py::arg("max_new_tokens"),
          py::arg("temperature") = 0.0f, py::arg("top_k") = 0, py::arg("top_p") = 1.0f,
          py::arg("min_p") = 0.0f, py::arg("repetition_penalty") = 1.0f,
          py::arg("min_new_tokens") = 0, py::arg("logprobs") = -1, py::arg("seed") = 0,
          py::arg("end_tokens") = std::vector<int32_t>(), py::arg("prefix") = py::none())
      .def("step", &step)
      .def("remove", &Session::remove, py::arg("sequence"), Released())
      .def("tokens", &Session::tokens, py::arg("sequence"), Released())
      .def("info", &info)
      .def("why_not_finite", &Session::why_not_finite, Released())
      .def_property_readonly("active", py::cpp_function(&Session::active, Released()));
}

}  // namespace trine::python
