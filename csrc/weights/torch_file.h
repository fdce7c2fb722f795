// SPDX-License-Identifier: Apache-2.0
// What torch.save writes: a zip archive since torch 1.6, a row of pickles and raw storages before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace trine {

struct TorchTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;    // row-major; may start at any address
  std::shared_ptr<const void> owner;  // null: the data lie in the file
};

// The tensors of a state dict, in its order; what else is in it is passed over. The dict may lie
// under "state_dict", "model" or "module", and all its names may start with "module." (of
// DataParallel) or "_orig_mod." (of torch.compile), which are taken off. Nothing in the file is
// executed: a pickle that refers to anything but tensors and plain values is refused with what it
// refers to. Tensors are views of the file; only one whose elements do not lie in a row is copied.
// ModelError with the file's name and the tensor's.
std::vector<TorchTensor> parse_torch(std::span<const std::byte> file, const std::string& file_name);

}  // namespace trine
