// SPDX-License-Identifier: Apache-2.0
#include "exec/engine.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "base/error.h"
#include "compile/passes.h"
#include "exec/finite.h"
#include "exec/host.h"
#include "weights/convert.h"

namespace trine {
namespace {

// A merged batch stays small enough that whoever waits for it does not wait long: beyond some
// hundred tokens, a larger GEMM gains nothing.
constexpr int64_t kMergeTokens = 1024;

int64_t longest(const BatchView& batch) {
  int64_t length = 0;
  for (size_t b = 1; b < batch.offsets.size(); ++b) {
    length = std::max<int64_t>(length, batch.offsets[b] - batch.offsets[b - 1]);
  }
  // Scratch for a cache's capacity from the start: its sequence grows with every run.
  for (const KvCache* cache : batch.caches) {
    if (cache != nullptr) length = std::max(length, cache->capacity());
  }
  return length;
}

// Bits of what is read element by element; blocks are unpacked to float32.
double element_bits(DType dtype) {
  return 8.0 * static_cast<double>(size_of(block_of(dtype) == 1 ? dtype : DType::kF32));
}

// Of a weight in the dtype that a consumer holds it in; groups with their scales and minima.
double element_bits(const Graph& graph, NodeId weight, DType dtype) {
  if (dtype != DType::kI4) return element_bits(dtype);
  return 8.0 * static_cast<double>(group_bytes(host::group_form(graph, weight))) / kGroup;
}

// Bits that an element of each weight takes, in the widest form that a consumer holds it in.
std::map<std::string_view, double> weight_bits(const Graph& graph, DType dtype) {
  std::map<std::string_view, double> sizes;
  for (const Node& node : graph.nodes) {
    for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
      const NodeId id = node.inputs[slot];
      if (id == kNoNode || graph[id].op != Op::weight) continue;
      const std::string_view name = graph[id].as<WeightAttrs>().name;
      DType held = host::multiplied_dtype(graph, id, node, slot, dtype);
      if (node.op == Op::embedding && held == DType::kF32) held = graph.weights->at(name).dtype;
      double& size = sizes[name];
      size = std::max(size, element_bits(graph, id, held));
    }
  }
  for (const Node& node : graph.nodes) {  // what was folded is left as it is stored
    if (node.op != Op::weight) continue;
    const std::string_view name = node.as<WeightAttrs>().name;
    sizes.try_emplace(name, element_bits(graph.weights->at(name).dtype));
  }
  return sizes;
}

std::string_view scope_of(std::string_view tensor) { return tensor.substr(0, tensor.rfind('.')); }

}  // namespace

Engine::Engine(Graph graph, std::unique_ptr<Backend> backend,
               std::shared_ptr<const WeightStore> stored)
    : backend_(std::move(backend)),
      graph_(std::move(graph)),
      stored_(std::move(stored)),
      weights_(*backend_, stored_),
      workspace_(*backend_) {
  verify(graph_);
  check_unused();
  kv_layout_ = std::make_shared<const KvLayout>(
      kv_layout(graph_, host::attention_dtype(backend_->properties().dtype)));
  // Folding is done where its results are read.
  graph_ = backend_->properties().host_memory ? fold(graph_, *backend_)
                                              : fold(graph_, *make_cpu_backend(0));
}

std::unique_ptr<KvCache> Engine::make_cache(int64_t capacity) {
  if (kv_layout_->layers.empty()) throw InputError("the model keeps no keys and values");
  return std::make_unique<KvCache>(kv_layout_, *backend_, capacity);
}

void Engine::check_unused() const {
  std::set<std::string_view> used(graph_.ignored.begin(), graph_.ignored.end());
  std::set<std::string_view> scopes;
  for (const Node& node : graph_.nodes) {
    if (node.op != Op::weight) continue;
    const std::string_view name = node.as<WeightAttrs>().name;
    used.insert(name);
    if (name.find('.') != std::string_view::npos) scopes.insert(scope_of(name));
  }
  for (const Tensor& tensor : *graph_.weights) {
    const std::string_view name = tensor.name;
    if (used.contains(name) || !scopes.contains(scope_of(name))) continue;
    throw ModelError(cat("tensor \"", name, "\" of ", tensor.file,
                         " is not used, but others of its module are: the ",
                         "configuration says that it should not be there"));
  }
}

void Engine::exclusively(const std::function<void()>& work) {
  Request turn(nullptr, nullptr, {});  // without a plan it is never merged with others
  std::unique_lock lock(queue_mutex_);
  wait_for_turn(turn, lock);
  queue_head_ = turn.next;
  if (!queue_head_) queue_tail_ = nullptr;
  turn.next = nullptr;
  lock.unlock();
  try {
    work();
  } catch (...) {
    lock.lock();
    hand_over(&turn);
    throw;
  }
  lock.lock();
  hand_over(&turn);
}

void Engine::for_each(int64_t items, const std::function<void(int64_t)>& work) {
  if (items <= 0) return;
  if (items == 1) return work(0);
  std::mutex mutex;
  std::exception_ptr error;
  const auto guarded = [&](int64_t item) {
    try {
      work(item);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  exclusively([&] {
    if (!backend_->properties().host_memory && !host_) host_ = make_cpu_backend(0);
    (host_ ? *host_ : *backend_).for_each(items, guarded);
  });
  if (error) std::rethrow_exception(error);
}

const Plan& Engine::plan(const std::vector<std::string>& outputs, bool sunk) {
  const std::lock_guard lock(plans_mutex_);
  std::unique_ptr<Plan>& plan = plans_[{outputs, sunk}];
  if (!plan) {
    try {
      exclusively([&] { plan = make_plan(graph_, outputs, *backend_, weights_, true, sunk); });
    } catch (...) {
      plans_.erase({outputs, sunk});
      throw;
    }
  }
  return *plan;
}

void Engine::run(const Plan& plan, const BatchView& batch, std::span<float* const> results) {
  // Before anything is claimed: the other plan's run does that.
  if (plan.sunk &&
      std::adjacent_find(batch.offsets.begin(), batch.offsets.end()) != batch.offsets.end()) {
    std::vector<std::string> outputs;
    for (const PlanOutput& output : plan.outputs) outputs.push_back(output.name);
    return run(this->plan(outputs, false), batch, results);
  }
  KvCachesInUse caches(batch.caches);
  check(batch, plan.limits);
  for (size_t b = 0; b < batch.caches.size(); ++b) {
    if (batch.caches[b] != nullptr)
      batch.caches[b]->reserve(int64_t{batch.offsets[b + 1]} - batch.offsets[b]);
  }
  Request request(&plan, &batch, results);
  std::unique_lock lock(queue_mutex_);
  wait_for_turn(request, lock);
  if (!request.done) {
    Request* group = take_group();
    lock.unlock();
    run_group(group);
    lock.lock();
    hand_over(group);
  }
  if (request.error) std::rethrow_exception(request.error);
  caches.advance(batch.offsets);
}

void Engine::run_finite(const Plan& plan, const BatchView& batch, std::span<float* const> results) {
  run(plan, batch, results);
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    const PlanOutput& output = plan.outputs[i];
    const int64_t rows = output.rows == Rows::kTokens ? batch.tokens() : batch.sequences();
    if (!all_finite(results[i], static_cast<size_t>(rows * output.value.cols)))
      throw ModelError(cat("output \"", output.name, "\" is no number: ", why_not_finite()));
  }
}

std::string Engine::why_not_finite() const {
  std::set<std::string_view> used;
  for (const Node& node : graph_.nodes) {
    if (node.op == Op::weight) used.insert(node.as<WeightAttrs>().name);
  }
  std::string found =
      find_not_finite(*graph_.weights, [&](std::string_view name) { return used.contains(name); });
  if (found.empty() && stored_)
    found = find_not_finite(*stored_, [](std::string_view) { return true; });
  // What was folded is all that a compiled file has of some weights; stored_ has its own already.
  for (size_t id = 0; id < graph_.nodes.size() && found.empty() && !stored_; ++id) {
    if (graph_[static_cast<NodeId>(id)].op != Op::constant) continue;
    if (!is_readable(host::parts(graph_, static_cast<NodeId>(id))[0].dtype)) continue;  // integers
    const Packed values = host::as_f32(graph_, static_cast<NodeId>(id));
    if (!all_finite(static_cast<const float*>(values.data), values.bytes / sizeof(float)))
      found = cat("what was computed of weights alone is none, either: ",
                  describe(graph_, graph_[static_cast<NodeId>(id)]));
  }
  return found.empty() ? "every weight is finite, so sums overflow" : found;
}

// Returns with the turn to run (the request is then the queue's head), or when another call has run
// it.
void Engine::wait_for_turn(Request& request, std::unique_lock<std::mutex>& lock) {
  (queue_tail_ ? queue_tail_->next : queue_head_) = &request;
  queue_tail_ = &request;
  if (running_) {
    request.wake.wait(lock, [&] { return request.done || request.leads; });
  } else {
    running_ = true;
  }
}

// The head of the queue, and all others with the same plan that fit.
Engine::Request* Engine::take_group() {
  Request* group = queue_head_;
  const Plan* plan = group->plan;
  int64_t tokens = group->batch->tokens();
  queue_head_ = group->next;
  Request* last = group;
  Request** from = &queue_head_;
  while (Request* r = *from) {
    if (r->plan == plan && tokens + r->batch->tokens() <= kMergeTokens) {
      tokens += r->batch->tokens();
      *from = r->next;
      last->next = r;
      last = r;
    } else {
      from = &r->next;
    }
  }
  last->next = nullptr;
  queue_tail_ = nullptr;
  for (Request* r = queue_head_; r; r = r->next) queue_tail_ = r;
  return group;
}

void Engine::run_group(Request* group) {
  const Plan& plan = *group->plan;
  int64_t tokens = 0, max_length = 0;
  int32_t sequences = 0;
  for (Request* r = group; r; r = r->next) {
    tokens += r->batch->tokens();
    sequences += r->batch->sequences();
    max_length = std::max(max_length, longest(*r->batch));
  }
  try {
    workspace_.reserve(plan, tokens, sequences, max_length);
    workspace_.clear();
    for (Request* r = group; r; r = r->next) workspace_.append(*r->batch);
    workspace_.run(plan);
    int64_t token = 0, sequence = 0;
    for (Request* r = group; r; r = r->next) {
      for (size_t i = 0; i < plan.outputs.size(); ++i) {
        const bool per_token = plan.outputs[i].rows == Rows::kTokens;
        workspace_.fetch(plan.outputs[i].value, per_token ? token : sequence,
                         per_token ? r->batch->tokens() : r->batch->sequences(), r->results[i]);
      }
      token += r->batch->tokens();
      sequence += r->batch->sequences();
    }
    workspace_.finish();
  } catch (...) {
    for (Request* r = group; r; r = r->next) r->error = std::current_exception();
  }
}

void Engine::hand_over(Request* group) {
  for (Request* r = group; r;) {
    Request* next = r->next;  // once it is done, its caller may leave and take it away
    r->done = true;
    r->wake.notify_one();
    r = next;
  }
  running_ = queue_head_ != nullptr;  // the turn passes on without a gap
  if (queue_head_) {
    queue_head_->leads = true;
    queue_head_->wake.notify_one();
  }
}

std::vector<StepProfile> Engine::profile(const Plan& plan, const BatchView& batch) {
  const KvCachesInUse caches(batch.caches);  // written to, but not advanced
  check(batch, plan.limits);
  std::vector<double> seconds(plan.steps.size());
  std::vector<float> sink;
  Workspace workspace(*backend_);
  workspace.set_profile(&seconds);
  // The turn covers the reservation too: what scratch is needed changes while a plan is compiled.
  exclusively([&] {
    workspace.reserve(plan, batch.tokens(), batch.sequences(), longest(batch));
    workspace.append(batch);
    workspace.run(plan);
    workspace.finish();
  });
  double pairs = 0;
  for (size_t b = 1; b < batch.offsets.size(); ++b) {
    const double length = batch.offsets[b] - batch.offsets[b - 1];
    pairs += length * length;
  }
  std::vector<StepProfile> out;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& s = plan.steps[i];
    const auto tokens = static_cast<double>(batch.tokens());
    const double rows = s.rows == Rows::kTokens ? tokens : batch.sequences();
    out.push_back({std::string(trine::info(s.op).name), s.name, s.dtype, seconds[i],
                   s.cost.flops_per_row * rows + s.cost.flops_per_token * tokens +
                       s.cost.flops_per_pair * pairs,
                   s.cost.bytes_per_row * rows + s.cost.bytes_fixed});
  }
  return out;
}

EngineInfo Engine::info() {
  EngineInfo out;
  out.backend = backend_->properties();
  const std::map<std::string_view, double> used = weight_bits(graph_, out.backend.dtype);
  for (const Tensor& tensor : *graph_.weights) {
    if (const auto size = used.find(tensor.name); size != used.end()) {
      size_t elements = 1;
      for (const int64_t d : tensor.shape) elements *= static_cast<size_t>(d);
      out.parameters += elements;
      out.weight_bytes += static_cast<size_t>(static_cast<double>(elements) * size->second / 8);
    } else {
      out.unused_tensors.emplace_back(tensor.name);
    }
  }
  out.bytes_mapped = graph_.weights->bytes_mapped() + (stored_ ? stored_->bytes_mapped() : 0);
  {
    const std::lock_guard lock(plans_mutex_);
    out.bytes_allocated = weights_.bytes_owned();
  }
  for (const Constant& c : graph_.constants) {
    if (c.data == nullptr) continue;  // a compiled file has what was made of it
    size_t bytes = sizeof(float);
    for (int64_t d : c.dims) bytes *= static_cast<size_t>(d);
    out.bytes_allocated += bytes;
  }
  {
    const std::lock_guard lock(queue_mutex_);
    if (!running_) out.bytes_allocated += workspace_.bytes();
  }
  return out;
}

}  // namespace trine
