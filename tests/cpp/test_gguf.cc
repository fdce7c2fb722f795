// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "base/bytes.h"
#include "check.h"
#include "cpu/ops.h"
#include "cpu/thread_pool.h"
#include "weights/convert.h"
#include "weights/gguf.h"
#include "weights/store.h"

namespace trine::test {

template <class T>
static std::string le(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

static std::string text(std::string_view s) { return le<uint64_t>(s.size()).append(s); }

static std::string key(std::string_view name, GgufType type, const std::string& value) {
  return text(name) + le(static_cast<uint32_t>(type)) + value;
}

static std::string array(GgufType type, uint64_t count, const std::string& items) {
  return le(static_cast<uint32_t>(type)) + le(count) + items;
}

// Dimensions as the file has them: innermost first.
static std::string tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                          uint64_t offset) {
  std::string out = text(name) + le(static_cast<uint32_t>(dims.size()));
  for (uint64_t d : dims) out += le(d);
  return out + le(type) + le(offset);
}

struct Pieces {
  std::vector<std::string> keys = {}, tensors = {};
  std::string data = {};
  size_t alignment = 32;
  uint32_t version = 3;
};

static std::string file_of(const Pieces& p) {
  std::string out =
      "GGUF" + le(p.version) + le<uint64_t>(p.tensors.size()) + le<uint64_t>(p.keys.size());
  for (const auto& k : p.keys) out += k;
  for (const auto& t : p.tensors) out += t;
  out.resize((out.size() + p.alignment - 1) / p.alignment * p.alignment);
  return out + p.data;
}

static Gguf parse(std::string_view file) {
  static const std::string name = "m.gguf";
  return parse_gguf(std::as_bytes(std::span(file)), name);
}

static void refuses(std::string_view file, std::string_view part) {
  CHECK_THROWS_WITH(parse(file), ModelError, "m.gguf: ");
  CHECK_THROWS_WITH(parse(file), ModelError, part);
}

static std::string good() {
  return file_of({{key("a", GgufType::kString, text("hé")),
                   key("general.alignment", GgufType::kU32, le<uint32_t>(64)),
                   key("list", GgufType::kArray,
                       array(GgufType::kString, 3, text("x") + text("") + text("zz"))),
                   key("nested", GgufType::kArray,
                       array(GgufType::kArray, 2,
                             array(GgufType::kI16, 2, le<int16_t>(-1) + le<int16_t>(7)) +
                                 array(GgufType::kBool, 1, std::string(1, '\1')))),
                   key("f", GgufType::kF64, le(0.5))},
                  {tensor("w", {3, 2}, 0, 0), tensor("empty", {0, 5}, 1, 64),
                   tensor("q", {64, 1}, 8, 64), tensor("scalar", {}, 0, 192)},
                  std::string(196, '\3'),
                  64});
}

TEST(gguf_reads) {
  const std::string file = good();
  const Gguf content = parse(file);
  CHECK_EQ(content.metadata.size(), 5u);
  CHECK_EQ(content.metadata[0].name, "a");
  CHECK_EQ(as_text(content.metadata[0].value.bytes), "hé");
  GgufItems list(content.metadata[2].value);
  CHECK_EQ(list.left(), 3u);
  CHECK_EQ(as_text(list.next().bytes), "x");
  CHECK_EQ(as_text(list.next().bytes), "");
  CHECK_EQ(as_text(list.next().bytes), "zz");
  CHECK_EQ(list.left(), 0u);
  GgufItems nested(content.metadata[3].value);
  GgufItems shorts(nested.next());
  CHECK_EQ(load_le<int16_t>(shorts.next().bytes, 0), -1);
  CHECK_EQ(load_le<int16_t>(shorts.next().bytes, 0), 7);
  GgufItems bools(nested.next());
  CHECK_EQ(load_le<uint8_t>(bools.next().bytes, 0), 1);
  CHECK_EQ(load_le<double>(content.metadata[4].value.bytes, 0), 0.5);

  CHECK_EQ(content.tensors.size(), 4u);
  const GgufEntry& w = content.tensors[0];
  CHECK(w.name == "w" && w.dtype == DType::kF32 && w.shape == (std::vector<int64_t>{2, 3}));
  CHECK_EQ(w.data.size(), 24u);
  CHECK_EQ(w.data.data() - std::as_bytes(std::span(file)).data(), ptrdiff_t(file.size() - 196));
  CHECK_EQ(content.tensors[1].data.size(), 0u);
  CHECK(content.tensors[2].dtype == DType::kQ8_0 && content.tensors[2].data.size() == 68);
  CHECK_EQ(content.tensors[3].shape.size(), 0u);
  std::string two = file;
  two[4] = 2;
  CHECK_EQ(parse(two).tensors.size(), 4u);
  CHECK_EQ(parse(file_of({})).tensors.size(), 0u);
}

TEST(gguf_refuses_header) {
  refuses("GGU", "does not start with 'GGUF'");
  refuses("GGUF", "has 4 bytes, too few for a header");
  refuses("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer");
  refuses(file_of({.version = 1}), "is of version 1 of the format; 2 and 3 are read");
  refuses(file_of({.version = 4}), "is of version 4");
  refuses(file_of({.version = 0x03000000}), "is big-endian");
  const auto counts = [](uint64_t tensors, uint64_t keys) {
    return "GGUF" + le<uint32_t>(3) + le(tensors) + le(keys);
  };
  refuses(counts(0, UINT64_MAX), "18446744073709551615 keys in a file of 24 bytes");
  refuses(counts(UINT64_MAX, 0), "18446744073709551615 tensors in a file of 24 bytes");
  refuses(counts(1, 0), "1 tensors in a file of 24 bytes");
}

static void refuses_key(const std::string& one, std::string_view part) {
  refuses(file_of({.keys = {one, std::string(64, '\0')}}), part);
}

TEST(gguf_refuses_metadata) {
  refuses_key(le<uint64_t>(UINT64_MAX), "key 0 of 2: a string of 18446744073709551615 bytes");
  refuses_key(key("k", GgufType::kString, le(uint64_t{1} << 40)), "key 'k': a string of");
  refuses_key(text("\xFF"), "the name is not UTF-8");
  refuses_key(key("k", static_cast<GgufType>(13), ""), "key 'k': unknown type 13");
  refuses_key(key("k", GgufType::kBool, "\2"), "key 'k': 2 is neither true nor false");
  const auto list = [](GgufType type, uint64_t count) {
    return key("k", GgufType::kArray, array(type, count, ""));
  };
  refuses_key(list(GgufType::kF64, uint64_t{1} << 61), "key 'k': an array of 2305843009213693952");
  refuses_key(list(GgufType::kString, UINT64_MAX), "key 'k': an array of 18446744073709551615");
  refuses_key(list(GgufType::kArray, 1000), "key 'k': an array of 1000 items");
  refuses_key(list(static_cast<GgufType>(99), 1), "key 'k': unknown type 99");
  refuses_key(
      key("k", GgufType::kArray, array(GgufType::kString, 2, text("a") + le(uint64_t{1} << 20))),
      "item 1 of key 'k': a string of 1048576 bytes");
  std::string deep;
  for (int i = 0; i < 9; ++i) deep += array(GgufType::kArray, 1, "");
  refuses_key(key("k", GgufType::kArray, deep), "key 'k': arrays nested deeper than 8");
  refuses(file_of({.keys = {key("k", GgufType::kU8, "1"), key("k", GgufType::kU8, "2")}}),
          "key 'k': comes twice");
  for (uint32_t bad : {0u, 3u, 33u, 0xFFFFFFFFu}) {
    refuses(file_of({.keys = {key("general.alignment", GgufType::kU32, le(bad))}}),
            cat("general.alignment is ", bad, ", which is no power of two"));
  }
  refuses(file_of({.keys = {key("general.alignment", GgufType::kU64, le<uint64_t>(32))}}),
          "general.alignment is no 32-bit unsigned number");
}

static void refuses_tensors(const std::vector<std::string>& tensors, std::string_view part) {
  refuses(file_of({.tensors = tensors, .data = std::string(128, '\0')}), part);
}

TEST(gguf_refuses_tensors) {
  refuses_tensors({tensor("w", {1, 1, 1, 1, 1}, 0, 0)}, "tensor 'w': 5 dimensions, at most 4");
  refuses_tensors({tensor("w", {UINT64_MAX}, 0, 0)}, "tensor 'w': dimension 18446744073709551615");
  refuses_tensors({tensor("w", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0)},
                  "tensor 'w': shape [4294967296, 4294967296] of F32 is no whole number");
  refuses_tensors({tensor("w", {uint64_t{1} << 62}, 0, 0)}, "of F32 is no whole number");
  refuses_tensors({tensor("w", {4}, 31, 0)}, "tensor 'w': unknown type 31");
  refuses_tensors({tensor("w", {48}, 2, 0)}, "tensor 'w': shape [48] of Q4_0 is no whole number");
  refuses_tensors({tensor("w", {2, 32}, 8, 0)}, "shape [32, 2] of Q8_0 is no whole number");
  refuses_tensors({tensor("w", {}, 8, 0)}, "shape [] of Q8_0 is no whole number");
  refuses_tensors({tensor("w", {4}, 0, 8)}, "tensor 'w': offset 8 is no multiple of the alignment");
  refuses_tensors({tensor("w", {4}, 0, 128)}, "its 16 bytes at offset 128 do not lie in the 128");
  refuses_tensors({tensor("w", {33}, 0, 0)}, "its 132 bytes at offset 0 do not lie in the 128");
  refuses_tensors({tensor("w", {4}, 0, UINT64_MAX - 31)}, "tensor 'w': its 16 bytes at offset");
  refuses_tensors({tensor("a", {16}, 0, 0), tensor("b", {1}, 0, 32)},
                  "tensor 'b': its data overlaps that of 'a'");
  refuses_tensors({tensor("a", {1}, 0, 0), tensor("b", {1}, 0, 0)}, "overlaps");
  refuses_tensors({tensor("a", {1}, 0, 0), tensor("a", {1}, 0, 32)}, "tensor 'a': comes twice");
  refuses(file_of({.keys = {key("general.alignment", GgufType::kU32, le<uint32_t>(1u << 31))},
                   .tensors = {tensor("w", {1}, 0, 0)}}),
          "tensor 'w': its 4 bytes at offset 0 do not lie in the 0 bytes of data");
}

// Every prefix and every change of one byte ends in a result or in a ModelError.
TEST(gguf_damage) {
  const std::string whole = good();
  for (size_t n = 0; n < whole.size(); ++n)
    CHECK_THROWS_WITH(parse(whole.substr(0, n)), ModelError, "");
  for (size_t i = 0; i + 196 < whole.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string bad = whole;
      bad[i] = static_cast<char>(value);
      try {
        parse(bad);
      } catch (const ModelError&) {
        continue;
      }
    }
  }
}

static std::vector<float> floats_of(DType dtype, const std::string& bytes, size_t n) {
  std::vector<float> out(n);
  to_f32(dtype, std::as_bytes(std::span(bytes)).data(), out.data(), n);
  return out;
}

TEST(gguf_blocks_by_hand) {
  const std::string d = le(f32_to_f16(0.5f)), m = le(f32_to_f16(-3.0f));
  std::string q = std::string(16, '\0');
  q[0] = '\x1F';  // 15 first, 1 in the middle
  std::vector<float> x = floats_of(DType::kQ4_0, d + q, 32);
  CHECK(x[0] == 3.5f && x[16] == -3.5f && x[1] == -4.0f);
  x = floats_of(DType::kQ4_1, d + m + q, 32);
  CHECK(x[0] == 4.5f && x[16] == -2.5f && x[31] == -3.0f);
  const std::string high = le(uint32_t{0x80000001});  // the fifth bits of 0 and 31
  x = floats_of(DType::kQ5_0, d + high + q, 32);
  CHECK(x[0] == 7.5f && x[16] == -7.5f && x[31] == 0.0f && x[1] == -8.0f);
  x = floats_of(DType::kQ5_1, d + m + high + q, 32);
  CHECK(x[0] == 12.5f && x[16] == -2.5f && x[31] == 5.0f);
  x = floats_of(DType::kQ8_0, d + std::string("\x80\x7F") + std::string(30, '\0'), 32);
  CHECK(x[0] == -64.0f && x[1] == 63.5f && x[2] == 0.0f);
  // Sub-block 0 with scale 63 and minimum 1; sub-block 4 with scale 0x21 and minimum 0x12.
  std::string scales(12, '\0');
  scales[0] = '\x3F' | '\x80';
  scales[4] = '\x41';
  scales[8] = '\x21';
  std::string nibbles(128, '\0');
  nibbles[0] = 2;
  nibbles[64] = 3;
  x = floats_of(DType::kQ4K, d + m + scales + nibbles, 256);
  CHECK(x[0] == 66.0f && x[1] == 3.0f && x[32] == 0.0f);
  CHECK(x[128] == 0.5f * 0x21 * 3 + 3.0f * 0x12 && x[129] == 3.0f * 0x12);
  CHECK_THROWS_WITH(floats_of(DType::kQ4_0, d + q, 16), ModelError,
                    "16 elements of Q4_0 are no whole blocks");
  CHECK_THROWS_WITH(floats_of(DType::kIQ4XS, d + q, 256), ModelError, "IQ4_XS");
}

static std::string random_blocks(DType dtype, int64_t n) {
  static std::mt19937 random(7);
  std::string out(bytes_of(dtype, n), '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

// Panels hold what to_f32 reads, whatever the type and however many blocks a row has.
TEST(gguf_blocks_are_packed) {
  cpu::ThreadPool pool(2);
  const int64_t n = 35;
  for (DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                      DType::kQ4K, DType::kQ5K, DType::kQ6K}) {
    for (int64_t blocks : {1, 3}) {
      const int64_t k = blocks * block_of(dtype);
      const std::string raw = random_blocks(dtype, n * k);
      const std::vector<float> plain = floats_of(dtype, raw, static_cast<size_t>(n * k));
      const auto size = static_cast<size_t>(cpu::packed_floats(n, k));
      const std::unique_ptr<float[], void (*)(float*)> packed(
          static_cast<float*>(::operator new(size * sizeof(float), std::align_val_t{64})),
          [](float* p) { ::operator delete(p, std::align_val_t{64}); });
      cpu::pack_linear(raw.data(), dtype, n, k, packed.get(), pool);
      int wrong = 0;
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < k; ++j) {
          const float* const at = packed.get() + (i / 16 * k + j) * 16 + i % 16;
          wrong += std::memcmp(at, &plain[static_cast<size_t>(i * k + j)], sizeof(float)) != 0;
        }
      }
      CHECK_EQ(wrong, 0);
    }
  }
}

TEST(gguf_store) {
  const TempDir dir;
  std::string data;
  for (char row = 0; row < 8; ++row) data += std::string(34, row);  // two heads of four rows
  data.resize(288);
  for (float f : {0.0f, 1.0f, 2.0f, 3.0f}) data += le(f);
  const auto path =
      dir.write("m.gguf", file_of({.tensors = {tensor("blk.0.attn_q.weight", {32, 8}, 8, 0),
                                               tensor("blk.0.attn_q.bias", {4}, 0, 288)},
                                   .data = data}));
  const auto store = WeightStore::open_gguf(
      path, {{"blk.0.attn_q.weight", "q.weight", 2}, {"blk.0.attn_q.bias", "q.bias", 1}});
  CHECK_EQ(store->size(), 2u);
  const Numbers rows = numbers_of(store->at("q.weight"));
  std::string order;
  for (int i = 0; i < 8; ++i) order += std::to_string(static_cast<int>(rows.data[34 * i + 33]));
  CHECK_EQ(order, "02134657");
  const Numbers bias = numbers_of(store->at("q.bias"));
  const auto* const b = reinterpret_cast<const float*>(bias.data);
  CHECK(b[0] == 0 && b[1] == 2 && b[2] == 1 && b[3] == 3);
  CHECK_EQ(store->at("q.weight").data[34], std::byte{1});  // a view of the file

  WeightStore merged;
  merged.merge(store, "m.");
  CHECK_EQ(merged.at("m.q.weight").interleaved_heads, 2);
  const auto plain = WeightStore::open({path});
  CHECK(numbers_of(plain->at("blk.0.attn_q.weight")).owner == nullptr);
  CHECK_THROWS_WITH(WeightStore::open_gguf(path, {{"x", "y", 0}}), ModelError, "no tensor 'x'");
  for (int64_t heads : {3, 8, -1}) {
    CHECK_THROWS_WITH(WeightStore::open_gguf(path, {{"blk.0.attn_q.weight", "q", heads}}),
                      ModelError, "pairs of rows");
  }
  CHECK_THROWS_WITH(WeightStore::open_gguf(
                        path, {{"blk.0.attn_q.weight", "a", 0}, {"blk.0.attn_q.bias", "a", 0}}),
                    ModelError, "is also in");
}

}  // namespace trine::test
