// SPDX-License-Identifier: Apache-2.0
#include "weights/store.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "weights/gguf.h"
#include "weights/safetensors.h"
#include "weights/torch_file.h"

namespace trine {

namespace {

// The largest published indices have a few megabytes.
constexpr size_t kMaxIndexBytes = size_t{64} << 20;

struct IndexRow {
  std::string tensor;
  std::string shard;
};

// A shard is a file beside its index. Anything else in the name could lead out of the folder.
bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\:\0", 4)) == name.npos;
}

std::vector<IndexRow> read_index(const MappedFile& file) {
  const auto bytes = file.bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  JsonReader reader(text, file.name(), {.max_bytes = kMaxIndexBytes});
  std::vector<IndexRow> rows;
  bool has_map = false;
  std::string key;
  for (reader.begin_object(); reader.next_key(key);) {
    if (key != "weight_map") {
      reader.skip();
      continue;
    }
    if (std::exchange(has_map, true)) reader.fail("weight_map comes twice");
    IndexRow row;
    for (reader.begin_object(); reader.next_key(row.tensor);) {
      reader.string(row.shard);
      if (!is_plain_file_name(row.shard)) {
        reader.fail(cat("shard ", quoted(row.shard), " is not the name of a file in this folder"));
      }
      rows.push_back(row);
    }
  }
  reader.finish();
  if (!has_map) throw ModelError(cat(file.name(), ": no weight_map"));
  std::sort(rows.begin(), rows.end(),
            [](const IndexRow& a, const IndexRow& b) { return a.tensor < b.tensor; });
  const auto twice =
      std::adjacent_find(rows.begin(), rows.end(),
                         [](const IndexRow& a, const IndexRow& b) { return a.tensor == b.tensor; });
  if (twice != rows.end()) {
    throw ModelError(cat(file.name(), ": tensor ", quoted(twice->tensor), ": comes twice"));
  }
  return rows;
}

// How much two names share at their ends: what is mistaken in a checkpoint's name is most often a
// prefix, a layer number or a last word. Linear, unlike an edit distance.
size_t likeness(std::string_view a, std::string_view b) {
  const size_t n = std::min(a.size(), b.size());
  const auto head = std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin());
  const auto front = static_cast<size_t>(head.first - a.begin());
  size_t back = 0;
  while (back < n - front && a[a.size() - 1 - back] == b[b.size() - 1 - back]) ++back;
  return front + back;
}

std::shared_ptr<std::byte> new_bytes(size_t count) {
  return {new std::byte[count], std::default_delete<std::byte[]>()};
}

// The pieces one after the other: all of each, or its part of every row.
std::shared_ptr<std::byte> join(const Tensor& tensor) {
  std::shared_ptr<std::byte> whole = new_bytes(tensor.bytes);
  size_t rows = 1;
  for (int64_t i = 0; i < tensor.cut_dimension; ++i)
    rows *= static_cast<size_t>(tensor.shape[static_cast<size_t>(i)]);
  const size_t part = tensor.bytes / rows / tensor.pieces.size();
  std::byte* to = whole.get();
  for (size_t row = 0; row < rows; ++row) {
    for (const std::byte* piece : tensor.pieces) {
      std::memcpy(to, piece + row * part, part);
      to += part;
    }
  }
  return whole;
}

}  // namespace

Numbers numbers_of(const Tensor& tensor) {
  if (tensor.elsewhere) return tensor.elsewhere();
  const bool moved = tensor.interleaved_heads != 0, joined = !tensor.pieces.empty();
  if ((!moved && !joined) || tensor.bytes == 0) return {tensor.data, tensor.dtype, nullptr};
  const std::shared_ptr<std::byte> whole = joined ? join(tensor) : nullptr;
  if (!moved) return {whole.get(), tensor.dtype, whole};
  const size_t heads = static_cast<size_t>(tensor.interleaved_heads);
  const size_t rows = static_cast<size_t>(tensor.shape[0]);
  const size_t row = tensor.bytes / rows, half = rows / heads / 2;
  const std::shared_ptr<std::byte> copy = new_bytes(tensor.bytes);
  const std::byte* from = joined ? whole.get() : tensor.data;
  for (size_t head = 0; head < heads; ++head) {
    std::byte* const first = copy.get() + head * 2 * half * row;
    for (size_t i = 0; i < half; ++i, from += 2 * row) {
      std::memcpy(first + i * row, from, row);
      std::memcpy(first + (half + i) * row, from + row, row);
    }
  }
  return {copy.get(), tensor.dtype, copy};
}

std::shared_ptr<WeightStore> WeightStore::open(const std::vector<std::filesystem::path>& files) {
  auto store = std::make_shared<WeightStore>();
  for (const std::filesystem::path& file : files) store->add_file(file);
  return store;
}

std::shared_ptr<WeightStore> WeightStore::open_index(const std::filesystem::path& index) {
  const MappedFile file(index);
  const std::vector<IndexRow> rows = read_index(file);
  std::map<std::string, std::filesystem::path> shards;
  for (const IndexRow& row : rows) {
    const auto [shard, is_new] = shards.try_emplace(row.shard);
    if (!is_new) continue;
    const std::u8string utf8(row.shard.begin(), row.shard.end());
    shard->second = index.parent_path() / std::filesystem::path(utf8);
    std::error_code ignored;
    if (!std::filesystem::exists(shard->second, ignored)) {
      throw ModelError(cat(file.name(), ": shard ", quoted(row.shard), " of tensor ",
                           quoted(row.tensor), " is missing"));
    }
  }
  auto store = std::make_shared<WeightStore>();
  for (const auto& [name, path] : shards) store->add_file(path);
  for (const IndexRow& row : rows) {
    const Tensor* tensor = store->find(row.tensor);
    if (tensor != nullptr && tensor->file == display_name(shards[row.shard])) continue;
    throw ModelError(cat(file.name(), ": tensor ", quoted(row.tensor), " is not in shard ",
                         quoted(row.shard), tensor ? cat(" but in ", tensor->file) : ""));
  }
  return store;
}

std::shared_ptr<WeightStore> WeightStore::open_gguf(const std::filesystem::path& file,
                                                    const std::vector<GgufName>& names) {
  auto store = std::make_shared<WeightStore>();
  store->add_gguf(file, names);
  return store;
}

std::shared_ptr<WeightStore> WeightStore::open_safetensors(const std::filesystem::path& file) {
  auto store = std::make_shared<WeightStore>();
  store->add_safetensors(file);
  return store;
}

const MappedFile& WeightStore::map(const std::filesystem::path& file) {
  return files_.emplace_back(file);
}

// By the name's ending: the first bytes of a zip archive could be those of a safetensors file.
void WeightStore::add_file(const std::filesystem::path& path) {
  const std::filesystem::path ending = path.extension();
  if (ending == ".bin" || ending == ".pt" || ending == ".pth") return add_torch(path);
  if (ending == ".gguf") return add_gguf(path, {});
  add_safetensors(path);
}

void WeightStore::add_gguf(const std::filesystem::path& path, const std::vector<GgufName>& names) {
  const MappedFile& file = map(path);
  std::map<std::string_view, const GgufName*> wanted;
  for (const GgufName& name : names) wanted.emplace(name.stored, &name);
  for (GgufEntry& entry : parse_gguf(file.bytes(), file.name()).tensors) {
    const auto found = wanted.find(entry.name);
    const GgufName* const name = found == wanted.end() ? nullptr : found->second;
    const int64_t heads = name == nullptr ? 0 : name->interleaved_heads;
    const int64_t rows = entry.shape.empty() ? 0 : entry.shape[0];
    if (heads != 0 && (heads < 0 || rows % heads != 0 || rows / heads % 2 != 0 ||
                       (entry.shape.size() == 1 && size_of(entry.dtype) == 0))) {
      throw ModelError(cat(file.name(), ": tensor ", quoted(entry.name), ": shape ", entry.shape,
                           " is not of ", heads, " heads with pairs of rows"));
    }
    add(name == nullptr ? std::string_view(entry.name) : std::string_view(name->name), entry.dtype,
        std::move(entry.shape), nullptr, entry.data, file.name());
    tensors_.back().interleaved_heads = heads;
    if (name != nullptr) wanted.erase(found);
  }
  if (!wanted.empty()) {
    throw ModelError(cat(file.name(), ": no tensor ", quoted(wanted.begin()->first)));
  }
}

void WeightStore::add_torch(const std::filesystem::path& path) {
  const MappedFile& file = map(path);
  for (TorchTensor& tensor : parse_torch(file.bytes(), file.name())) {
    add(tensor.name, tensor.dtype, std::move(tensor.shape), std::move(tensor.owner), tensor.data,
        file.name());
  }
}

void WeightStore::add_safetensors(const std::filesystem::path& path) {
  const MappedFile& file = map(path);
  Safetensors content = parse_safetensors(file.bytes(), file.name());
  for (SafetensorsEntry& entry : content.tensors) {
    add(entry.name, entry.dtype, std::move(entry.shape), nullptr, entry.data, file.name());
  }
  for (auto& [key, value] : content.metadata) metadata_.try_emplace(key, std::move(value));
}

void WeightStore::add(std::string_view name, DType dtype, std::vector<int64_t> shape,
                      std::shared_ptr<const void> owner, std::span<const std::byte> data,
                      std::string_view file) {
  const std::optional<uint64_t> bytes = checked_bytes(dtype, shape);
  if (bytes != data.size()) {
    throw ModelError(cat(file, ": tensor ", quoted(name), ": shape ", shape, " of ", name_of(dtype),
                         " does not fill its ", data.size(), " bytes"));
  }
  declare(name, dtype, std::move(shape), file);
  tensors_.back().data = data.data();
  tensors_.back().bytes = data.size();
  if (owner != nullptr) owners_.push_back(std::move(owner));
}

void WeightStore::declare(std::string_view name, DType dtype, std::vector<int64_t> shape,
                          std::string_view file, std::function<Numbers()> elsewhere) {
  if (const Tensor* other = find(name)) {
    throw ModelError(cat(file, ": tensor ", quoted(name), ": is also in ", other->file));
  }
  // Tensors of one file come in a row, so its name is kept once.
  const bool same_file = !tensors_.empty() && tensors_.back().file == file;
  file = same_file ? tensors_.back().file : std::string_view(names_.emplace_back(file));
  name = names_.emplace_back(name);
  tensors_.push_back(
      {name, dtype, std::move(shape), nullptr, 0, file, 0, {}, 0, std::move(elsewhere)});
  by_name_.emplace(name, &tensors_.back());
}

const Tensor* WeightStore::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

const Tensor& WeightStore::at(std::string_view name) const {
  if (const Tensor* tensor = find(name)) return *tensor;
  const std::vector<std::string> near = nearest(name);
  const std::string files = files_.empty() ? "" : cat(files_.front().name(), ": ");
  throw ModelError(cat(files, "no tensor ", quoted(name), " among ", size(),
                       near.empty() ? "" : "; the nearest names are ", near));
}

std::vector<std::string> WeightStore::nearest(std::string_view name) const {
  constexpr size_t kShown = 3;
  std::vector<std::pair<size_t, std::string_view>> ranked;
  for (const auto& [candidate, tensor] : by_name_) {
    // Unlike bytes count against a candidate: "a.b" is nearer to "a.c" than "a.long.b" is.
    const size_t unlike = name.size() + candidate.size() - 2 * likeness(name, candidate);
    ranked.emplace_back(unlike, candidate);
  }
  const size_t count = std::min(kShown, ranked.size());
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(count),
                    ranked.end());
  std::vector<std::string> names;
  names.reserve(count);
  for (size_t i = 0; i < count; ++i) names.push_back(quoted(ranked[i].second));
  return names;
}

void WeightStore::merge(const std::shared_ptr<const WeightStore>& other, std::string_view prefix) {
  for (const Tensor& t : *other) {
    add(cat(prefix, t.name), t.dtype, t.shape, nullptr, {t.data, t.bytes}, t.file);
    Tensor& added = tensors_.back();
    added.interleaved_heads = t.interleaved_heads;
    added.pieces = t.pieces;
    added.cut_dimension = t.cut_dimension;
  }
  merged_.push_back(other);
}

bool WeightStore::same(std::string_view name, std::string_view other) const {
  const Tensor &a = at(name), &b = at(other);
  if (a.dtype != b.dtype || a.shape != b.shape) return false;
  return a.bytes == 0 || std::memcmp(numbers_of(a).data, numbers_of(b).data, a.bytes) == 0;
}

bool WeightStore::share(std::string_view name, std::string_view other) const {
  const Tensor &a = at(name), &b = at(other);
  return a.bytes == b.bytes && a.data == b.data && a.pieces == b.pieces &&
         a.cut_dimension == b.cut_dimension;
}

size_t WeightStore::bytes_mapped() const noexcept {
  size_t bytes = 0;
  for (const auto& other : merged_) bytes += other->bytes_mapped();
  for (const MappedFile& file : files_) bytes += file.bytes().size();
  return bytes;
}

std::span<const std::byte> WeightStore::mapping_of(const void* address) const noexcept {
  const auto* const at = static_cast<const std::byte*>(address);
  for (const MappedFile& file : files_) {
    const std::span<const std::byte> bytes = file.bytes();
    if (at >= bytes.data() && at < bytes.data() + bytes.size()) return bytes;
  }
  for (const auto& other : merged_) {
    if (const auto bytes = other->mapping_of(address); !bytes.empty()) return bytes;
  }
  return {};
}

void WeightStore::prefetch() const noexcept {
  for (const MappedFile& file : files_) file.prefetch();
  for (const auto& other : merged_) other->prefetch();
}

}  // namespace trine
