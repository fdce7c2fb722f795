// SPDX-License-Identifier: Apache-2.0
#include "exec/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "compile/passes.h"

namespace trine {
namespace {

// All values of one run: each node is an output, so that no buffer is used twice.
struct Values {
  std::vector<PlanOutput> outputs;
  std::vector<std::vector<float>> data;
};

Values run_all(Graph graph, Backend& backend, const BatchView& batch) {
  if (backend.properties().host_memory) {
    graph = fold(graph, backend);
  } else {
    graph = fold(graph, *make_cpu_backend(0));
  }
  graph.outputs.clear();
  std::vector<std::string> names;
  for (size_t id = 0; id < graph.nodes.size(); ++id) {
    const Node& node = graph.nodes[id];
    if (node.shape.rows == Rows::kFixed || node.dtype != DType::kF32) continue;
    names.push_back(cat(id));
    graph.add_output(names.back(), static_cast<NodeId>(id));
  }
  PackedWeights weights(backend);
  const std::unique_ptr<Plan> plan = make_plan(graph, names, backend, weights, false);
  check(batch, plan->limits);
  int64_t longest = 0;
  for (size_t b = 1; b < batch.offsets.size(); ++b)
    longest = std::max<int64_t>(longest, batch.offsets[b] - batch.offsets[b - 1]);
  Workspace workspace(backend);
  workspace.reserve(*plan, batch.tokens(), batch.sequences(), longest);
  workspace.append(batch);
  workspace.run(*plan);
  Values values{plan->outputs, {}};
  for (const PlanOutput& o : plan->outputs) {
    const int64_t rows = o.rows == Rows::kTokens ? batch.tokens() : batch.sequences();
    values.data.emplace_back(static_cast<size_t>(rows * o.value.cols));
    workspace.fetch(o.value, 0, rows, values.data.back().data());
  }
  workspace.finish();
  return values;
}

}  // namespace

std::vector<NodeComparison> compare_with_ref(const Graph& graph, std::unique_ptr<Backend> backend,
                                             const BatchView& batch,
                                             const std::vector<std::string>& outputs) {
  const Graph wanted = prune(graph, outputs);
  const std::unique_ptr<Backend> ref = make_ref_backend(backend->properties().dtype);
  const Values expected = run_all(wanted, *ref, batch);
  const Values got = run_all(wanted, *backend, batch);
  std::vector<NodeComparison> out;
  for (size_t i = 0; i < expected.data.size(); ++i) {
    const auto id = static_cast<NodeId>(std::stoi(expected.outputs[i].name));
    NodeComparison c{id, std::string(info(wanted[id].op).name), wanted[id].name, 0, 0};
    for (size_t j = 0; j < expected.data[i].size(); ++j) {
      const double e = expected.data[i][j];
      const double g = got.data[i][j];
      if (std::isnan(e) != std::isnan(g))
        c.max_abs_difference = std::numeric_limits<double>::quiet_NaN();
      if (std::isnan(e) || std::isnan(g)) continue;
      c.max_abs_reference = std::max(c.max_abs_reference, std::abs(e));
      if (!std::isnan(c.max_abs_difference))
        c.max_abs_difference = std::max(c.max_abs_difference, std::abs(e - g));
    }
    out.push_back(std::move(c));
  }
  return out;
}

}  // namespace trine
