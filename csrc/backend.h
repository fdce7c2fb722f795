// SPDX-License-Identifier: Apache-2.0
// What a device implements. A backend turns weights into the layout its kernels read and nodes into
// steps; the compiler and the executor above it are the same for all devices.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "exec/step.h"
#include "graph/graph.h"

namespace trine {

struct KvLayout;  // exec/kv_cache.h

struct BackendInfo {
  std::string device;  // "cpu", "ref", "cuda"
  std::string isa;     // "avx512", "sm_90"
  int threads = 1;
  DType dtype = DType::kF32;  // of the weights of linear, and of what they are multiplied with
  std::string hardware = "";  // "NVIDIA H100 80GB HBM3"; empty for the processor
  // Whether `alloc`, packed weights and arenas are memory that the processor reads.
  bool host_memory = true;
};

// A weight in the place and layout that one kind of consumer reads.
struct Packed {
  std::shared_ptr<void> owner;  // null when `data` lies in the mapped checkpoint
  void* data = nullptr;
  size_t bytes = 0;
  DType dtype = DType::kF32;
};

// The layout that a kind of consumer reads a weight in. Consumers whose forms have one name share
// one copy, and a compiled file stores it (exec/compiled.h): so a device's forms and their bytes
// are the same for every instruction set.
struct Form {
  std::string name;  // "panels"
  DType dtype = DType::kF32;
  std::vector<int64_t> shape = {};
};

// The part of a run that belongs to the device: threads, streams and their scratch memory. One per
// concurrent run. A run is reserve, begin, steps, any number of fetches, finish; what the host does
// in between is what these do unless a device overrides them.
class DeviceContext {
 public:
  virtual ~DeviceContext() = default;
  virtual const void* get() const noexcept = 0;
  // Room for a run of this plan; `max_length`: the tokens of the longest sequence, those in its
  // cache included. May allocate, so it is called before the steps.
  virtual void reserve(const RunSize&) = 0;
  virtual size_t bytes() const noexcept = 0;
  // Inputs, offsets and caches lie in host memory: a device copies them and puts its own addresses
  // in their place.
  virtual void begin(RunContext&) {}
  virtual void run(std::span<const Step> steps, const RunContext&);
  // Waits until what was started is done.
  virtual void wait() {}
  // Rows [begin, begin + rows) of a value, densely into `to`, which is complete after finish().
  virtual void fetch(const RunContext&, const Operand&, int64_t begin, int64_t rows, float* to);
  // DeviceError when anything since `begin` failed.
  virtual void finish() {}
};

// Memory for one sequence's keys and values, in the layout of the device's attention.
class KvMemory {
 public:
  virtual ~KvMemory() = default;
  virtual size_t bytes() const noexcept = 0;
  // What a step finds in KvView::data and KvView::device.
  virtual KvView view() const noexcept = 0;
  // Room for this many tokens, at most the capacity; keeps what there is.
  virtual void reserve(int64_t tokens) = 0;
  // The first `tokens` of another one of the same layout.
  virtual void copy_prefix(const KvMemory& from, int64_t tokens) = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual BackendInfo properties() const = 0;
  // False: the compiler must not hand this node to `lower`.
  virtual bool supports(const Graph&, const Node&) const noexcept = 0;
  // Zeroed memory of the device, 64-byte aligned.
  virtual std::shared_ptr<std::byte> alloc(size_t bytes) = 0;
  // Of `weight` (a weight, constant or concat_rows node) as input `slot` of `consumer`.
  virtual Form form(const Graph&, NodeId weight, const Node& consumer, size_t slot) const = 0;
  // The weight in that form.
  virtual Packed pack(const Graph&, NodeId weight, const Node& consumer, size_t slot) = 0;
  // `in` has an operand for each input (absent ones say kNone); `out` is where the result goes.
  virtual Step lower(const Graph&, const Node&, std::span<const Operand> in,
                     const Operand& out) = 0;
  // In which form the value of a node over tokens or sequences lies in memory; what goes out of
  // the model is float32 whatever this says.
  virtual DType value_dtype(const Graph&, const Node& node) const noexcept;
  // Scratch for the steps lowered so far.
  virtual std::unique_ptr<DeviceContext> context() = 0;
  // work(item) for each item in [0, items), each once and in any order, on the processor's threads
  // if the backend has any; nothing else may run on it meanwhile. `work` doesn't throw.
  virtual void for_each(int64_t items, const std::function<void(int64_t)>& work);
  // Of `capacity` tokens at most, a multiple of KvLayout::kPanel.
  virtual std::unique_ptr<KvMemory> kv_memory(std::shared_ptr<const KvLayout>, int64_t capacity);
};

// What both of these compute in.
inline constexpr DType kHostDTypes[] = {DType::kF32, DType::kBF16, DType::kI8, DType::kI4};
// dtype: of kHostDTypes. Which linears are computed in it says host::weight_dtype.
std::unique_ptr<Backend> make_cpu_backend(int threads, DType dtype = DType::kF32);
std::unique_ptr<Backend> make_ref_backend(DType dtype = DType::kF32);
// kBF16 where the chosen instruction set multiplies it faster than float32, else kF32.
DType cpu_default_dtype();

}  // namespace trine
