// SPDX-License-Identifier: Apache-2.0
// trine.h over the C interface: results of the engine, errors of their kinds.
#include <thread>

#include "check.h"
#include "exec/compiled.h"
#include "exec/session.h"
#include "tiny_llama.h"
#include "tiny_model.h"
#include "trine.h"

namespace trine {
namespace {

using test::TempDir;
using test::TinyLlama;
using test::TinyModel;

// What Python keeps in a file, as far as this interface reads it.
std::map<std::string, std::string> python_metadata(const std::string& outputs) {
  return {{"trine.task", "classify"},
          {"trine.model", cat(R"({"limit":40,"end_tokens":[7,9],"outputs":)", outputs, "}")},
          {"config.json", R"({"id2label":{"0":"no","1":"yes"}})"}};
}

std::filesystem::path save(const TempDir& folder, Engine& engine, const std::string& outputs) {
  const auto path = folder.path() / "m.trine";
  engine.save(path, python_metadata(outputs));
  return path;
}

TEST(the_interface_gives_the_engines_bits) {
  const TempDir folder;
  const TinyModel tiny;
  Engine engine(tiny.graph(), make_cpu_backend(2));
  const Model model = Model::load(save(folder, engine, R"(["pooled"])"), {.threads = 2});
  const Batch batch = tiny.batch({3, 1, 12});
  const auto expected = test::run(engine, batch, {"hidden", "pooled"});
  const Outputs out = model.run(batch, {"hidden", "pooled"});
  CHECK(out["hidden"].values == expected[0]);
  CHECK(out["hidden"].per_token && out["hidden"].rows == 16);
  CHECK(model.run(batch)["pooled"].values == expected[1]);
  CHECK_EQ(out["pooled"][1][2], expected[1][32 + 2]);
  CHECK_THROWS_WITH(out["pooled"][3], InputError, "no row 3");
  CHECK_THROWS_WITH(model.run(batch)["hidden"], InputError, "hidden was not computed");
  CHECK(model.outputs() == (std::vector<std::string>{"hidden", "pooled", "sentence", "both"}));
  CHECK(model.labels() == (std::vector<std::string>{"no", "yes"}));
  CHECK_EQ(model.max_length(), 40);
  CHECK_EQ(model.task(), "classify");
  CHECK_EQ(model.metadata("trine.version").value(), version());
  CHECK(!model.metadata("tokenizer.json"));
  CHECK_EQ(model.isa(), engine.info().backend.isa);
  CHECK_EQ(model.run(Batch())["pooled"].rows, 0u);
}

TEST(the_interface_throws_the_librarys_errors) {
  const TempDir folder;
  const TinyModel tiny;
  Engine engine(tiny.graph(), make_cpu_backend(1));
  const Model model = Model::load(save(folder, engine, R"(["pooled"])"));
  CHECK_THROWS_WITH(Model::load(folder.path() / "no.trine"), ModelError, "cannot open");
  CHECK_THROWS_WITH(Model::load(folder.write("bad.trine", "12345678{}")), ModelError, "bad.trine");
  CHECK_THROWS_WITH(Model::load(folder.write("m.gguf", "GGUF1234{}")), ModelError,
                    "expected a compiled .trine file");
  CHECK_THROWS_WITH(Model::load(folder.path() / "m.trine", {.threads = -1}), InputError, "threads");
  Batch batch;
  batch.add({2, 3, 1000});
  CHECK_THROWS_WITH(model.run(batch), InputError, "id 1000 at position 2 of sequence 0");
  CHECK_THROWS_WITH(model.run(batch, {"logits"}), InputError,
                    "no output \"logits\"; the model has");
  CHECK_THROWS_WITH(Generator(model, 10), InputError, "generates no text");
  CHECK_THROWS_WITH(batch.add(std::vector{1, 2}, std::vector{0}), InputError, "2 ids and 1 token");
  engine.save(folder.path() / "cpp.trine", {});
  CHECK_THROWS_WITH(Model::load(folder.path() / "cpp.trine"), ModelError, "no trine.model");
}

TEST(one_model_serves_many_threads) {
  const TempDir folder;
  const TinyModel tiny;
  Engine engine(tiny.graph(), make_cpu_backend(1));
  const Model model = Model::load(save(folder, engine, R"(["sentence"])"), {.threads = 2});
  const Batch batch = tiny.batch({5, 9});
  const std::vector<float> expected = model.run(batch)["sentence"].values;
  std::vector<std::vector<float>> got(4);
  std::vector<std::thread> threads;
  for (auto& values : got)
    threads.emplace_back([&values, copy = model, &batch] {
      for (int i = 0; i < 20; ++i) values = copy.run(batch)["sentence"].values;
    });
  for (auto& thread : threads) thread.join();
  for (const auto& values : got) CHECK(values == expected);
}

TEST(a_generator_writes_what_a_session_writes) {
  const TempDir folder;
  const TinyLlama tiny;
  const auto engine = std::make_shared<Engine>(tiny.graph(), make_cpu_backend(1));
  const Model model = Model::load(save(folder, *engine, R"(["next_logits"])"));
  const std::vector<int32_t> prompts[] = {tiny.ids(5, 1), tiny.ids(9, 2)};
  for (const float temperature : {0.0f, 1.5f}) {
    GenerateOptions options{.max_new_tokens = 12, .temperature = temperature, .seed = 4};
    options.end_tokens.emplace();
    Session session(engine, {.capacity = 64});
    Generator generator(model, 64);
    for (const auto& prompt : prompts) {
      session.add(prompt, 12, {.temperature = temperature, .seed = 4});
      generator.add(prompt, options);
    }
    std::vector<int32_t> written[2];
    while (generator.active() > 0) {
      for (const GeneratedToken& t : generator.step()) written[t.sequence].push_back(t.token);
    }
    while (session.active() > 0) session.step();
    for (int64_t i = 0; i < 2; ++i) {
      const auto& prompt = prompts[i];
      std::vector<int32_t> all = prompt;
      all.insert(all.end(), written[i].begin(), written[i].end());
      CHECK(all == session.tokens(i));
      const Generation alone = model.generate(prompt, options);
      CHECK(alone.tokens == written[i]);
      CHECK(alone.finish == Finish::kLength && alone.logprobs.size() == 12);
    }
  }
  // The model's own end tokens.
  const Generation whole =
      model.generate(prompts[0], {.max_new_tokens = 50, .end_tokens = std::vector<int32_t>{}});
  const Generation ended = model.generate(
      prompts[0], {.max_new_tokens = 50, .end_tokens = std::vector{whole.tokens[3]}});
  CHECK(ended.finish == Finish::kEndToken && ended.tokens.size() <= 4);
  CHECK_THROWS_WITH(model.generate(std::vector<int32_t>{}), InputError,
                    "a prompt of one token or more");
  CHECK_THROWS_WITH(Generator(model, 8).remove(3), InputError, "no sequence 3");
}

TEST(tokens_without_room_come_with_the_next_call) {
  const TempDir folder;
  const TinyLlama tiny;
  const auto engine = std::make_shared<Engine>(tiny.graph(), make_cpu_backend(1));
  const Model model = Model::load(save(folder, *engine, R"(["next_logits"])"));
  trine_generator* generator = nullptr;
  detail::check(trine_generator_new(model.get(), 64, &generator));
  const std::vector<int32_t> prompt = tiny.ids(3, 1);
  const int32_t none = 0;
  trine_sampling sampling{sizeof sampling, 2, 0, 0, 0, 1, 0, 1, 0, &none, 0};
  int64_t sequence = 0;
  for (int i = 0; i < 3; ++i)
    detail::check(
        trine_generator_add(generator, prompt.data(), prompt.size(), &sampling, &sequence));
  std::vector<int64_t> order;
  while (trine_generator_active(generator) > 0) {
    trine_token token{};
    size_t count = 0;
    detail::check(trine_generator_step(generator, &token, 1, &count));
    if (count > 0) order.push_back(token.sequence);
  }
  CHECK(order == (std::vector<int64_t>{0, 1, 2, 0, 1, 2}));
  sampling.size = 4;
  CHECK_THROWS_WITH(detail::check(trine_generator_add(generator, prompt.data(), prompt.size(),
                                                      &sampling, &sequence)),
                    InputError, "trine_sampling: null, or too small");
  trine_generator_free(generator);
}

}  // namespace
}  // namespace trine
