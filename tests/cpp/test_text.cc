// SPDX-License-Identifier: Apache-2.0
// Texts through trine.h. That ids are those of Python's tokenizers is shown by
// tests/python/test_text.py, on texts of every kind.
#include <thread>

#include "check.h"
#include "exec/compiled.h"
#include "text/pattern.h"
#include "text/trie.h"
#include "text/unicode.h"
#include "text/vocabulary.h"
#include "tiny_llama.h"
#include "tiny_model.h"
#include "trine.h"

namespace trine {
namespace {

using test::TempDir;
using test::TinyLlama;
using test::TinyModel;

// Letters and a few words; "[C]" and "[S]" go around a text, "[S]" between two.
constexpr const char* kTokenizer = R"({
  "version": "1.0", "truncation": null, "padding": null,
  "added_tokens": [
    {"id": 1, "content": "[C]", "single_word": false, "lstrip": false, "rstrip": false,
     "normalized": false, "special": true},
    {"id": 2, "content": "[S]", "single_word": false, "lstrip": false, "rstrip": false,
     "normalized": false, "special": true}],
  "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                 "strip_accents": null, "lowercase": true},
  "pre_tokenizer": {"type": "BertPreTokenizer"},
  "post_processor": {"type": "BertProcessing", "sep": ["[S]", 2], "cls": ["[C]", 1]},
  "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
  "model": {"type": "WordPiece", "unk_token": "[U]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 20,
            "vocab": {"[U]": 0, "[C]": 1, "[S]": 2, "a": 3, "b": 4, "##b": 5, "word": 6, ".": 7,
                      "##s": 8, "query": 9}}})";

std::map<std::string, std::string> metadata(const std::string& outputs) {
  return {
      {"trine.task", "embed"},
      {"trine.model", cat(R"({"limit":40,"end_tokens":[7,9],"outputs":)", outputs,
                          R"(,"sentence":{"prompts":{"q":"query "},"default_prompt_name":"q"}})")},
      {"config.json", "{}"},
      {"tokenizer.json", kTokenizer},
      {"trine.tokenizer", R"({"limit":6,"token_types":true,"side":"right"})"}};
}

TEST(texts_become_batches) {
  const TempDir folder;
  const TinyModel tiny;
  Engine engine(tiny.graph(), make_cpu_backend(1));
  const auto path = folder.path() / "m.trine";
  engine.save(path, metadata(R"(["pooled"])"));
  const Model model = Model::load(path);
  const EncodeOptions bare{.prompt = ""};
  const auto ids = [&](const Batch& batch) {
    return std::vector<int32_t>(batch.ids().begin(), batch.ids().end());
  };
  CHECK(ids(model.tokenize({"Words, a \u00e1bb."}, bare)) ==
        (std::vector<int32_t>{1, 6, 8, 0, 3, 2}));
  const Batch pairs = model.tokenize({Text("a b", "word"), Text("a")}, bare);
  CHECK(ids(pairs) == (std::vector<int32_t>{1, 3, 4, 2, 6, 2, 1, 3, 2}));
  CHECK(std::vector<int32_t>(pairs.token_types().begin(), pairs.token_types().end()) ==
        (std::vector<int32_t>{0, 0, 0, 0, 1, 1, 0, 0, 0}));
  // The prompt by default, and how much of each sequence is its.
  const Batch prompted = model.tokenize(std::vector<std::string>{"a", "b b b b b"});
  CHECK(ids(prompted) == (std::vector<int32_t>{1, 9, 3, 2, 1, 9, 4, 4, 4, 2}));
  CHECK_EQ(prompted.prompt_lengths()[1], 2);
  CHECK(model.prompt("q") == "query " && !model.prompt("x"));
  // The engine's bits for the same ids.
  const Batch batch = model.tokenize({"a b", "word"}, bare);
  CHECK(model.encode({"a b", "word"}, bare)["pooled"].values == model.run(batch)["pooled"].values);
  CHECK_THROWS_WITH(model.tokenize({"a", "a a a a a a a"}, {.truncate = false, .prompt = ""}),
                    InputError, "input 1: a text has 9 tokens, the limit is 6");
  CHECK_THROWS_WITH(model.tokenize({"a"}, {.max_length = 1, .prompt = ""}), InputError,
                    "leaves no room");
  CHECK_EQ(model.tokenize(std::vector<Text>{}).size(), 0u);
}

TEST(a_tokenizer_is_a_value) {
  const TempDir folder;
  const Tokenizer tokenizer = Tokenizer::load(folder.write("tokenizer.json", kTokenizer));
  CHECK_EQ(tokenizer.size(), 10u);
  CHECK(tokenizer.find("##s") == 8 && !tokenizer.find("c"));
  CHECK(tokenizer.token(6) == "word" && !tokenizer.token(10) && !tokenizer.token(-1));
  CHECK(tokenizer.decode(std::vector{1, 6, 8, 7, 2}) == "words.");
  CHECK(tokenizer.decode(std::vector{1, 6, 8, 2}, true) == "[C] words [S]");
  CHECK(tokenizer.decode(std::vector<int32_t>(999, 6)).size() == 999 * 5 - 1);
  CHECK(tokenizer.encode("a[S]b \xff") == (std::vector<int32_t>{1, 3, 2, 4, 2}));
  CHECK(tokenizer.encode("a", {.special_tokens = false}) == std::vector<int32_t>{3});
  // From many threads, the same.
  const std::vector<int32_t> expected = tokenizer.encode("words a b . abbb word");
  std::vector<std::vector<int32_t>> got(4);
  std::vector<std::thread> threads;
  for (auto& ids : got)
    threads.emplace_back([&ids, copy = tokenizer] {
      for (int i = 0; i < 200; ++i) ids = copy.encode("words a b . abbb word");
    });
  for (auto& thread : threads) thread.join();
  for (const auto& ids : got) CHECK(ids == expected);
  CHECK_THROWS_WITH(Tokenizer::load(folder.write("x.json", "{\"model\": 3}")), ModelError,
                    "x.json: tokenizer.json: expected an object");
  CHECK_THROWS_WITH(Tokenizer::load(folder.path() / "none"), ModelError, "cannot open");
  CHECK_THROWS_WITH(Tokenizer::load(folder.write("y.trine", "12345678{}")), ModelError, "y.trine");
  const TinyModel tiny;
  Engine engine(tiny.graph(), make_cpu_backend(1));
  auto without = metadata(R"(["pooled"])");
  without.erase("tokenizer.json");
  engine.save(folder.path() / "m.trine", without);
  CHECK_THROWS_WITH(Model::load(folder.path() / "m.trine").encode({"a"}), ModelError,
                    "compiled without a tokenizer");
}

TEST(a_generator_takes_and_gives_text) {
  const TempDir folder;
  const TinyLlama tiny;
  const auto engine = std::make_shared<Engine>(tiny.graph(), make_cpu_backend(1));
  auto given = metadata(R"(["next_logits"])");
  given["trine.tokenizer"] = R"({"limit":20,"token_types":true,"side":"right"})";
  engine->save(folder.path() / "m.trine", given);
  const Model model = Model::load(folder.path() / "m.trine");
  const GenerateOptions options{.max_new_tokens = 12, .end_tokens = std::vector<int32_t>{}};
  const std::vector<int32_t> prompt = model.tokenizer().encode("word a", {.max_length = 99});
  const Generation by_ids = model.generate(prompt, options);
  const Generation by_text = model.generate("word a", options);
  CHECK(by_text.tokens == by_ids.tokens);
  CHECK(by_ids.text.empty());
  CHECK_EQ(by_text.text, model.tokenizer().decode(by_ids.tokens));
  // No more than the model has room for, however many are asked for.
  CHECK_EQ(model.max_length(), 20);
  for (const int64_t many : {int64_t{19}, INT64_MAX}) {
    const GenerateOptions more{.max_new_tokens = many, .end_tokens = std::vector<int32_t>{}};
    CHECK_EQ(model.generate(prompt, more).tokens.size(), 20 - prompt.size());
    CHECK_EQ(model.generate("word a", more).tokens.size(), 20 - prompt.size());
  }
  CHECK_THROWS_WITH(model.generate(std::vector<int32_t>(20, 3)), InputError,
                    "the prompt has 20 tokens, the model takes 20");
  Generator generator(model, 64);
  const int64_t first = generator.add("word a", options);
  generator.add(std::span<const int32_t>(prompt), options);
  std::string text;
  while (generator.active() > 0) {
    for (const GeneratedToken& t : generator.step()) {
      if (t.sequence == first) {
        text += t.text;
      } else {
        CHECK(t.text.empty());
      }
    }
  }
  CHECK_EQ(text, by_text.text);
}

TEST(bytes_that_are_no_text_are_replaced) {
  CHECK_EQ(replace_invalid("a\xC3\xA9 b"), "a\u00e9 b");
  CHECK_EQ(replace_invalid("\xC3"), "\uFFFD");
  CHECK_EQ(replace_invalid("\xE2\x82 \xF0\x9F\x98"), "\uFFFD \uFFFD");
  CHECK_EQ(replace_invalid("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  CHECK_EQ(replace_invalid("\xC0\x80\xF5"), "\uFFFD\uFFFD\uFFFD");
}

TEST(tries_and_vocabularies_find_what_was_put_in) {
  std::mt19937 random(5);
  std::map<std::string, int32_t> all;
  while (all.size() < 3000) {
    std::string key;
    for (size_t n = 1 + random() % 9; n > 0; --n)
      key += static_cast<char>("abc\xE2\x96"[random() % 5]);
    all.emplace(key, static_cast<int32_t>(all.size()));
  }
  std::vector<text::Trie::Entry> entries;
  text::Vocabulary vocabulary;
  for (const auto& [key, value] : all) {
    entries.push_back({key, value});
    vocabulary.add(key, value);
  }
  const text::Trie trie(entries);
  for (const auto& [key, value] : all) {
    CHECK_EQ(trie.find(key), value);
    CHECK_EQ(vocabulary.find(key), value);
    const std::string longer = key + "a";
    CHECK_EQ(trie.find(longer), all.contains(longer) ? all[longer] : -1);
    CHECK_EQ(vocabulary.find(longer), all.contains(longer) ? all[longer] : -1);
    size_t expected = 0, found = 0;
    for (size_t n = 1; n <= key.size(); ++n) expected += all.contains(key.substr(0, n));
    trie.prefixes(key, [&](size_t size, int32_t id) {
      ++found;
      CHECK_EQ(all[key.substr(0, size)], id);
    });
    CHECK_EQ(found, expected);
  }
  vocabulary.add(all.begin()->first, 5000);
  std::string_view text;
  CHECK(vocabulary.text(5000, text) && text == all.begin()->first);
  CHECK(!vocabulary.text(all.begin()->second, text) && !vocabulary.text(4999, text));
}

TEST(graphemes_and_normal_forms) {
  using namespace text;
  CHECK_EQ(grapheme_length("\r\n\n"), 2u);
  CHECK_EQ(grapheme_length("e\u0301\u0302x"), 5u);
  CHECK_EQ(grapheme_length("\u1112\u1161\u11ab\u1112"), 9u);
  CHECK_EQ(grapheme_length("\u2764\uFE0F\u200D\u2764x"), 12u);
  CHECK_EQ(grapheme_length("\u0915\u094D\u0937a"), 9u);
  const auto normal = [](std::string_view s, NormalForm form) {
    std::string out;
    normalize(s, form, out);
    return out;
  };
  CHECK_EQ(normal("e\u0301 \uAC00\u11A8 s\u0323\u0307", NormalForm::kNfc), "\u00e9 \uAC01 \u1e69");
  CHECK_EQ(normal("\u1e69\uAC01", NormalForm::kNfd), "s\u0323\u0307\u1100\u1161\u11A8");
  CHECK_EQ(normal("\uFB01\u00BD", NormalForm::kNfkc), "fi1\u20442");
  CHECK_EQ(normal("a\u0307\u0323", NormalForm::kNfd), "a\u0323\u0307");
  // Marks that are decomposed themselves, and letters that become marks.
  CHECK_EQ(normal("e\u0340", NormalForm::kNfc), "\u00e8");
  CHECK_EQ(normal("\u0345\u0341", NormalForm::kNfkd), "\u0301\u0345");
  CHECK_EQ(normal("\uFF76\uFF9E \uFFA1\uFFC2", NormalForm::kNfkc), "\u30AC \uAC00");
}

TEST(patterns_match_as_they_read) {
  const auto split = [](const std::string& regex, std::string_view text) {
    JsonObject description;
    description.set("Regex", regex);
    const text::Pattern pattern(description);
    std::string out;
    text::Pattern::Match match{};
    for (size_t at = 0; at < text.size() && pattern.find(text, at, match); at = match.end)
      out += cat("[", text.substr(match.begin, match.end - match.begin), "]");
    return out;
  };
  CHECK_EQ(split(R"(\s+(?!\S)|\s+)", "a   b "), "[  ][ ][ ]");
  CHECK_EQ(split(R"((?i:'s|'ll)|\p{L}+)", "it's I'LL 'x"), "[it]['s][I]['LL][x]");
  CHECK_EQ(split(R"((?i:'s))", "'\u017F"), "['\u017F]");
  CHECK_EQ(split(R"(\p{N}{1,3})", "1234567"), "[123][456][7]");
  CHECK_EQ(split(R"((?:ab|a)?c)", "abcac c"), "[abc][ac][c]");
  CHECK_EQ(split(R"([a-c\-]+x)", "ab-cx"), "[ab-cx]");
  CHECK_EQ(split(R"(a(?=b))", "aab"), "[a]");
}

}  // namespace
}  // namespace trine
