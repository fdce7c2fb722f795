// SPDX-License-Identifier: Apache-2.0
// A compiled model: graph, packed weights, one plan for each set of outputs that was asked for.
// Safe to call from many threads.
//
// Calls that arrive while a run is under way wait, and the next run takes all of them as one ragged
// batch. Results are the same bits whatever a sequence is batched with, so nobody can tell, except
// by the clock: weights are read once for all of them.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "backend.h"
#include "compile/plan.h"
#include "exec/executor.h"

namespace trine {

struct EngineInfo {
  BackendInfo backend;
  size_t parameters = 0;    // elements of the tensors that the graph uses
  size_t weight_bytes = 0;  // their bytes as the model computes with them, without padding
  size_t bytes_mapped = 0;
  size_t bytes_allocated = 0;  // packed weights, constants and workspace
  std::vector<std::string> unused_tensors;
};

struct StepProfile {
  std::string op, name;
  DType dtype;  // what is multiplied
  double seconds, flops, bytes;
};

class Engine {
 public:
  // Takes the graph as written. ModelError when a tensor beside a used one (same scope) is itself
  // unused: the checkpoint then has something, such as a bias, that the graph leaves out.
  // `stored`: packed tensors of a compiled file, whose graph is folded (exec/compiled.h).
  Engine(Graph graph, std::unique_ptr<Backend> backend,
         std::shared_ptr<const WeightStore> stored = nullptr);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // The plan for these outputs, compiled when first asked for. InputError when one is unknown.
  const Plan& plan(const std::vector<std::string>& outputs) { return plan(outputs, true); }
  // results[i]: room for the rows of plan.outputs[i], dense.
  void run(const Plan&, const BatchView&, std::span<float* const> results);
  // The same for results that nobody looks at before the caller gets them: ModelError when one is
  // NaN or infinite, which names it and the weight to blame.
  void run_finite(const Plan&, const BatchView&, std::span<float* const> results);
  // Why results are no numbers, for messages: the first weight that holds a NaN or an infinity, or
  // that none does. Reads all weights.
  std::string why_not_finite() const;

  // Room for a sequence's keys and values; InputError when the graph keeps none.
  std::unique_ptr<KvCache> make_cache(int64_t capacity);

  // Steps of one run with their time and counted work; waits its turn like a run.
  std::vector<StepProfile> profile(const Plan&, const BatchView&);

  // work(item) for each item in [0, items) on the threads of the processor, in any order; waits its
  // turn like a run. What the first one throws that does is thrown when all are done.
  void for_each(int64_t items, const std::function<void(int64_t)>& work);

  // Writes a compiled file (exec/compiled.h); `metadata` goes beside the graph. Waits its turn like
  // a run. DeviceError on a device whose forms are not stored, std::system_error when writing
  // fails.
  void save(const std::filesystem::path&, std::map<std::string, std::string> metadata);

  const Graph& graph() const noexcept { return graph_; }
  EngineInfo info();

 private:
  struct Request {
    Request(const Plan* p, const BatchView* b, std::span<float* const> r)
        : plan(p), batch(b), results(r) {}

    const Plan* plan;
    const BatchView* batch;
    std::span<float* const> results;
    Request* next = nullptr;
    bool done = false;
    bool leads = false;
    std::exception_ptr error;
    std::condition_variable wake;
  };

  void check_unused() const;
  const Plan& plan(const std::vector<std::string>& outputs, bool sunk);
  void wait_for_turn(Request&, std::unique_lock<std::mutex>&);
  Request* take_group();
  void run_group(Request* group);
  void hand_over(Request* group);
  // Takes a turn of its own: nothing else runs on the device's threads meanwhile.
  void exclusively(const std::function<void()>& work);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> host_;  // the processor's threads beside another device, once wanted
  Graph graph_;
  std::shared_ptr<const WeightStore> stored_;
  std::shared_ptr<const KvLayout> kv_layout_;
  std::mutex plans_mutex_;
  PackedWeights weights_;
  std::map<std::pair<std::vector<std::string>, bool>, std::unique_ptr<Plan>>
      plans_;  // and whether sunk

  std::mutex queue_mutex_;
  Request* queue_head_ = nullptr;
  Request* queue_tail_ = nullptr;
  bool running_ = false;
  Workspace workspace_;  // belongs to the call that runs
};

}  // namespace trine
