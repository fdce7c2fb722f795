// SPDX-License-Identifier: Apache-2.0
// A graph for some outputs, compiled: a flat list of steps over buffers whose places are known up
// to the number of rows.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "exec/step.h"
#include "graph/graph.h"

namespace trine {

// What a batch must satisfy, so that no step has to check anything.
struct Limits {
  int64_t ids = INT32_MAX;          // input_ids are below this
  int64_t token_types = INT32_MAX;  // likewise
  int64_t max_length = INT32_MAX;   // tokens of a sequence
  std::string max_length_reason;
  int64_t caches = 0;  // layers of a cache that a run fills
  // Sequences of up to so many tokens turn their keys alike (exec/rotary.h); beyond, each length
  // may do it in its own way.
  int64_t same_rotary = INT32_MAX;
};

struct PlanOutput {
  std::string name;
  Operand value;
  Rows rows = Rows::kTokens;
};

struct Plan {
  Graph graph;  // as compiled, after all passes: for dumps and profiles
  std::vector<Step> steps;
  std::vector<PlanOutput> outputs;
  int64_t token_row_bytes = 0;     // arena bytes per token
  int64_t sequence_row_bytes = 0;  // arena bytes per sequence
  Limits limits;
  bool sunk = false;  // whether poolings were moved: then no sequence may be empty
};

// Weights packed for their consumers, shared by the plans of a model.
class PackedWeights {
 public:
  // `stored`: a compiled file's tensors, under their keys; then all weights come from there.
  explicit PackedWeights(Backend& backend, std::shared_ptr<const WeightStore> stored = nullptr)
      : backend_(backend), stored_(std::move(stored)) {}
  // ModelError when a compiled file lacks the tensor, or has it in another form.
  const Packed& get(const Graph&, NodeId weight, const Node& consumer, size_t slot);
  // "panels/encoder.layer.0.output.dense.weight": the form, and the weight whatever graph it is in.
  static std::string key(const Graph&, NodeId weight, const Form&);
  size_t bytes_owned() const noexcept { return bytes_owned_; }

 private:
  Packed find_stored(const std::string& key, const Form&) const;
  Packed join_stored(const Graph&, const Node& parts, const Node& consumer, size_t slot);

  Backend& backend_;
  std::shared_ptr<const WeightStore> stored_;
  std::map<std::string, Packed> packed_;
  size_t bytes_owned_ = 0;
};

// `graph` is folded. `sunk`: with sink_pools, which needs a token of each sequence. InputError when
// an output is unknown, DeviceError when the backend lacks an op.
std::unique_ptr<Plan> make_plan(const Graph& graph, const std::vector<std::string>& outputs,
                                Backend&, PackedWeights&, bool fused = true, bool sunk = true);

}  // namespace trine
