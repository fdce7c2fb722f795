// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"
#include "compile/passes.h"
#include "trine.h"

namespace trine {
namespace {

bool is_computed(const Node& node) {
  return node.shape.rows == Rows::kFixed && node.op != Op::weight && node.op != Op::constant &&
         node.op != Op::concat_rows;
}

int64_t elements(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}

Constant evaluate(const Graph& graph, const Node& node, Backend& backend) {
  if (!backend.supports(graph, node)) {
    throw DeviceError(
        cat(describe(graph, node), ": ", backend.properties().device, " has no such op"));
  }
  if (node.shape.dims.size() != 2) {
    throw ModelError(
        cat(describe(graph, node), ": folding computes matrices, this is ", to_string(node.shape)));
  }
  std::vector<Packed> packed;
  std::vector<Operand> in;
  for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
    Operand& operand = in.emplace_back();
    const NodeId id = node.inputs[slot];
    if (id == kNoNode) continue;
    const Node& input = graph[id];
    const Packed& p = packed.emplace_back(backend.pack(graph, id, node, slot));
    operand.place = Operand::Place::kFixed;
    operand.dtype = p.dtype;
    operand.cols = operand.ld = input.shape.cols();
    operand.rows = elements(input.shape.dims) / operand.cols;
    operand.data = p.data;
  }
  const int64_t cols = node.shape.cols();
  const int64_t count = elements(node.shape.dims);
  const std::shared_ptr<std::byte> memory =
      backend.alloc(static_cast<size_t>(count) * sizeof(float));
  Operand out{Operand::Place::kFixed};
  out.rows = count / cols;
  out.cols = out.ld = cols;
  out.data = memory.get();
  const Step step = backend.lower(graph, node, in, out);
  const std::unique_ptr<DeviceContext> device = backend.context();
  device->reserve({});
  RunContext context{};
  context.device = device->get();
  step.run(step.args.get(), context);
  return {std::shared_ptr<const float[]>(memory, reinterpret_cast<const float*>(memory.get())),
          node.shape.dims};
}

}  // namespace

// Sums of a linear run in one order on every instruction set that has fused multiply-add; means and
// variances of rows don't, so they are the reference's: what is folded, and may be stored in a
// file, is the same wherever it was computed.
Graph fold(const Graph& graph, Backend& backend) {
  Graph out = graph;
  const std::unique_ptr<Backend> ref = make_ref_backend();
  for (Node& node : out.nodes) {
    if (!is_computed(node)) continue;
    Constant value = evaluate(out, node, node.op == Op::linear ? backend : *ref);
    node.op = Op::constant;
    node.inputs.clear();
    node.attrs = ConstantAttrs{static_cast<int32_t>(out.constants.size())};
    out.constants.push_back(std::move(value));
  }
  return out;
}

}  // namespace trine
