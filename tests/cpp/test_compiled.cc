// SPDX-License-Identifier: Apache-2.0
// Compiled files: the bits of the model they were written from, in place; damage of every kind is
// refused.
#include "exec/compiled.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <system_error>

#include "base/atomic_file.h"
#include "check.h"
#include "graph/serialize.h"
#include "tiny_llama.h"
#include "tiny_model.h"

namespace trine {
namespace {

using test::run;
using test::TempDir;
using test::TinyLlama;
using test::TinyModel;

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kI4};

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::filesystem::path save(const TempDir& folder, const Graph& graph, DType dtype = DType::kF32) {
  const auto path = folder.path() / "m.trine";
  Engine(graph, make_cpu_backend(2, dtype)).save(path, {{"trine.task", "embed"}});
  return path;
}

void check_same_outputs(Engine& a, Engine& b, const Batch& batch,
                        const std::vector<std::vector<std::string>>& sets) {
  for (const auto& names : sets) {
    const auto expected = run(a, batch, names), got = run(b, batch, names);
    for (size_t i = 0; i < names.size(); ++i)
      CHECK(std::memcmp(expected[i].data(), got[i].data(), got[i].size() * sizeof(float)) == 0);
  }
}

TEST(a_compiled_file_gives_the_same_bits) {
  const TempDir folder;
  for (const test::TinyShape shape : {test::TinyShape{}, test::TinyShape{61, 20, 2, 37, 3, 64}}) {
    const TinyModel tiny(shape);
    const Batch batch = tiny.batch({1, 0, 9, 33, 2});
    for (const DType dtype : kDTypes) {
      Engine engine(tiny.graph(), make_cpu_backend(2, dtype));
      engine.save(folder.path() / "m.trine", {});
      const CompiledFile file(folder.path() / "m.trine");
      CHECK(file.dtype() == dtype);
      const auto mapped = file.engine(make_cpu_backend(2, dtype));
      check_same_outputs(engine, *mapped, batch,
                         {{"hidden"}, {"pooled"}, {"both", "hidden"}, {"sentence"}});
      CHECK_EQ(mapped->info().parameters, engine.info().parameters);
      CHECK_EQ(mapped->info().weight_bytes, engine.info().weight_bytes);
    }
  }
}

TEST(a_compiled_decoder_keeps_its_caches) {
  const TempDir folder;
  const TinyLlama tiny;
  for (const DType dtype : kDTypes) {
    Engine engine(tiny.graph(), make_cpu_backend(2, dtype));
    engine.save(folder.path() / "m.trine", {});
    const auto mapped = CompiledFile(folder.path() / "m.trine").engine(make_cpu_backend(1, dtype));
    Batch batch;
    for (const int64_t length : {3, 17, 1}) batch.add(tiny.ids(length, uint64_t(length)));
    check_same_outputs(engine, *mapped, batch, {{"logits"}, {"next_logits"}, {"first", "logits"}});
    CHECK_EQ(mapped->make_cache(10)->capacity(), engine.make_cache(10)->capacity());
  }
}

// A device that reads neither the CPU's panels nor its position tables gets rows: the reference has
// the same bits from the file as from the model.
TEST(a_compiled_file_has_rows_for_other_devices) {
  const TempDir folder;
  const TinyModel tiny({61, 20, 2, 37, 3, 64});
  const TinyLlama llama;
  const Batch batch = tiny.batch({1, 0, 9, 33, 2});
  Batch tokens;
  for (const int64_t length : {3, 17, 1}) tokens.add(llama.ids(length, uint64_t(length)));
  const auto check = [&](const Graph& graph, const Batch& of, DType dtype,
                         const std::vector<std::vector<std::string>>& sets) {
    const auto path = folder.path() / "m.trine";
    Engine(graph, make_cpu_backend(2, dtype)).save(path, {});
    Engine whole(graph, make_ref_backend(dtype));
    const auto rows = CompiledFile(path).engine(make_ref_backend(dtype));
    check_same_outputs(whole, *rows, of, sets);
    CHECK_EQ(rows->info().parameters, whole.info().parameters);
    CHECK_EQ(rows->info().weight_bytes, whole.info().weight_bytes);
    CHECK_EQ(rows->why_not_finite(), "every weight is finite, so sums overflow");
  };
  for (const DType dtype : kHostDTypes) {
    check(tiny.graph(), batch, dtype, {{"hidden"}, {"pooled"}, {"both", "hidden"}, {"sentence"}});
    check(llama.graph(), tokens, dtype, {{"logits"}, {"next_logits"}, {"first", "logits"}});
  }
}

// Of what was folded the file has the result alone: another device names it.
TEST(a_folded_value_that_is_no_number_is_named) {
  const TempDir folder;
  const TinyModel tiny;
  const auto path = save(folder, tiny.graph());
  std::streamoff at = 0;
  {
    const auto store = WeightStore::open_safetensors(path);
    for (const Tensor& tensor : *store) {
      if (tensor.name.find("/#") == std::string_view::npos) continue;
      at = tensor.data - store->mapping_of(tensor.data).data();
    }
  }
  CHECK(at > 0);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(at).write(reinterpret_cast<const char*>(&nan), sizeof nan);
  file.close();
  const std::string said = CompiledFile(path).engine(make_ref_backend())->why_not_finite();
  CHECK(said.starts_with("what was computed of weights alone is none, either: constant (node "));
}

TEST(a_compiled_file_runs_in_its_own_dtype_alone) {
  const TempDir folder;
  const CompiledFile file(save(folder, TinyModel().graph(), DType::kBF16));
  CHECK_THROWS_WITH(file.engine(make_cpu_backend(1)), InputError, "is compiled in bfloat16");
}

TEST(weights_of_a_compiled_file_are_used_where_they_lie) {
  const TempDir folder;
  const TinyModel tiny({50, 64, 4, 128, 2, 40});
  const auto mapped = CompiledFile(save(folder, tiny.graph())).engine(make_cpu_backend(1));
  const size_t empty = mapped->info().bytes_allocated;
  for (const char* name : {"hidden", "pooled", "sentence", "both"}) mapped->plan({name});
  CHECK_EQ(mapped->info().bytes_allocated, empty);
}

TEST(a_compiled_file_can_be_saved_again) {
  const TempDir folder;
  const auto path = save(folder, TinyModel().graph());
  const std::string first = read(path);
  // Over the file that is mapped: Windows refuses that, and the file stays what it was.
  const auto again = [&](const std::filesystem::path& to) {
    CompiledFile(path).engine(make_cpu_backend(1))->save(to, {{"trine.task", "embed"}});
  };
#if defined(_WIN32)
  CHECK_THROWS_WITH(again(path), std::system_error, "replaces no file that a process has mapped");
  again(folder.path() / "again.trine");
  CHECK(read(folder.path() / "again.trine") == first);
#else
  again(path);
#endif
  CHECK(read(path) == first);
}

TEST(tensors_of_a_compiled_file_are_aligned) {
  const TempDir folder;
  const auto store =
      WeightStore::open_safetensors(save(folder, TinyModel({50, 256, 4, 512, 2, 40}).graph()));
  size_t large = 0;
  for (const Tensor& t : *store) {
    if (t.name.starts_with("padding.")) continue;
    CHECK_EQ(reinterpret_cast<uintptr_t>(t.data) % 64, 0u);
    large += t.bytes >= (64u << 10) && reinterpret_cast<uintptr_t>(t.data) % 4096 == 0;
  }
  CHECK(large > 0);
}

// The file with a text of its header replaced, and the header's length put right.
std::filesystem::path edited(const TempDir& folder, std::string file, std::string_view from,
                             std::string_view to) {
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  std::string header = file.substr(sizeof length, length);
  const size_t at = header.find(from);
  CHECK(at != header.npos);
  if (at != header.npos) header.replace(at, from.size(), to);
  header.erase(header.find_last_not_of(' ') + 1);
  header.append(4096 - (sizeof length + header.size()) % 4096, ' ');
  const std::string data = file.substr(sizeof length + length);
  length = header.size();
  std::string out(sizeof length, '\0');
  std::memcpy(out.data(), &length, sizeof length);
  return folder.write("edited.trine", out + header + data);
}

void refuses(const std::filesystem::path& path, std::string_view part, bool check_sum = false) {
  const auto open = [&] {
    const CompiledFile file(path, check_sum);
    return file.engine(make_cpu_backend(1, file.dtype()));
  };
  CHECK_THROWS_WITH(open(), ModelError, path.filename().string() + ": ");
  CHECK_THROWS_WITH(open(), ModelError, part);
  CHECK_THROWS_WITH(open(), ModelError, "compile");
}

TEST(damaged_compiled_files_are_refused) {
  const TempDir folder;
  const std::string good = read(save(folder, TinyModel().graph()));
  const auto refuses_edit = [&](std::string_view from, std::string_view to, std::string_view part) {
    refuses(edited(folder, good, from, to), part);
  };
  refuses(edited(folder, good, R"(\"eps\":)", R"(\"eps\":1)"), "metadata is damaged", true);
  refuses_edit(R"("trine.format":"2")", R"("trine.format":"3")",
               cat("has format '3', was written by trine '", version(), "'"));
  refuses_edit(R"("trine.format")", R"("other.format")", "no compiled model");
  refuses_edit(R"("trine.dtype":"F32")", R"("trine.dtype":"F8_E4M3")", "dtype 'F8_E4M3'");
  refuses_edit(R"("trine.dtype":"F32")", R"("trine.dtype":"BF16")", "no tensor 'panels_bf16/");
  refuses_edit(R"("trine.device":"cpu")", R"("trine.device":"tpu")", "is for device 'tpu'");
  refuses_edit(R"("trine.graph")", R"("trine.grave")", "no trine.graph");
  refuses_edit(R"("bias/pooler.bias")", R"("bias/pooler.bits")", "no tensor 'bias/pooler.bias'");
  refuses_edit(R"("shape":[2,32,16])", R"("shape":[1,64,16])", "is [1, 64, 16] of F32, but the");
  refuses_edit(R"(\"op\":\"layer_norm\")", R"(\"op\":\"layer_worm\")", "unknown op \"layer_worm\"");
  refuses_edit(R"(\"eps\":)", R"(\"EPS\":)", "attribute eps is missing");
  refuses_edit(R"(\"heads\":2,)", R"(\"heads\":3,)", "don't split into 3 heads");
  refuses_edit(R"(\"heads\":2,)", R"(\"heads\":4294967298,)", "attribute heads is 4294967298");
  refuses_edit(R"(\"heads\":2,)", R"(\"heads\":2,\"tails\":2,)", "has fewer attributes");
  refuses_edit(R"(\"padding_idx\":1})", R"(\"padding_idx\":-9})", "padding_idx -9 is no id");
  refuses_edit(R"(\"mode\":\"cls\")", R"(\"mode\":\"all\")", "unknown pooling mode \"all\"");
  refuses_edit(R"(\"inputs\":[0,)", R"(\"inputs\":[999,)", "input 0 is %999");
  refuses_edit(R"(\"inputs\":[0,)", R"(\"inputs\":[-7,)", "there is no node -7");
  refuses_edit(R"(\"dims\":[50,32])", R"(\"dims\":[50,0])", "dimension 0 is out of range");
  refuses_edit(R"(\"dims\":[50,32])", R"(\"dims\":[51,32])", "tensor 'table/words' is [50, 32]");
  refuses_edit(R"(\"dims\":[50,32])", R"(\"dims\":[2147483647,2147483647,2147483647])",
               "the shape is out of range");
  refuses_edit(R"(\"index\":0)", R"(\"index\":1000000)", "there is no constant 1000000");
  refuses_edit(R"(\"rows\":\"tokens\")", R"(\"rows\":\"pigeons\")", "rows are 'pigeons'");
  refuses_edit(R"(\"rows\":\"sequences\")", R"(\"rows\":\"tokens\")", "its shape is stored as");
  refuses_edit(R"(\"outputs\":[{)", R"(\"outputs\":[7,{)", "graph");
  refuses_edit(R"({\"nodes\":[)", R"({\"nodes\":[[)", "graph");
  CHECK_THROWS_WITH(CompiledFile(folder.write("long.trine", good + "x")), ModelError,
                    "1 bytes aft");
  const auto cut = folder.write("short.trine", good.substr(0, good.size() - 64));
  CHECK_THROWS_WITH(CompiledFile(cut), ModelError, "truncated");
  // A byte more in front of the data: valid safetensors, but nothing is aligned any more.
  std::string moved = good;
  moved[0] = static_cast<char>(moved[0] + 1);
  uint64_t length = 0;
  std::memcpy(&length, good.data(), sizeof length);
  moved.insert(sizeof length + length, " ");
  refuses(folder.write("moved.trine", moved), "cache line");
}

TEST(graphs_that_are_not_folded_are_refused) {
  const std::string json = to_json(TinyModel().graph());
  CHECK_THROWS_WITH(graph_from_json(json, "f"), ModelError, "op relative_bias depends on weights");
}

TEST(the_reference_does_not_save) {
  const TempDir folder;
  Engine engine(TinyModel().graph(), make_ref_backend());
  CHECK_THROWS_WITH(engine.save(folder.path() / "m.trine", {}), DeviceError, "device ref");
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST(an_atomic_file_is_there_as_a_whole_or_not_at_all) {
  const TempDir folder;
  const auto path = folder.write("f", "old");
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  {
    AtomicFile file(path);
    file.write(bytes("new"));
    CHECK(read(path) == "old");
  }
  CHECK(read(path) == "old");
  {
    AtomicFile file(path);
    file.write(bytes("new"));
    file.commit();
  }
  CHECK(read(path) == "new");
  CHECK_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  CHECK_THROWS_WITH(AtomicFile(folder.path() / "no" / "f"), std::system_error, "cannot be written");
}

}  // namespace
}  // namespace trine
