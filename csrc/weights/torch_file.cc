// SPDX-License-Identifier: Apache-2.0
#include "weights/torch_file.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "weights/torch_objects.h"
#include "weights/zip.h"

namespace trine {

namespace {

using Bytes = std::span<const std::byte>;

// The first pickle of the old format, as the bytes of a long, and the second.
constexpr std::string_view kMagic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
constexpr int64_t kProtocol = 1001;

class TorchFile {
 public:
  TorchFile(Bytes file, const std::string& file_name) : file_(file), file_name_(file_name) {}

  std::vector<TorchTensor> read() {
    const std::string_view text = as_text(file_);
    if (text.starts_with("version https://git-lfs")) {
      fail("is a Git LFS pointer, not the file that it points to");
    }
    if (text.starts_with("PK")) return read_zip();
    if (!text.starts_with('\x80')) {
      fail("is neither a zip archive nor a pickle; not a file of torch.save?");
    }
    return read_legacy();
  }

 private:
  template <class... A>
  [[noreturn]] void fail(const A&... what) const {
    throw ModelError(cat(file_name_, ": ", what...));
  }

  // archive/data.pkl is the object, archive/data/KEY a storage; the folder's name is any.
  std::vector<TorchTensor> read_zip() {
    const std::vector<ZipEntry> entries = parse_zip(file_, file_name_);
    const auto object = std::find_if(entries.begin(), entries.end(), [](const ZipEntry& entry) {
      return entry.name.find('/') == entry.name.size() - std::string_view("/data.pkl").size() &&
             entry.name.ends_with("/data.pkl");
    });
    if (object == entries.end()) fail("zip archive without data.pkl; not a file of torch.save?");
    const std::string_view folder = object->name.substr(0, object->name.find('/') + 1);
    const bool is_script = std::any_of(entries.begin(), entries.end(), [](const ZipEntry& entry) {
      return entry.name.ends_with("/constants.pkl");
    });
    if (is_script) fail("is a TorchScript archive; save its state_dict() instead");
    for (const ZipEntry& entry : entries) {
      if (!entry.name.starts_with(folder)) {
        fail("entry ", quoted(entry.name), " is not in the folder ", quoted(folder));
      }
      const std::string_view name = entry.name.substr(folder.size());
      if (entry.method != 0) {
        fail("entry ", quoted(entry.name), " is compressed (method ", entry.method,
             "); torch.save stores, and only that can be mapped");
      }
      if (name == "byteorder" && as_text(entry.data) != "little") {
        fail("entry ", quoted(entry.name), " does not say 'little'; no other byte order is read");
      }
      if (name.starts_with("data/")) storages_.emplace(name.substr(5), entry.data);
    }
    const Pickle pickle(object->data, cat(file_name_, ": ", quoted(object->name)), torch_globals());
    return read_state_dict(pickle, storages_, file_name_);
  }

  // Pickles of a magic number, the protocol, facts about the machine, the object and the keys of
  // its storages; then, in the order of the keys, the storages.
  std::vector<TorchTensor> read_legacy() {
    const Pickle magic = next_pickle();
    if (magic.root().kind != PickleKind::kLong || magic.root().text != kMagic) {
      fail("is a pickle, but not one of torch.save");
    }
    const Pickle protocol = next_pickle();
    if (protocol.root().kind != PickleKind::kInt || protocol.root().number != kProtocol) {
      fail("is of another protocol of torch.save than ", kProtocol);
    }
    check_machine(next_pickle());
    const Pickle pickle = next_pickle();
    std::map<std::string_view, DType> dtypes;
    for (const PickleValue& value : pickle.persistent()) {
      const TorchStorage storage = read_torch_storage(pickle, value, file_name_);
      dtypes.emplace(storage.key, storage.dtype);
    }
    const Pickle keys = next_pickle();
    for (const PickleValue& key : keys.items(keys.root())) {
      const auto dtype = dtypes.find(key.text);
      if (dtype == dtypes.end()) fail("storage ", quoted(key.text), " belongs to no tensor");
      const Bytes bytes = next_storage(dtype->first, dtype->second);
      if (!storages_.emplace(dtype->first, bytes).second) {
        fail("storage ", quoted(key.text), " comes twice");
      }
    }
    return read_state_dict(pickle, storages_, file_name_);
  }

  Pickle next_pickle() {
    Pickle pickle(file_.subspan(pos_), cat(file_name_, ": pickle at byte ", pos_), torch_globals());
    pos_ += pickle.size();
    return pickle;
  }

  void check_machine(const Pickle& pickle) const {
    const auto facts = pickle.items(pickle.root());
    for (size_t i = 0; i + 1 < facts.size(); i += 2) {
      if (facts[i].text == "little_endian" && facts[i + 1].kind == PickleKind::kBool) {
        if (facts[i + 1].number != 0) return;
      }
    }
    fail("does not say that it was written on a little-endian machine; no other is read");
  }

  Bytes next_storage(std::string_view key, DType dtype) {
    const size_t left = file_.size() - pos_;
    if (left < sizeof(uint64_t)) fail("storage ", quoted(key), " is missing; truncated?");
    const auto count = load_le<uint64_t>(file_, pos_);
    if (count > (left - sizeof count) / size_of(dtype)) {
      fail("storage ", quoted(key), " of ", count, " elements of ", name_of(dtype),
           " reaches past the end; truncated?");
    }
    const size_t bytes = static_cast<size_t>(count) * size_of(dtype);
    pos_ += sizeof count + bytes;
    return file_.subspan(pos_ - bytes, bytes);
  }

  Bytes file_;
  const std::string& file_name_;
  size_t pos_ = 0;
  std::map<std::string_view, Bytes> storages_;
};

}  // namespace

std::vector<TorchTensor> parse_torch(std::span<const std::byte> file,
                                     const std::string& file_name) {
  return TorchFile(file, file_name).read();
}

}  // namespace trine
