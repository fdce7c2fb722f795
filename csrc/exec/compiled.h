// SPDX-License-Identifier: Apache-2.0
// The compiled file: a safetensors file whose metadata holds a folded graph and whose tensors are
// packed as the kernels read them, so that a model is mapped and run in place.
//
// Of the metadata the core reads "trine.format" (the number below), "trine.version" (the writer's),
// "trine.device", "trine.dtype", "trine.graph" (graph/serialize.h) and "trine.checksum" (of all
// other keys and values). Tensors are named by PackedWeights::key.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "exec/engine.h"

namespace trine {

// Raised when older readers would misread what is written.
inline constexpr int kCompiledFormat = 2;

using Metadata = std::map<std::string, std::string, std::less<>>;

// An opened file: nothing but its header has been read.
class CompiledFile {
 public:
  // ModelError names the file and says what to do. `check_sum`: false for fuzzing alone.
  explicit CompiledFile(const std::filesystem::path&, bool check_sum = true);

  const Metadata& metadata() const noexcept { return stored_->metadata(); }
  DType dtype() const noexcept { return dtype_; }
  const std::string& name() const noexcept { return name_; }
  // Reads the graph and checks that every tensor it needs is there in its form. A backend of this
  // dtype: the CPU's reads the mapped file in place, another one gets rows (cpu/unpack.h), which it
  // packs again.
  std::shared_ptr<Engine> engine(std::unique_ptr<Backend> backend) const;

 private:
  [[noreturn]] void fail(const std::string& what) const;
  const std::string& at(std::string_view key) const;
  void give_rows(Graph& graph) const;

  std::string name_;
  std::shared_ptr<const WeightStore> stored_;
  DType dtype_ = DType::kF32;
};

}  // namespace trine
