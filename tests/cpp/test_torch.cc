// SPDX-License-Identifier: Apache-2.0
// Files of torch.save by hand. What torch itself wrote, and files that lie, are in tests/weights.
#include <cstring>

#include "check.h"
#include "weights/pickle.h"
#include "weights/store.h"
#include "weights/torch_file.h"
#include "weights/zip.h"

namespace trine::test {

using namespace std::string_literals;

template <class T>
static std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

// A stored archive. Checksums and dates are 0: nobody compares them.
static std::string zip_of(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string file, directory;
  for (const auto& [name, data] : entries) {
    const auto size = static_cast<uint32_t>(data.size());
    const std::string sizes = raw(size) + raw(size) + raw(static_cast<uint16_t>(name.size()));
    directory += "PK\1\2" + std::string(16, '\0') + sizes + std::string(12, '\0') +
                 raw(static_cast<uint32_t>(file.size())) + name;
    file += "PK\3\4" + std::string(14, '\0') + sizes + std::string(2, '\0') + name + data;
  }
  const auto count = static_cast<uint16_t>(entries.size());
  return file + directory + "PK\5\6\0\0\0\0"s + raw(count) + raw(count) +
         raw(static_cast<uint32_t>(directory.size())) + raw(static_cast<uint32_t>(file.size())) +
         raw(uint16_t{0});
}

static std::string text(std::string_view s) {
  return cat('X', raw(static_cast<uint32_t>(s.size())), s);
}

// Of six floats in storage KEY; size and stride are opcodes.
static std::string tensor(std::string_view key, std::string_view size, std::string_view stride,
                          char offset = 0) {
  return cat("ctorch._utils\n_rebuild_tensor_v2\n((", text("storage"), "ctorch\nFloatStorage\n",
             text(key), text("cpu"), "K\6tQ"s, 'K', offset, size, stride, "\x89Nt", 'R');
}

static std::string state_dict(const std::vector<std::pair<std::string, std::string>>& tensors) {
  std::string pickle = "\x80\2}(";
  for (const auto& [name, value] : tensors) pickle += text(name) + value;
  return pickle + "u.";
}

static const std::string kData = "abcdefghijklmnopqrstuvwx";  // six floats

static std::string torch_file(const std::string& pickle) {
  return zip_of({{"m/data.pkl", pickle}, {"m/byteorder", "little"}, {"m/data/0", kData}});
}

static std::span<const std::byte> bytes_of(std::string_view file) {
  return std::as_bytes(std::span(file));
}

static Pickle unpickle(std::string_view pickle) {
  static constexpr std::string_view kGlobals[] = {"a.f", "collections.OrderedDict"};
  return Pickle(bytes_of(pickle), "m.pt", kGlobals);
}

TEST(pickle_reads_values) {
  const std::string source =
      "\x80\4\x95\0\0\0\0\0\0\0\0(NK\xFFJ\xFE\xFF\xFF\xFFM\1\2\x8A\1\x80"
      "\x8A\0\x8A\x09\1\2\3\4\5\6\7\x08\x09\x88G01234567]\x94K\7ah\0t.rest"s;
  const Pickle pickle = unpickle(source);
  CHECK_EQ(pickle.size(), source.size() - 4);
  CHECK(pickle.root().kind == PickleKind::kTuple);
  const auto items = pickle.items(pickle.root());
  CHECK_EQ(items.size(), 11u);
  CHECK(items[0].kind == PickleKind::kNone);
  CHECK_EQ(items[1].number, 255);
  CHECK_EQ(items[2].number, -2);
  CHECK_EQ(items[3].number, 513);
  CHECK_EQ(items[4].number, -128);
  CHECK(items[5].kind == PickleKind::kInt && items[5].number == 0);
  CHECK(items[6].kind == PickleKind::kLong && items[6].text.size() == 9);
  CHECK(items[7].kind == PickleKind::kBool && items[7].number == 1);
  CHECK(items[8].kind == PickleKind::kFloat);
  CHECK(items[9].kind == PickleKind::kList && items[9].number == items[10].number);
  CHECK_EQ(pickle.items(items[10])[0].number, 7);
}

TEST(pickle_keeps_calls_as_data) {
  const Pickle pickle = unpickle("\x80\2ca\nf\nK\5\x85R}\x8C\1xNsb\x8C\1kK\6s.");
  const auto call = pickle.items(pickle.root());
  CHECK(pickle.root().kind == PickleKind::kCall);
  CHECK_EQ(call.size(), 4u);
  CHECK(call[0].kind == PickleKind::kGlobal && call[0].number == 0);
  CHECK_EQ(pickle.items(call[1])[0].number, 5);
  CHECK_EQ(call[2].text, "k");
  CHECK_EQ(call[3].number, 6);
}

TEST(pickle_names_what_it_refuses) {
  const auto refuses = [](std::string_view pickle, std::string_view part) {
    CHECK_THROWS_WITH(unpickle(pickle), ModelError, part);
  };
  refuses("\x80\2}(\x8C\1aK\1\x8C\1bcposix\nsystem\n", "m.pt: byte 12: global 'posix.system' is");
  refuses("\x80\2}(\x8C\1aK\1\x8C\1bcposix\nsystem\n", "is refused for key 'b'");
  refuses("\x80\2}\x8C\1acposix\nsystem\n", "for key 'a'");
  refuses("\x80\2ccollections\nOrderedDict\n)R(\x8C\1w(\x8C\7storagecx\ny\n", "for key 'w'");
  refuses("}(\x8C\1aK\1\x8C\1biposix\nsystem\n", "opcode INST is refused for key 'b'");
  refuses("Nq\7", "keeps a value under the number 7");
  refuses("", "byte 0: wants 1 bytes, 0 are left");
}

TEST(zip_lists_entries) {
  const std::string file = zip_of({{"m/a", "123"}, {"m/é", ""}, {"m/b", "4"}});
  const auto entries = parse_zip(bytes_of(file), "m.zip");
  CHECK_EQ(entries.size(), 3u);
  CHECK_EQ(entries[0].name, "m/a");
  CHECK_EQ(std::memcmp(entries[0].data.data(), "123", 3), 0);
  CHECK_EQ(entries[1].name, "m/é");
  CHECK_EQ(entries[1].data.size(), 0u);
  for (size_t size = 0; size < file.size(); ++size) {
    CHECK_THROWS_WITH(parse_zip(bytes_of(file).first(size), "m.zip"), ModelError, "m.zip: ");
  }
  CHECK_EQ(parse_zip(bytes_of(zip_of({})), "m.zip").size(), 0u);
}

TEST(torch_maps_what_lies_in_a_row) {
  const std::string file = torch_file(state_dict({{"w", tensor("0", "K\2K\3\x86", "K\3K\1\x86")},
                                                  {"tied", tensor("0", "K\6\x85", "K\1\x85")},
                                                  {"row", tensor("0", "K\3\x85", "K\1\x85", 3)},
                                                  {"t", tensor("0", "K\3K\2\x86", "K\1K\3\x86")},
                                                  {"none", tensor("0", "K\0\x85"s, "K\1\x85")}}));
  const auto tensors = parse_torch(bytes_of(file), "m.pt");
  CHECK_EQ(tensors.size(), 5u);
  const char* const data = file.data() + file.find(kData);
  for (const size_t i : {0, 1, 2}) {
    CHECK(tensors[i].owner == nullptr);
    CHECK(reinterpret_cast<const char*>(tensors[i].data.data()) == data + (i == 2 ? 12 : 0));
  }
  CHECK(tensors[0].shape == (std::vector<int64_t>{2, 3}) && tensors[0].dtype == DType::kF32);
  CHECK(tensors[3].owner != nullptr);
  CHECK_EQ(std::memcmp(tensors[3].data.data(), "abcdmnopefghqrstijkluvwx", 24), 0);
  CHECK_EQ(tensors[4].data.size(), 0u);
}

TEST(store_opens_torch_files) {
  const TempDir dir;
  const std::string w = tensor("0", "K\6\x85", "K\1\x85");
  const auto path = dir.write("a.bin", torch_file(state_dict({{"a", w}, {"n", "K\1"}})));
  dir.write("b.bin", torch_file(state_dict({{"b", w}, {"c", tensor("0", "K\1\x85", "K\1\x85")}})));
  const auto index = dir.write("pytorch_model.bin.index.json",
                               R"({"weight_map":{"a":"a.bin","b":"b.bin","c":"b.bin"}})");
  const auto store = WeightStore::open_index(index);
  CHECK_EQ(store->size(), 3u);
  CHECK_EQ(store->at("c").bytes, 4u);
  CHECK_EQ(WeightStore::open({path})->size(), 1u);
  dir.write("b.bin", torch_file(state_dict({{"b", tensor("1", "K\1\x85", "K\1\x85")}})));
  CHECK_THROWS_WITH(WeightStore::open_index(index), ModelError,
                    "b.bin: tensor 'b': its storage '1' is missing");
}

}  // namespace trine::test
