// SPDX-License-Identifier: Apache-2.0
#include "exec/compiled.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <functional>
#include <iterator>
#include <optional>
#include <set>

#include "backend.h"
#include "base/error.h"
#include "base/version.h"
#include "compile/passes.h"
#include "cpu/unpack.h"
#include "graph/serialize.h"
#include "weights/safetensors_writer.h"

namespace trine {
namespace {

constexpr std::string_view kRemedy = "; compile the model again with this version of trine";
constexpr std::string_view kChecksum = "trine.checksum";

// FNV-1a over words of keys and values, each with its length: a damaged number in a graph would
// otherwise be just another model. Not a defence against anybody.
std::string checksum(const auto& metadata) {
  uint64_t hash = 0xcbf29ce484222325u;
  const auto word = [&](uint64_t value) {
    hash = (hash ^ value) * 0x100000001b3u;
    hash ^= hash >> 32;
  };
  const auto feed = [&](std::string_view text) {
    word(text.size());
    for (; !text.empty(); text.remove_prefix(std::min(text.size(), sizeof(uint64_t)))) {
      uint64_t value = 0;
      std::memcpy(&value, text.data(), std::min(text.size(), sizeof value));
      word(value);
    }
  };
  for (const auto& [key, value] : metadata) {
    if (key == kChecksum) continue;
    feed(key);
    feed(value);
  }
  std::string out;
  for (int shift = 60; shift >= 0; shift -= 4) out += "0123456789abcdef"[hash >> shift & 15];
  return out;
}

std::vector<std::string> output_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const auto& [name, id] : graph.outputs) names.push_back(name);
  return names;
}

// Calls visit(node, slot, weight) for each fixed input that some step reads.
template <class Visit>
void for_each_weight(const Graph& graph, const Visit& visit) {
  for (const Node& node : graph.nodes) {
    if (node.shape.rows == Rows::kFixed) continue;
    for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
      const NodeId id = node.inputs[slot];
      if (id != kNoNode && graph[id].shape.rows == Rows::kFixed) visit(node, slot, id);
    }
  }
}

// Tensors in the order in which a run of all outputs reads them, what fusing makes one of side by
// side.
class Collector {
 public:
  Collector(const Backend& backend, PackedWeights& weights)
      : backend_(backend), weights_(weights) {}

  void add(const Graph& graph) {
    for_each_weight(graph, [&](const Node& node, size_t slot, NodeId id) {
      const Node& weight = graph[id];
      const bool many = weight.op == Op::concat_rows;
      const std::vector<NodeId> parts = many ? weight.inputs : std::vector<NodeId>{id};
      const auto is_there = [&](NodeId part) {
        return done_.contains(
            PackedWeights::key(graph, part, backend_.form(graph, part, node, slot)));
      };
      if (std::all_of(parts.begin(), parts.end(), is_there)) return;
      const Packed& packed = weights_.get(graph, id, node, slot);
      const auto* from = static_cast<const std::byte*>(packed.data);
      bool joined = false;
      for (const NodeId part : parts) {
        const Form form = backend_.form(graph, part, node, slot);
        const auto bytes = static_cast<size_t>(checked_bytes(form.dtype, form.shape).value());
        std::string key = PackedWeights::key(graph, part, form);
        if (done_.insert(key).second) {
          tensors_.push_back({std::move(key), form.dtype, form.shape, {from, bytes}, joined});
          joined = true;
        } else {
          joined = false;
        }
        from += bytes;
      }
    });
  }

  const std::vector<TensorToWrite>& tensors() const { return tensors_; }

 private:
  const Backend& backend_;
  PackedWeights& weights_;
  std::set<std::string> done_;
  std::vector<TensorToWrite> tensors_;
};

std::shared_ptr<WeightStore> open_compiled(const std::filesystem::path& path) {
  try {
    return WeightStore::open_safetensors(path);
  } catch (const ModelError& error) {
    throw ModelError(cat(error.what(), " (expected a compiled .trine file)"));
  }
}

}  // namespace

void Engine::save(const std::filesystem::path& path, std::map<std::string, std::string> metadata) {
  const BackendInfo properties = backend_->properties();
  if (properties.device != "cpu")
    throw DeviceError(
        cat("a model on device ", properties.device, " cannot be saved; on cpu it can"));
  metadata["format"] = "trine";
  metadata["trine.format"] = cat(kCompiledFormat);
  metadata["trine.version"] = core_version();
  metadata["trine.device"] = properties.device;
  metadata["trine.dtype"] = name_of(properties.dtype);
  metadata["trine.graph"] = to_json(graph_);
  metadata[std::string(kChecksum)] = checksum(metadata);
  Collector collector(*backend_, weights_);
  {
    const std::lock_guard lock(plans_mutex_);
    exclusively([&] {
      const Graph whole = prune(graph_, output_names(graph_));
      collector.add(fuse(sink_pools(whole), *backend_));
      collector.add(whole);
    });
  }
  write_safetensors(path, metadata, collector.tensors());
}

CompiledFile::CompiledFile(const std::filesystem::path& path, bool check_sum)
    : name_(display_name(path)), stored_(open_compiled(path)) {
  if (!metadata().contains("trine.format"))
    throw ModelError(cat(name_, ": is a safetensors file, but no compiled model; load the folder ",
                         "that it lies in, or compile that"));
  const std::string ours = cat(kCompiledFormat), &format = at("trine.format");
  if (format != ours) {
    fail(cat("has format ", quoted(format), ", was written by trine ", quoted(at("trine.version")),
             "; this is trine ", core_version(), ", which reads format ", ours));
  }
  if (check_sum && at(kChecksum) != checksum(metadata())) fail("its metadata is damaged");
  if (at("trine.device") != "cpu") fail(cat("is for device ", quoted(at("trine.device"))));
  const auto dtype = std::find_if(std::begin(kHostDTypes), std::end(kHostDTypes),
                                  [&](DType d) { return name_of(d) == at("trine.dtype"); });
  if (dtype == std::end(kHostDTypes))
    fail(cat("dtype ", quoted(at("trine.dtype")), " is not known"));
  dtype_ = *dtype;
}

void CompiledFile::fail(const std::string& what) const {
  throw ModelError(cat(name_, ": ", what, kRemedy));
}

const std::string& CompiledFile::at(std::string_view key) const {
  const auto found = metadata().find(key);
  if (found == metadata().end()) fail(cat("its metadata has no ", key));
  return found->second;
}

std::shared_ptr<Engine> CompiledFile::engine(std::unique_ptr<Backend> backend) const {
  if (const DType dtype = backend->properties().dtype; dtype != dtype_)
    throw InputError(
        cat(name_, ": is compiled in ", model_name(dtype_), ", not in ", model_name(dtype)));
  try {
    Graph graph = graph_from_json(at("trine.graph"), name_ + ": graph");
    if (backend->properties().device != "cpu") {
      give_rows(graph);
      return std::make_shared<Engine>(std::move(graph), std::move(backend));
    }
    PackedWeights weights(*backend, stored_);
    const Graph whole = prune(graph, output_names(graph));
    for_each_weight(whole, [&](const Node& node, size_t slot, NodeId id) {
      weights.get(whole, id, node, slot);
    });
    return std::make_shared<Engine>(std::move(graph), std::move(backend), stored_);
  } catch (const ModelError& error) {
    const std::string_view what = error.what();
    if (what.starts_with(name_)) throw ModelError(cat(what, kRemedy));
    fail(std::string(what));
  }
}

// Of several forms of a weight the one that was rounded least. It is quantised rows only where
// every consumer multiplies them, on whatever device: all ask host::multiplied_dtype.
void CompiledFile::give_rows(Graph& graph) const {
  const std::unique_ptr<Backend> cpu = make_cpu_backend(1, dtype_);
  PackedWeights weights(*cpu, stored_);
  const Graph whole = prune(graph, output_names(graph));
  const auto loss = [](const Form& form) {
    const int bits = form.dtype == DType::kF32 ? 0 : 1;
    if (form.name.starts_with("positions")) return 4;  // without rows that stand for no distance
    if (!form.name.starts_with("panels")) return bits;
    const bool floats = form.dtype == DType::kF32 || form.dtype == DType::kBF16;
    return floats ? 2 + bits : 5;
  };
  struct Found {
    int loss;
    std::function<Numbers()> rows;
  };
  std::map<std::string, Found> found;
  const auto add = [&](NodeId weight, const Node& node, size_t slot) {
    const Form form = cpu->form(whole, weight, node, slot);
    const auto* const data =
        static_cast<const std::byte*>(weights.get(whole, weight, node, slot).data);
    Found& known =
        found.try_emplace(PackedWeights::key(whole, weight, {}), INT_MAX, nullptr).first->second;
    if (loss(form) >= known.loss) return;
    const auto* const attrs = std::get_if<AttentionAttrs>(&node.attrs);
    known = {loss(form), [form, data, dims = whole[weight].shape.dims,
                          attrs = attrs == nullptr ? std::nullopt : std::optional(*attrs)] {
               return cpu::unpack(form, data, dims, attrs ? &*attrs : nullptr);
             }};
  };
  for_each_weight(whole, [&](const Node& node, size_t slot, NodeId id) {
    if (whole[id].op != Op::concat_rows) return add(id, node, slot);
    for (const NodeId part : whole[id].inputs) add(part, node, slot);
  });
  const auto rows = std::make_shared<WeightStore>();
  rows->keep(stored_);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (node.op != Op::weight && node.op != Op::constant) continue;
    const auto at = found.find(PackedWeights::key(graph, static_cast<NodeId>(i), {}));
    auto elsewhere = at == found.end() ? nullptr : at->second.rows;
    if (node.op == Op::constant) {
      graph.constants[static_cast<size_t>(node.as<ConstantAttrs>().index)].elsewhere = elsewhere;
    } else if (const std::string& name = node.as<WeightAttrs>().name; !rows->find(name)) {
      rows->declare(name, node.dtype, node.shape.dims, name_, std::move(elsewhere));
    }
  }
  graph.weights = rows;
}

}  // namespace trine
