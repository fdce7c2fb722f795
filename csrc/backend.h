// SPDX-License-Identifier: Apache-2.0
// What a device implements. A backend turns weights into the layout its kernels read and nodes into
// steps; the compiler and the executor above it are the same for all devices.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "exec/step.h"
#include "graph/graph.h"

namespace trine {

struct BackendInfo {
  std::string device;  // "cpu", "ref"
  std::string isa;     // "avx512"
  int threads = 1;
  DType dtype = DType::kF32;  // of the weights of linear, and of what they are multiplied with
};

// A weight in the place and layout that one kind of consumer reads.
struct Packed {
  std::shared_ptr<void> owner;  // null when `data` lies in the mapped checkpoint
  void* data = nullptr;
  size_t bytes = 0;
  DType dtype = DType::kF32;
};

// The part of a run that belongs to the device: threads and their scratch memory. One per
// concurrent run.
class DeviceContext {
 public:
  virtual ~DeviceContext() = default;
  virtual const void* get() const noexcept = 0;
  // Room for sequences of up to max_length tokens; may allocate, so it is called before the steps.
  virtual void reserve(int64_t max_length) = 0;
  virtual size_t bytes() const noexcept = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual BackendInfo properties() const = 0;
  // False: the compiler must not hand this node to `lower`.
  virtual bool supports(const Graph&, const Node&) const noexcept = 0;
  // Zeroed memory of the device, 64-byte aligned.
  virtual std::shared_ptr<std::byte> alloc(size_t bytes) = 0;
  // `weight` (a weight, constant or concat_rows node) as input `slot` of `consumer`.
  virtual Packed pack(const Graph&, NodeId weight, const Node& consumer, size_t slot) = 0;
  // `in` has an operand for each input (absent ones say kNone); `out` is where the result goes.
  virtual Step lower(const Graph&, const Node&, std::span<const Operand> in,
                     const Operand& out) = 0;
  // Scratch for the steps lowered so far.
  virtual std::unique_ptr<DeviceContext> context() = 0;
};

// dtype: kF32 or kBF16. Which linears are computed in bf16 says host::weight_dtype.
std::unique_ptr<Backend> make_cpu_backend(int threads, DType dtype = DType::kF32);
std::unique_ptr<Backend> make_ref_backend(DType dtype = DType::kF32);
// kBF16 where the chosen instruction set multiplies it faster than float32, else kF32.
DType cpu_default_dtype();

}  // namespace trine
