// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>

#include "check.h"
#include "weights/store.h"

namespace trine::test {

// A file of U8 tensors, each holding its own name.
static std::string file_of(const std::vector<std::string>& names,
                           std::string_view metadata = "{}") {
  std::string header = cat(R"({"__metadata__":)", metadata), data;
  for (const std::string& name : names) {
    header += cat(",\"", name, R"(":{"dtype":"U8","shape":[)", name.size(), R"(],"data_offsets":[)",
                  data.size(), ",", data.size() + name.size(), "]}");
    data += name;
  }
  header += '}';
  const uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file + header + data;
}

static std::string_view text_of(const Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.data), tensor.bytes};
}

TEST(store_opens_files) {
  const TempDir dir;
  const auto one = dir.write("1.safetensors", file_of({"b", "a"}, R"({"format":"pt","x":"1"})"));
  const auto two = dir.write("2.safetensors", file_of({"c"}, R"({"format":"np","y":"2"})"));
  const auto store = WeightStore::open({one, two});
  std::string order;
  for (const Tensor& tensor : *store) {
    order += tensor.name;
    CHECK_EQ(text_of(tensor), tensor.name);
    CHECK(tensor.is_aligned());
  }
  CHECK_EQ(order, "bac");
  CHECK_EQ(store->size(), 3u);
  CHECK_EQ(store->at("c").file, display_name(two));
  CHECK(store->find("d") == nullptr);
  CHECK_EQ(store->metadata().at("format"), "pt");
  CHECK_EQ(store->metadata().size(), 3u);
  CHECK_EQ(store->bytes_mapped(),
           std::filesystem::file_size(one) + std::filesystem::file_size(two));
  store->prefetch();
  CHECK_THROWS_WITH(WeightStore::open({one, two, one}), ModelError, "tensor 'b': is also in ");
  CHECK_EQ(WeightStore::open({})->size(), 0u);
}

TEST(store_names_the_nearest) {
  WeightStore store;
  for (const char* name : {"encoder.layer.0.attention.self.query_proj.weight",
                           "encoder.layer.0.attention.self.query_proj.bias",
                           "encoder.layer.1.attention.self.query_proj.weight", "embeddings.weight",
                           "pooler.dense.bias"}) {
    store.add(name, DType::kF32, {0}, nullptr, {}, "m.safetensors");
  }
  CHECK_THROWS_WITH(store.at("deberta.encoder.layer.0.attention.self.query_proj.weight"),
                    ModelError, "['encoder.layer.0.attention.self.query_proj.weight', ");
  CHECK_THROWS_WITH(store.at("embedding.weight"), ModelError,
                    "no tensor 'embedding.weight' among 5; the nearest names are "
                    "['embeddings.weight', ");
  CHECK_THROWS_WITH(WeightStore().at("x"), ModelError, "no tensor 'x' among 0");
}

TEST(store_holds_memory) {
  WeightStore store;
  auto values = std::make_shared<std::array<float, 6>>();
  const std::weak_ptr<std::array<float, 6>> watch = values;
  const auto bytes = std::as_bytes(std::span(*values));
  store.add("w", DType::kF32, {2, 3}, values, bytes, "checkpoint.bin");
  CHECK_THROWS_WITH(store.add("w", DType::kF32, {6}, values, bytes, "other.bin"), ModelError,
                    "other.bin: tensor 'w': is also in checkpoint.bin");
  CHECK_THROWS_WITH(store.add("v", DType::kF32, {7}, values, bytes), ModelError,
                    "memory: tensor 'v': shape [7] of F32 does not fill its 24 bytes");
  CHECK_THROWS_WITH(store.add("v", DType::kF32, {-6}, values, bytes), ModelError, "does not fill");
  values.reset();
  CHECK(!watch.expired());
  CHECK(store.at("w").data == bytes.data());
  CHECK_EQ(store.bytes_mapped(), 0u);
}

TEST(store_addresses_stay) {
  WeightStore store;
  store.add("first", DType::kU8, {0}, nullptr, {});
  const Tensor* first = store.find("first");
  for (int i = 0; i < 1000; ++i) store.add(cat("tensor", i), DType::kU8, {0}, nullptr, {});
  CHECK(store.find("first") == first);
  CHECK_EQ(first->name, "first");
  CHECK_EQ(first->file, "memory");
}

TEST(store_reports_unaligned_data) {
  const TempDir dir;
  const std::string header = R"({"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  const auto store = WeightStore::open({dir.write("odd.safetensors", file + header + "12345")});
  CHECK(store->at("u").is_aligned());
  const bool is_multiple = (8 + header.size() + 1) % 4 == 0;
  CHECK_EQ(store->at("f").is_aligned(), is_multiple);
  CHECK_EQ(text_of(store->at("f")), "2345");
}

// A folder with shards "1.st" (a, b) and "2.st" (c) and this weight_map.
static void open_index(std::string_view weight_map) {
  const TempDir dir;
  dir.write("1.st", file_of({"a", "b"}));
  dir.write("2.st", file_of({"c"}));
  dir.write("also_c.st", file_of({"c", "d"}));
  const auto index =
      dir.write("i.json", cat(R"({"metadata":{"total_size":3},"weight_map":)", weight_map, "}"));
  const auto store = WeightStore::open_index(index);
  CHECK_EQ(text_of(store->at("a")), "a");
  CHECK_EQ(text_of(store->at("c")), "c");
  CHECK_EQ(store->size(), 3u);
}

TEST(store_index) {
  open_index(R"({"c":"2.st","a":"1.st","b":"1.st"})");
  open_index(R"({"c":"2.st","a":"1.st"})");  // a tensor that the index forgot is there all the same
}

TEST(store_merges_under_a_prefix) {
  const std::vector<float> data{1, 2};
  const auto part = std::make_shared<WeightStore>();
  part->add("linear.weight", DType::kF32, {2}, nullptr, std::as_bytes(std::span(data)));
  WeightStore all;
  all.merge(part, "2_Dense.");
  CHECK_EQ(all.at("2_Dense.linear.weight").data, reinterpret_cast<const std::byte*>(data.data()));
  CHECK(all.find("linear.weight") == nullptr);
  CHECK_THROWS_WITH(all.merge(part, "2_Dense."), ModelError, "is also in");
}

TEST(store_refuses_index) {
  const auto refuses = [](std::string_view weight_map, std::string_view part) {
    CHECK_THROWS_WITH(open_index(weight_map), ModelError, part);
  };
  refuses(R"({"a":"1.st","c":"3.st"})", "i.json: shard '3.st' of tensor 'c' is missing");
  refuses(R"({"a":"1.st","x":"2.st"})", "i.json: tensor 'x' is not in shard '2.st'");
  refuses(R"({"a":"2.st","b":"1.st"})", "tensor 'a' is not in shard '2.st' but in ");
  refuses(R"({"c":"2.st","d":"also_c.st"})", "tensor 'c': is also in ");
  refuses(R"({"a":"1.st","a":"1.st"})", "tensor 'a': comes twice");
  refuses(R"({"a":1})", "expected a string in 'weight_map'.'a'");
  refuses(R"(["a"])", "expected an object in 'weight_map'");
  refuses(R"({},"weight_map":{})", "weight_map comes twice");
  for (const char* shard : {"../1.st", "/etc/passwd", "sub/1.st", "..", ".", "", "C:1.st",
                            R"(..\\1.st)", R"(1.st\u0000)"}) {
    refuses(cat(R"({"a":")", shard, R"("})"), "is not the name of a file in this folder");
  }
  const TempDir dir;
  CHECK_THROWS_WITH(WeightStore::open_index(dir.write("i.json", "{}")), ModelError,
                    "no weight_map");
  CHECK_THROWS_WITH(WeightStore::open_index(dir.write("i.json", "{")), ModelError,
                    "i.json: expected");
}

}  // namespace trine::test
