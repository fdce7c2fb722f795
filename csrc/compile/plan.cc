// SPDX-License-Identifier: Apache-2.0
#include "compile/plan.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "compile/passes.h"

namespace trine {
namespace {

// Buffers live from the step that writes them to the last that reads them, in bytes per row. A
// value may take over its input's buffer (layer_norm in place), so several values can share one.
struct Buffer {
  Rows rows;
  int64_t row_bytes;
  int64_t offset = 0;
  size_t first, last;
};

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Row stride in elements. Float rows start on cache lines; a stride of a multiple of 4 KiB would
// put the same column of all rows into one cache set, so such rows get a line more.
int64_t row_stride(int64_t cols, DType dtype) {
  if (dtype == DType::kI32) return cols;
  const auto line = static_cast<int64_t>(64 / size_of(dtype));
  const int64_t ld = round_up(cols, line);
  return ld % (64 * line) == 0 ? ld + line : ld;
}

class Planner {
 public:
  Planner(Graph graph, Backend& backend, PackedWeights& weights)
      : backend_(backend),
        weights_(weights),
        plan_(std::make_unique<Plan>(Plan{std::move(graph), {}, {}, 0, 0, {}})) {}

  std::unique_ptr<Plan> run() {
    find_dtypes();
    find_lives();
    assign_buffers();
    plan_->token_row_bytes = place(Rows::kTokens);
    plan_->sequence_row_bytes = place(Rows::kSequences);
    // A run multiplies these by up to 2^31 rows.
    constexpr int64_t kMostRowBytes = int64_t{1} << 30;
    if (std::max(plan_->token_row_bytes, plan_->sequence_row_bytes) > kMostRowBytes)
      throw ModelError("the values of one row take more than a gigabyte");
    make_steps();
    find_limits();
    for (const auto& [name, id] : graph().outputs) {
      plan_->outputs.push_back({name, operand(id), graph()[id].shape.rows});
    }
    return std::move(plan_);
  }

 private:
  const Graph& graph() const { return plan_->graph; }

  static bool has_step(const Node& node) {
    return node.shape.rows != Rows::kFixed && node.op != Op::input && node.op != Op::slice;
  }

  // The node that owns the memory: a slice is a view of its input's.
  NodeId owner(NodeId id) const {
    while (graph()[id].op == Op::slice) id = graph()[id].inputs[0];
    return id;
  }

  void find_dtypes() {
    for (const Node& node : graph().nodes) {
      held_.push_back(has_step(node) ? backend_.value_dtype(graph(), node) : node.dtype);
    }
    for (const auto& [name, id] : graph().outputs)
      held_[static_cast<size_t>(owner(id))] = graph()[id].dtype;
  }

  DType held(NodeId id) const { return held_[static_cast<size_t>(owner(id))]; }

  void find_lives() {
    last_use_.assign(graph().nodes.size(), 0);
    for (size_t id = 0; id < graph().nodes.size(); ++id) {
      for (NodeId input : graph().nodes[id].inputs) {
        if (input != kNoNode) last_use_[static_cast<size_t>(owner(input))] = id;
      }
    }
    for (const auto& [name, id] : graph().outputs) {
      last_use_[static_cast<size_t>(owner(id))] = std::numeric_limits<size_t>::max();
    }
  }

  // The input whose buffer the result may take over, if it dies here.
  static std::vector<size_t> in_place_slots(Op op) {
    switch (op) {
      case Op::layer_norm:
      case Op::rms_norm:
      case Op::rope:
      case Op::scale:
      case Op::activation:
      case Op::l2_normalize:
        return {0};
      case Op::add:
      case Op::gated:
        return {0, 1};
      case Op::linear:
        return {3};
      default:
        return {};
    }
  }

  void assign_buffers() {
    buffer_of_.assign(graph().nodes.size(), -1);
    for (size_t id = 0; id < graph().nodes.size(); ++id) {
      const Node& node = graph().nodes[id];
      if (!has_step(node)) continue;
      buffer_of_[id] = take_over(node, id);
      if (buffer_of_[id] < 0) {
        const DType dtype = held_[id];
        const int64_t row =
            row_stride(node.shape.cols(), dtype) * static_cast<int64_t>(size_of(dtype));
        buffer_of_[id] = static_cast<int>(buffers_.size());
        buffers_.push_back({node.shape.rows, row, 0, id, id});
      }
      Buffer& buffer = buffers_[static_cast<size_t>(buffer_of_[id])];
      buffer.last = std::max({buffer.last, last_use_[id], id});
    }
  }

  int take_over(const Node& node, size_t id) const {
    for (size_t slot : in_place_slots(node.op)) {
      const NodeId input = node.input(slot);
      // A slice is part of a wider buffer, which others may still read.
      if (input == kNoNode || graph()[input].op == Op::slice ||
          graph()[input].shape != node.shape || held(input) != held_[id])
        continue;
      const auto readers = std::count_if(node.inputs.begin(), node.inputs.end(), [&](NodeId other) {
        return other != kNoNode && owner(other) == input;
      });
      if (last_use_[static_cast<size_t>(input)] == id && readers == 1)
        return buffer_of_[static_cast<size_t>(input)];
    }
    return -1;
  }

  // Greedy by size: the widest first, each at the lowest place free during its life. Returns bytes
  // per row in all.
  int64_t place(Rows rows) {
    std::vector<Buffer*> order;
    for (Buffer& b : buffers_) {
      if (b.rows == rows) order.push_back(&b);
    }
    std::stable_sort(order.begin(), order.end(),
                     [](auto* a, auto* b) { return a->row_bytes > b->row_bytes; });
    std::vector<Buffer*> placed;
    int64_t total = 0;
    for (Buffer* b : order) {
      int64_t at = 0;
      for (const Buffer* other : placed) {  // sorted by offset
        const bool together = b->first <= other->last && other->first <= b->last;
        if (!together) continue;
        if (at + b->row_bytes <= other->offset) break;
        at = std::max(at, other->offset + other->row_bytes);
      }
      b->offset = at;
      total = std::max(total, at + b->row_bytes);
      placed.insert(std::upper_bound(placed.begin(), placed.end(), b,
                                     [](auto* a, auto* c) { return a->offset < c->offset; }),
                    b);
    }
    return total;
  }

  Operand operand(NodeId id) const {
    const Node& node = graph()[id];
    Operand o;
    o.dtype = node.dtype;
    o.cols = node.shape.cols();
    if (node.op == Op::input) {
      o.place = Operand::Place::kInput;
      o.input = node.as<InputAttrs>().name == "input_ids" ? Input::kIds : Input::kTokenTypes;
      o.ld = 1;
      return o;
    }
    int64_t column = 0;
    NodeId own = id;
    for (; graph()[own].op == Op::slice; own = graph()[own].inputs[0])
      column += graph()[own].as<SliceAttrs>().begin;
    const Node& from = graph()[own];
    o.place =
        node.shape.rows == Rows::kTokens ? Operand::Place::kTokens : Operand::Place::kSequences;
    o.offset = buffers_[static_cast<size_t>(buffer_of_[static_cast<size_t>(own)])].offset;
    o.column = column;
    o.dtype = held(own);
    o.ld = row_stride(from.shape.cols(), o.dtype);
    return o;
  }

  Operand fixed(NodeId id, const Node& consumer, size_t slot) {
    const Packed& packed = weights_.get(graph(), id, consumer, slot);
    Operand o;
    o.place = Operand::Place::kFixed;
    o.dtype = packed.dtype;
    o.cols = o.ld = graph()[id].shape.cols();
    o.rows = graph()[id].shape.dims.size() > 1 ? graph()[id].shape.dims[0] : 1;
    o.data = packed.data;
    return o;
  }

  void make_steps() {
    for (size_t id = 0; id < graph().nodes.size(); ++id) {
      const Node& node = graph().nodes[id];
      if (!has_step(node)) continue;
      if (!backend_.supports(graph(), node)) {
        throw DeviceError(cat(describe(graph(), node), ": ", backend_.properties().device,
                              " has no such op; use device=\"cpu\""));
      }
      std::vector<Operand> in;
      for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
        const NodeId input = node.inputs[slot];
        if (input == kNoNode) {
          in.emplace_back();
        } else {
          in.push_back(graph()[input].shape.rows == Rows::kFixed ? fixed(input, node, slot)
                                                                 : operand(input));
        }
      }
      Step step = backend_.lower(graph(), node, in, operand(static_cast<NodeId>(id)));
      plan_->steps.push_back(std::move(step));
    }
  }

  void limit_length(int64_t tokens, std::string reason) {
    Limits& limits = plan_->limits;
    if (tokens >= limits.max_length) return;
    limits.max_length = tokens;
    limits.max_length_reason = std::move(reason);
  }

  void find_limits() {
    for (const Node& node : graph().nodes) {
      if (node.op == Op::attention && node.as<AttentionAttrs>().cache >= 0) ++plan_->limits.caches;
      if (node.op == Op::attention && node.input(3) != kNoNode) {
        limit_length((graph()[node.inputs[3]].shape.dims[1] + 1) / 2, "the relative position bias");
      }
      if (node.op == Op::rotary && node.as<RotaryAttrs>().original_length > 0) {
        int64_t& same = plan_->limits.same_rotary;
        same = std::min<int64_t>(same, node.as<RotaryAttrs>().original_length);
      }
      if (node.op != Op::embedding) continue;
      for (size_t i = 0; i < node.inputs.size(); i += 2) {
        const Node& ids = graph()[node.inputs[i]];
        const int64_t rows = graph()[node.inputs[i + 1]].shape.dims[0];
        if (ids.op == Op::positions) {
          limit_length(rows - 1 - ids.as<PositionsAttrs>().padding_idx, "the position embeddings");
        } else if (ids.as<InputAttrs>().name == "input_ids") {
          plan_->limits.ids = std::min(plan_->limits.ids, rows);
        } else {
          plan_->limits.token_types = std::min(plan_->limits.token_types, rows);
        }
      }
    }
  }

  Backend& backend_;
  PackedWeights& weights_;
  std::unique_ptr<Plan> plan_;
  std::vector<DType> held_;  // how each node's value lies in memory
  std::vector<size_t> last_use_;
  std::vector<int> buffer_of_;
  std::vector<Buffer> buffers_;
};

// Names that identify a weight whatever graph it stands in.
std::string weight_key(const Graph& graph, NodeId id) {
  const Node& node = graph[id];
  if (node.op == Op::weight) return node.as<WeightAttrs>().name;
  if (node.op == Op::constant) return cat("#", node.as<ConstantAttrs>().index);
  std::string key;
  for (NodeId part : node.inputs) key += weight_key(graph, part) + "+";
  return key;
}

}  // namespace

std::string PackedWeights::key(const Graph& graph, NodeId weight, const Form& form) {
  return cat(form.name, "/", weight_key(graph, weight));
}

const Packed& PackedWeights::get(const Graph& graph, NodeId weight, const Node& consumer,
                                 size_t slot) {
  const Form form = backend_.form(graph, weight, consumer, slot);
  const std::string name = key(graph, weight, form);
  const auto found = packed_.find(name);
  if (found != packed_.end()) return found->second;
  const Node& node = graph[weight];
  Packed packed = stored_ == nullptr           ? backend_.pack(graph, weight, consumer, slot)
                  : node.op == Op::concat_rows ? join_stored(graph, node, consumer, slot)
                                               : find_stored(name, form);
  if (packed.owner) bytes_owned_ += packed.bytes;
  return packed_.emplace(name, std::move(packed)).first->second;
}

Packed PackedWeights::find_stored(const std::string& name, const Form& form) const {
  const Tensor& tensor = stored_->at(name);
  if (tensor.dtype != form.dtype || tensor.shape != form.shape) {
    throw ModelError(cat(tensor.file, ": tensor ", quoted(name), " is ", tensor.shape, " of ",
                         name_of(tensor.dtype), ", but the graph needs ", form.shape, " of ",
                         name_of(form.dtype)));
  }
  constexpr uintptr_t kLine = 64;
  if (reinterpret_cast<uintptr_t>(tensor.data) % kLine != 0) {
    throw ModelError(cat(tensor.file, ": tensor ", quoted(name),
                         " does not lie on a cache line: another program wrote this file"));
  }
  return {nullptr, const_cast<std::byte*>(tensor.data), tensor.bytes, tensor.dtype};
}

// Parts that a file holds side by side, as it does for the model's own merged projections, are read
// in place.
Packed PackedWeights::join_stored(const Graph& graph, const Node& parts, const Node& consumer,
                                  size_t slot) {
  std::vector<Packed> found;
  Packed all;
  bool together = true;
  for (const NodeId part : parts.inputs) {
    found.push_back(get(graph, part, consumer, slot));
    const Packed& p = found.back();
    together = together && p.data == static_cast<std::byte*>(found.front().data) + all.bytes;
    all.bytes += p.bytes;
    all.dtype = p.dtype;
  }
  all.data = found.front().data;
  if (together) return all;
  const std::shared_ptr<std::byte> copy = backend_.alloc(all.bytes);
  std::byte* to = copy.get();
  for (const Packed& p : found) {
    std::memcpy(to, p.data, p.bytes);
    to += p.bytes;
  }
  all.owner = copy;
  all.data = copy.get();
  return all;
}

std::unique_ptr<Plan> make_plan(const Graph& graph, const std::vector<std::string>& outputs,
                                Backend& backend, PackedWeights& weights, bool fused, bool sunk) {
  Graph wanted = prune(graph, outputs);
  if (fused) wanted = fuse(sunk ? sink_pools(wanted) : wanted, backend);
  verify(wanted);
  std::unique_ptr<Plan> plan = Planner(std::move(wanted), backend, weights).run();
  plan->sunk = fused && sunk;
  return plan;
}

}  // namespace trine
