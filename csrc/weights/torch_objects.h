// SPDX-License-Identifier: Apache-2.0
// The objects in the pickle of a torch.save file: storages, tensors, the state dict.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weights/pickle.h"
#include "weights/torch_file.h"

namespace trine {

// What the pickle of a state dict may refer to.
std::span<const std::string_view> torch_globals() noexcept;

struct TorchStorage {
  DType dtype = DType::kU8;
  std::string_view key;
  uint64_t whole = 0;  // elements that the file has under the key
  // Those that belong to the tensor: in the old format a storage can be part of another.
  uint64_t first = 0;
  uint64_t count = 0;
};

// A persistent value of the pickle; ModelError, starting with `where`, if it is no storage.
TorchStorage read_torch_storage(const Pickle& pickle, const PickleValue& value,
                                const std::string& where);

// The tensors of the pickle's state dict over the storages' bytes; see parse_torch.
std::vector<TorchTensor> read_state_dict(
    const Pickle& pickle, const std::map<std::string_view, std::span<const std::byte>>& storages,
    const std::string& file_name);

}  // namespace trine
