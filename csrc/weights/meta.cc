// SPDX-License-Identifier: Apache-2.0
// Meta's checkpoints: consolidated.00.pth and so on, one for each model-parallel shard.
#include <cstring>
#include <map>

#include "base/error.h"
#include "weights/store.h"
#include "weights/torch_file.h"

namespace trine {
namespace {

using Shard = std::map<std::string, TorchTensor>;

class Join {
 public:
  Join(const std::vector<std::filesystem::path>& files, std::vector<Shard>& shards)
      : files_(files), shards_(shards) {}

  // Every shard's tensor of this name.
  std::vector<TorchTensor*> find(const std::string& name) const {
    std::vector<TorchTensor*> found;
    for (size_t i = 0; i < shards_.size(); ++i) {
      const auto at = shards_[i].find(name);
      if (at == shards_[i].end())
        throw ModelError(cat(display_name(files_[i]), ": no tensor ", quoted(name)));
      TorchTensor& tensor = at->second;
      if (i > 0 && (tensor.dtype != found[0]->dtype || tensor.shape != found[0]->shape)) {
        fail(i, name,
             cat("shape ", tensor.shape, " of ", name_of(tensor.dtype), ", but ", found[0]->shape,
                 " of ", name_of(found[0]->dtype), " in the first shard"));
      }
      found.push_back(&tensor);
    }
    return found;
  }

  void check_equal(const std::vector<TorchTensor*>& tensors) const {
    const auto& first = tensors[0]->data;
    for (size_t i = 1; i < tensors.size(); ++i) {
      if (first.empty() || std::memcmp(first.data(), tensors[i]->data.data(), first.size()) == 0)
        continue;
      fail(i, tensors[i]->name, "other values than in the first shard, though both hold all of it");
    }
  }

  [[noreturn]] void fail(size_t shard, const std::string& name, const std::string& what) const {
    throw ModelError(cat(display_name(files_[shard]), ": tensor ", quoted(name), ": ", what));
  }

 private:
  const std::vector<std::filesystem::path>& files_;
  std::vector<Shard>& shards_;
};

}  // namespace

std::shared_ptr<WeightStore> WeightStore::open_meta(const std::vector<std::filesystem::path>& files,
                                                    const std::vector<MetaName>& names) {
  auto store = std::make_shared<WeightStore>();
  std::vector<Shard> shards;
  for (const std::filesystem::path& path : files) {
    const MappedFile& file = store->map(path);
    Shard& shard = shards.emplace_back();
    for (TorchTensor& tensor : parse_torch(file.bytes(), file.name())) {
      std::string name = tensor.name;
      shard.emplace(std::move(name), std::move(tensor));
    }
  }
  const Join join(files, shards);
  for (const MetaName& name : names) {
    const std::vector<TorchTensor*> found = join.find(name.stored);
    const TorchTensor& first = *found.front();
    const auto dimensions = static_cast<int64_t>(first.shape.size());
    if (name.cut_dimension < -1 || name.cut_dimension >= dimensions)
      join.fail(0, name.stored,
                cat("shape ", first.shape, " has no dimension ", name.cut_dimension));
    store->add(name.name, first.dtype, first.shape, first.owner, first.data,
               store->files_.front().name());
    Tensor& tensor = store->tensors_.back();
    if (name.cut_dimension < 0) {
      join.check_equal(found);
    } else if (found.size() > 1) {
      for (const TorchTensor* piece : found) {
        tensor.pieces.push_back(piece->data.data());
        if (piece->owner != nullptr) store->owners_.push_back(piece->owner);
      }
      tensor.data = nullptr;
      tensor.cut_dimension = name.cut_dimension;
      tensor.shape[static_cast<size_t>(name.cut_dimension)] *= static_cast<int64_t>(found.size());
      tensor.bytes *= found.size();
    }
    const int64_t rows = tensor.shape.empty() ? 0 : tensor.shape[0];
    const int64_t heads = name.interleaved_heads;
    if (heads != 0 && (heads < 0 || rows % heads != 0 || rows / heads % 2 != 0)) {
      join.fail(0, name.stored,
                cat("shape ", tensor.shape, " is not of ", heads, " heads with pairs of rows"));
    }
    tensor.interleaved_heads = heads;
  }
  return store;
}

}  // namespace trine
