// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace trine {

struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
  bool joined = false;  // right behind the one before it, so that both are read as one
};

// Writes a safetensors file whose tensors start on cache lines, large ones on pages: what the
// format allows no hole for is filled with tensors named "padding.0" and so on. Atomic; errors of
// the system are std::system_error.
void write_safetensors(const std::filesystem::path&,
                       const std::map<std::string, std::string>& metadata,
                       const std::vector<TensorToWrite>&);

}  // namespace trine
