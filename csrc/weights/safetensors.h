// SPDX-License-Identifier: Apache-2.0
// The safetensors format: a 64-bit length, a JSON header, the tensors' bytes without a gap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"

namespace trine {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  // May start at any address: files exist whose header length is odd, or that put a float tensor
  // behind an odd number of bytes. Whoever wants aligned elements checks and copies.
  std::span<const std::byte> data;
};

struct Safetensors {
  std::vector<SafetensorsEntry> tensors;  // in the order of their data
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Checks the header against every rule of the format before anything of it is used: each size is
// computed with checked arithmetic, the tensors cover the rest of the file exactly, without holes
// and overlaps, no name comes twice. ModelError with the file's name and the tensor's. The result
// refers to the bytes of the file.
Safetensors parse_safetensors(std::span<const std::byte> file, const std::string& file_name);

}  // namespace trine
