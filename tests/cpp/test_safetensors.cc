// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "check.h"
#include "weights/safetensors.h"

namespace trine::test {

static std::string file_of(std::string_view header, std::string_view data = "") {
  const uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file.append(header).append(data);
}

static Safetensors parse(std::string_view file) {
  return parse_safetensors(std::as_bytes(std::span(file)), "m.safetensors");
}

static void refuses(std::string_view file, std::string_view part) {
  CHECK_THROWS_WITH(parse(file), ModelError, "m.safetensors: ");
  CHECK_THROWS_WITH(parse(file), ModelError, part);
}

// One tensor "w" with these fields over eight bytes of data.
static void refuses_fields(std::string_view fields, std::string_view part) {
  refuses(file_of(cat(R"({"w":{)", fields, "}}"), "12345678"), part);
}

TEST(safetensors_reads) {
  const std::string file =
      file_of(R"({"__metadata__":{"format":"pt","é":""},)"
              R"("b":{"dtype":"F32","shape":[2,1],"data_offsets":[3,11],"extra":[{}]},)"
              R"("none":{"data_offsets":[11,11],"shape":[0,5],"dtype":"I64"},)"
              R"("a\n":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
              R"("scalar":{"dtype":"BOOL","shape":[],"data_offsets":[11,12]}}   )",
              "abc12345678x");
  const Safetensors content = parse(file);
  CHECK_EQ(content.metadata.size(), 2u);
  CHECK(content.metadata[0] == (std::pair<std::string, std::string>("format", "pt")));
  CHECK_EQ(content.tensors.size(), 4u);
  CHECK_EQ(content.tensors[0].name, "a\n");
  const SafetensorsEntry& b = content.tensors[1];
  CHECK_EQ(b.name, "b");
  CHECK(b.dtype == DType::kF32 && b.shape == (std::vector<int64_t>{2, 1}));
  CHECK_EQ(std::memcmp(b.data.data(), "12345678", 8), 0);
  CHECK_EQ(content.tensors[2].name, "none");
  CHECK_EQ(content.tensors[2].data.size(), 0u);
  CHECK_EQ(content.tensors[3].name, "scalar");
  CHECK_EQ(content.tensors[3].data.size(), 1u);
}

TEST(safetensors_without_tensors) {
  CHECK_EQ(parse(file_of("{}")).tensors.size(), 0u);
  CHECK_EQ(parse(file_of(R"({"__metadata__":{}}  )")).metadata.size(), 0u);
}

TEST(safetensors_refuses_header) {
  refuses("1234567", "has 7 bytes, too few for a header");
  refuses(std::string("\0\0\0\0\0\0\0\x80", 8), "header of 9223372036854775808 bytes, the limit");
  refuses(std::string(8, '\xFF') + "{}", "header of 18446744073709551615 bytes, the limit");
  refuses(std::string("\x03\0\0\0\0\0\0\0{}", 10), "header of 3 bytes in a file of 10; truncated?");
  refuses(file_of(""), "does not start with '{'");
  refuses(file_of(" {}"), "does not start with '{'");
  refuses(file_of("[]"), "does not start with '{'");
  refuses(file_of("{}x"), "text after the end");
  refuses(file_of("{} \xFF"), "text after the end");
  refuses(file_of("{"), "expected a key in double quotes");
  refuses(file_of("{\"\xFF\":1}"), "invalid UTF-8");
  refuses(file_of(R"({"w":1})"), "expected an object in 'w'");
  refuses("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer");
}

TEST(safetensors_refuses_metadata) {
  refuses(file_of(R"({"__metadata__":null})"), "expected an object in '__metadata__'");
  refuses(file_of(R"({"__metadata__":{"a":1}})"), "expected a string in '__metadata__'.'a'");
  refuses(file_of(R"({"__metadata__":{"a":{"b":"c"}}})"), "expected a string");
  refuses(file_of(R"({"__metadata__":{"a":"1","a":"1"}})"), "key 'a' of __metadata__ comes twice");
  refuses(file_of(R"({"__metadata__":{},"__metadata__":{}})"), "__metadata__ comes twice");
}

TEST(safetensors_refuses_fields) {
  const std::string dtype = R"("dtype":"F32")", shape = R"("shape":[2])";
  const std::string offsets = R"("data_offsets":[0,8])";
  refuses_fields(cat(shape, ",", offsets), "tensor 'w': no dtype");
  refuses_fields(cat(dtype, ",", offsets), "tensor 'w': no shape");
  refuses_fields(cat(dtype, ",", shape), "tensor 'w': no data_offsets");
  refuses_fields(cat(dtype, ",", shape, ",", offsets, ",", dtype), "tensor 'w': dtype comes twice");
  refuses_fields(cat(dtype, ",", shape, ",", offsets, ",", shape), "shape comes twice");
  refuses_fields(cat(dtype, ",", shape, ",", offsets, ",", offsets), "data_offsets comes twice");
  refuses_fields(R"("dtype":"F99")", "tensor 'w': unknown dtype 'F99'");
  refuses_fields(R"("dtype":4)", "expected a string in 'w'.'dtype'");
  refuses_fields(R"("shape":[-2])", "expected an integer from 0 to 2^64 - 1 in 'w'.'shape'[0]");
  refuses_fields(R"("shape":[2.0])", "in 'w'.'shape'[0]");
  refuses_fields(R"("shape":[9223372036854775808])", "dimension 9223372036854775808 is out");
  refuses_fields(R"("shape":2)", "expected an array in 'w'.'shape'");
  refuses_fields(R"("data_offsets":[0])", "data_offsets must be two numbers");
  refuses_fields(R"("data_offsets":[0,4,8])", "data_offsets must be two numbers");
  refuses_fields(R"("data_offsets":[0,18446744073709551616])", "in 'w'.'data_offsets'[1]");
}

static std::string tensor(std::string_view name, std::string_view dtype, std::string_view shape,
                          std::string_view offsets) {
  return cat("\"", name, R"(":{"dtype":")", dtype, R"(","shape":[)", shape, R"(],"data_offsets":[)",
             offsets, "]}");
}

TEST(safetensors_refuses_sizes) {
  const auto one = [](std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return file_of(cat("{", tensor("w", dtype, shape, offsets), "}"), "12345678");
  };
  CHECK_EQ(parse(one("F32", "2", "0,8")).tensors.size(), 1u);
  refuses(one("F32", "3", "0,8"),
          "tensor 'w': shape [3] of F32 needs 12 bytes, data_offsets give 8");
  refuses(one("F64", "2", "0,8"), "needs 16 bytes");
  refuses(one("F32", "2", "8,0"), "tensor 'w': data_offsets [8, 0] end before they begin");
  refuses(one("F32", "4", "0,16"), "tensor 'w': its data ends at byte 16 of 8; truncated file?");
  refuses(one("U8", "18446744073709551615", "0,8"), "out of range");
  refuses(one("F32", "4611686018427387906", "0,8"), "shape [4611686018427387906] of F32 is no");
  refuses(one("U8", "4294967296,4294967296,8", "0,8"), "is no whole number of bytes");
  refuses(one("U8", "4294967296,4294967296,0", "0,0"), "is no whole number of bytes");
  refuses(one("F4", "15", "0,8"), "is no whole number of bytes");
  refuses(one("F32", "1", "4,8"), "tensor 'w': a hole of 4 bytes before its data");
  refuses(one("F32", "1", "0,4"), "4 bytes after the data of the last tensor, 'w'");
  refuses(file_of("{}", "x"), "1 bytes after the data of the last tensor");
  refuses(one("U8", "18446744073709551608", "8,18446744073709551615"), "tensor 'w'");
}

TEST(safetensors_refuses_layout) {
  const auto two = [](std::string_view a, std::string_view b) {
    return file_of(cat("{", a, ",", b, "}"), "12345678");
  };
  refuses(two(tensor("a", "U8", "5", "0,5"), tensor("b", "U8", "5", "3,8")),
          "tensor 'b': its data overlaps that of 'a'");
  refuses(two(tensor("a", "U8", "8", "0,8"), tensor("b", "U8", "8", "0,8")), "overlaps");
  refuses(two(tensor("a", "U8", "8", "0,8"), tensor("b", "U8", "0", "3,3")), "overlaps");
  refuses(two(tensor("a", "U8", "2", "0,2"), tensor("b", "U8", "5", "3,8")),
          "tensor 'b': a hole of 1 bytes before its data");
  refuses(two(tensor("a", "U8", "4", "0,4"), tensor("a", "U8", "4", "4,8")),
          "tensor 'a': comes twice");
  CHECK_EQ(parse(two(tensor("b", "U8", "5", "3,8"), tensor("a", "U8", "3", "0,3"))).tensors.size(),
           2u);
}

// Every prefix of a good file and every change of one byte in its header ends in a result or in a
// ModelError, never in anything else.
TEST(safetensors_damage) {
  const std::string good =
      file_of(cat(R"({"__metadata__":{"a":"b"},)", tensor("x", "F16", "2", "0,4"), ",",
                  tensor("y", "U8", "2,2", "4,8"), "}"),
              "12345678");
  const auto survives = [](std::string_view file) {
    try {
      parse(file);
    } catch (const ModelError&) {
      return;
    }
  };
  for (size_t n = 0; n < good.size(); ++n)
    CHECK_THROWS_WITH(parse(good.substr(0, n)), ModelError, "");
  for (size_t i = 0; i + 8 < good.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string bad = good;
      bad[i] = static_cast<char>(value);
      survives(bad);
    }
  }
}

}  // namespace trine::test
