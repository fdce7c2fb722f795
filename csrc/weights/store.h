// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/mapped_file.h"

namespace trine {

// Where numbers are: in the store, or in a copy that lives as long as its owner.
struct Numbers {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  std::shared_ptr<std::byte> owner;
};

// A view of one stored tensor, row-major. The store owns everything that it refers to.
struct Tensor {
  std::string_view name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  std::string_view file;  // where it came from, for messages
  // llama.cpp rotates neighbouring pairs of a head, so its converter moves row i of a head's first
  // half to 2i and of the second to 2i + 1. Not 0: the rows of this many heads lie in that order.
  int64_t interleaved_heads = 0;
  // A tensor that lies in pieces of one shape, one in each model-parallel shard: where they are
  // (then `data` is null), and the dimension that they were cut along.
  std::vector<const std::byte*> pieces;
  int64_t cut_dimension = 0;
  // Of a tensor that was declared (then `data` is null): gets its numbers from elsewhere, in
  // another type than `dtype`, which is that of the checkpoint.
  std::function<Numbers()> elsewhere;

  // Whether the data may be read in place as elements of its type. Files may place tensors at any
  // byte; convert.h reads them all.
  bool is_aligned() const noexcept {
    return size_of(dtype) == 0 || reinterpret_cast<uintptr_t>(data) % size_of(dtype) == 0;
  }
};

// A tensor's numbers in one piece with the rows in the order of the model: in place where they lie
// so, else a copy. Whole blocks move, so nothing is rounded; the copy lives as long as a reader
// needs it, and a checkpoint costs no memory beside its pages.
Numbers numbers_of(const Tensor& tensor);

// What to call a tensor of a GGUF file, and Tensor::interleaved_heads of it.
struct GgufName {
  std::string stored;
  std::string name;
  int64_t interleaved_heads = 0;
};

// The same for a tensor of a Meta checkpoint. Its rows are interleaved in the same way.
struct MetaName {
  std::string stored;
  std::string name;
  int64_t interleaved_heads = 0;
  int64_t cut_dimension = -1;  // that its shards are to be joined along; -1: each has all of it
};

// All tensors of a checkpoint by name, most of them in mapped files. Fill it, then share it: the
// const members may be called from many threads. Addresses of tensors never change.
class WeightStore {
 public:
  WeightStore() = default;
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  // Files of torch.save (.bin, .pt, .pth), GGUF files (.gguf) and safetensors files. ModelError for
  // a file that breaks its format and a name in two files.
  static std::shared_ptr<WeightStore> open(const std::vector<std::filesystem::path>& files);
  // A Hugging Face index (model.safetensors.index.json, pytorch_model.bin.index.json) and the
  // shards beside it. ModelError also for a shard that is missing and a tensor that is not where
  // the index says.
  static std::shared_ptr<WeightStore> open_index(const std::filesystem::path& index);

  // A GGUF file with some of its tensors under other names. ModelError also for a name that is not
  // in the file, and heads that do not divide the rows into pairs.
  static std::shared_ptr<WeightStore> open_gguf(const std::filesystem::path& file,
                                                const std::vector<GgufName>& names);

  // The shards of a Meta checkpoint (consolidated.00.pth, ..), all of `names` and nothing else;
  // what has to be joined is joined when it is read. ModelError also for a tensor that is missing,
  // or that differs between shards in what they should share.
  static std::shared_ptr<WeightStore> open_meta(const std::vector<std::filesystem::path>& shards,
                                                const std::vector<MetaName>& names);
  // A safetensors file, whatever its name ends with.
  static std::shared_ptr<WeightStore> open_safetensors(const std::filesystem::path& file);

  // For readers of other formats: a file to keep mapped, and tensors that lie in one (no owner) or
  // in memory (kept alive by the owner). ModelError when the name is taken or the size is wrong.
  const MappedFile& map(const std::filesystem::path& file);
  void add(std::string_view name, DType dtype, std::vector<int64_t> shape,
           std::shared_ptr<const void> owner, std::span<const std::byte> data,
           std::string_view file = "memory");

  // A tensor of which shape and type alone are known: its numbers are elsewhere, in another layout,
  // and `elsewhere`, if given, gets them. ModelError when the name is taken.
  void declare(std::string_view name, DType dtype, std::vector<int64_t> shape,
               std::string_view file, std::function<Numbers()> elsewhere = {});

  // Keeps another store as long as this one: what is declared here lies there.
  void keep(std::shared_ptr<const WeightStore> other) { merged_.push_back(std::move(other)); }

  // All tensors of another store, with `prefix` before their names.
  void merge(const std::shared_ptr<const WeightStore>& other, std::string_view prefix);

  const Tensor* find(std::string_view name) const;
  // ModelError with the names that come closest when there is no such tensor.
  const Tensor& at(std::string_view name) const;

  // Whether two tensors have the same type, shape and bytes; whether these are the same bytes of
  // the file, as those of tied tensors are.
  bool same(std::string_view name, std::string_view other) const;
  bool share(std::string_view name, std::string_view other) const;

  // In the order of the files and of the data in each.
  std::deque<Tensor>::const_iterator begin() const noexcept { return tensors_.begin(); }
  std::deque<Tensor>::const_iterator end() const noexcept { return tensors_.end(); }
  size_t size() const noexcept { return tensors_.size(); }

  // The files' __metadata__ as one map; the first file that has a key wins.
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  size_t bytes_mapped() const noexcept;
  // All of the mapped file that this address is in; empty when it is in none.
  std::span<const std::byte> mapping_of(const void* address) const noexcept;
  void prefetch() const noexcept;

 private:
  void add_file(const std::filesystem::path& file);
  void add_gguf(const std::filesystem::path& file, const std::vector<GgufName>& names);
  void add_torch(const std::filesystem::path& file);
  void add_safetensors(const std::filesystem::path& file);
  std::vector<std::string> nearest(std::string_view name) const;

  std::deque<MappedFile> files_;
  std::deque<Tensor> tensors_;
  std::deque<std::string> names_;
  std::vector<std::shared_ptr<const void>> owners_;
  std::vector<std::shared_ptr<const WeightStore>> merged_;
  // Ordered, not hashed: names come from files, and those can be made to collide.
  std::map<std::string_view, const Tensor*> by_name_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace trine
