// SPDX-License-Identifier: Apache-2.0
// The C++ interface of trine: compiled models, run on texts or on ragged batches of token ids.
// C++20. Everything that can fail throws one of the errors below, before a run's first step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trine_c.h"
#include "trine_text.h"

namespace trine {

// One result: a row for each token of the batch, in its order, or for each sequence. A value.
struct Output {
  std::string name;
  size_t rows = 0, columns = 0;
  bool per_token = false;
  std::vector<float> values = {};  // row by row

  std::span<const float> operator[](size_t row) const {
    if (row >= rows) throw InputError(name + " has no row " + std::to_string(row));
    return {values.data() + row * columns, columns};
  }
};

// The results of one run, by name. A value.
class Outputs {
 public:
  explicit Outputs(std::vector<Output> all) : all_(std::move(all)) {}
  const Output& operator[](std::string_view name) const {
    for (const Output& output : all_) {
      if (output.name == name) return output;
    }
    throw InputError("output " + std::string(name) + " was not computed");
  }
  auto begin() const noexcept { return all_.begin(); }
  auto end() const noexcept { return all_.end(); }

 private:
  std::vector<Output> all_;
};

struct Options {
  int32_t threads = 0;  // 0: one for each processor that the process may use
  // "cpu", "cuda", "cuda:1", "metal". "auto": the first GPU of a plugin that is there and works,
  // but for Metal's, else the processor. Plugins lie in folders that TRINE_PLUGIN_PATH names or
  // beside this library.
  std::string device = "auto";
};

// How a text goes on. The defaults are greedy.
struct GenerateOptions {
  int64_t max_new_tokens = 128;
  int32_t min_new_tokens = 0;
  float temperature = 0;
  int32_t top_k = 0;  // 0: all
  float top_p = 1, min_p = 0, repetition_penalty = 1;
  uint64_t seed = 0;
  std::optional<std::vector<int32_t>> end_tokens = {};  // by default the model's own
  // Of a prompt that is text: whether the tokenizer puts its own around it. False for what a chat
  // template made, which has them.
  bool special_tokens = true;
};

enum class Finish : int32_t { kNone, kEndToken, kLength, kNotANumber };

struct GeneratedToken {
  int64_t sequence;
  int32_t token;
  float logprob;  // of the model's own distribution
  Finish finish;
  // The text that is certain now, of a sequence whose prompt was text: never half a character, and
  // with the last token all that was held back. Special tokens and the one that ends it have none.
  std::string text = {};
};

struct Generation {
  std::string text;  // as above
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  Finish finish = Finish::kNone;
};

// A compiled model. Copies are the same model, which lives as long as the last of them and of its
// generators. Every method may be called from many threads at once; calls to run that meet are one
// batch, and the result for a sequence is the same bits whatever else is in it.
class Model {
 public:
  // A .trine file, of `trine compile` or Python's save. It is mapped: it must stay as it is, but
  // may be replaced by a rename. The processor runs it in place, a GPU has copies. DeviceError when
  // the device cannot be used.
  static Model load(const std::filesystem::path& path, const Options& options = {}) {
    const std::u8string name = path.u8string();
    const trine_options given{sizeof(trine_options), options.threads, options.device.c_str()};
    trine_model* model = nullptr;
    detail::check(trine_model_load(reinterpret_cast<const char*>(name.c_str()), &given, &model));
    return Model({model, trine_model_free});
  }

  // What the model is made for: "sentence_embedding", or "logits", ...
  Outputs run(const Batch& batch) const {
    std::vector<std::string> names;
    for (const trine_output& output : infos()) {
      if (output.by_default) names.emplace_back(output.name);
    }
    return run(batch, names);
  }
  // These outputs, and nothing that only others need.
  Outputs run(const Batch& batch, const std::vector<std::string>& names) const {
    std::vector<Output> all;
    std::vector<const char*> wanted;
    std::vector<float*> places;
    for (const std::string& name : names) {
      const trine_output found = info(name);
      const auto columns = static_cast<size_t>(found.columns);
      const size_t rows = found.per_token ? batch.ids().size() : batch.size();
      all.push_back(
          {name, rows, columns, found.per_token != 0, std::vector<float>(rows * columns)});
      wanted.push_back(name.c_str());
      places.push_back(all.back().values.data());
    }
    const auto or_null = [](std::span<const int32_t> s) { return s.empty() ? nullptr : s.data(); };
    const trine_batch given{sizeof(trine_batch),          batch.ids().data(),
                            batch.offsets().data(),       batch.size(),
                            or_null(batch.token_types()), or_null(batch.prompt_lengths())};
    detail::check(trine_model_run(get(), &given, wanted.data(), wanted.size(), places.data()));
    return Outputs(std::move(all));
  }

  // Texts, or pairs of them, as batch; what is computed is what `run` computes.
  Outputs encode(std::initializer_list<Text> texts, const EncodeOptions& options = {}) const {
    return run(tokenize(texts, options));
  }
  template <TextRange Range>
  Outputs encode(const Range& texts, const EncodeOptions& options = {}) const {
    return run(tokenize(texts, options));
  }
  // Their tokens, cut to what the model takes. The prompt that an embedder has by default goes
  // before each unless the options name one.
  Batch tokenize(std::initializer_list<Text> texts, const EncodeOptions& options = {}) const {
    return tokenizer().batch(texts, with_prompt(options));
  }
  template <TextRange Range>
  Batch tokenize(const Range& texts, const EncodeOptions& options = {}) const {
    return tokenizer().batch(texts, with_prompt(options));
  }
  // Read at the first call. ModelError when the file has none, or one that the library doesn't
  // know.
  Tokenizer tokenizer() const {
    trine_tokenizer* tokenizer = nullptr;
    detail::check(trine_model_tokenizer(get(), &tokenizer));
    return Tokenizer(tokenizer);
  }
  bool has_tokenizer() const { return trine_model_metadata(get(), "tokenizer.json") != nullptr; }
  // What sentence-transformers puts before a text, by name: "query", ...
  std::optional<std::string> prompt(const std::string& name) const {
    const char* const text = trine_model_prompt(get(), name.c_str());
    return text == nullptr ? std::nullopt : std::optional<std::string>(text);
  }

  // A prompt to its end, or to max_length(); for several at once, or token by token, there is
  // Generator. InputError for a model that is no decoder, and for a prompt that leaves no room.
  Generation generate(std::span<const int32_t> prompt, const GenerateOptions& options = {}) const;
  Generation generate(std::string_view prompt, const GenerateOptions& options = {}) const;

  std::vector<std::string> outputs() const {
    std::vector<std::string> names;
    for (const trine_output& output : infos()) names.emplace_back(output.name);
    return names;
  }
  // "embed", "classify", "tag", "ask", "fill", "choose", "detect" or "generate".
  std::string task() const { return metadata("trine.task").value_or(""); }
  // Names of the columns of a classifier's or tagger's logits, as config.json has them.
  std::vector<std::string> labels() const {
    std::vector<std::string> names;
    for (size_t i = 0; i < trine_model_label_count(get()); ++i)
      names.emplace_back(trine_model_label(get(), i));
    return names;
  }
  // Tokens of the longest sequence, of a generator with what it writes; 0 where any goes.
  int64_t max_length() const noexcept { return trine_model_max_length(get()); }
  std::string isa() const { return trine_model_isa(get()); }
  std::string device() const { return trine_model_device(get()); }
  std::string device_reason() const { return trine_model_device_reason(get()); }
  // What else is in the file: "config.json", "tokenizer.json", "trine.version", ...
  std::optional<std::string> metadata(const std::string& key) const {
    const char* const text = trine_model_metadata(get(), key.c_str());
    return text == nullptr ? std::nullopt : std::optional<std::string>(text);
  }

  trine_model* get() const noexcept { return model_.get(); }

 private:
  explicit Model(std::shared_ptr<trine_model> model) : model_(std::move(model)) {}
  EncodeOptions with_prompt(EncodeOptions options) const {
    if (!options.prompt) options.prompt = trine_model_prompt(get(), nullptr);
    return options;
  }
  std::vector<trine_output> infos() const {
    std::vector<trine_output> all;
    for (size_t i = 0; i < trine_model_output_count(get()); ++i)
      all.push_back(trine_model_output(get(), i));
    return all;
  }
  trine_output info(const std::string& name) const {
    std::string known;
    for (const trine_output& output : infos()) {
      if (output.name == name) return output;
      known += (known.empty() ? "" : ", ") + std::string(output.name);
    }
    throw InputError("no output \"" + name + "\"; the model has " + known);
  }

  std::shared_ptr<trine_model> model_;
};

// Sequences that are being written, each with its keys and values; they share runs. For one thread
// at a time where prompts are texts; with token ids calls from many threads wait for each other.
class Generator {
 public:
  // capacity: most tokens of a sequence, its prompt included. InputError for a model that is no
  // decoder.
  Generator(Model model, int64_t capacity) : model_(std::move(model)) {
    trine_generator* generator = nullptr;
    detail::check(trine_generator_new(model_.get(), capacity, &generator));
    generator_ = {generator, trine_generator_free};
  }

  // A new sequence; returns its number. InputError when the prompt leaves no room.
  int64_t add(std::span<const int32_t> prompt, const GenerateOptions& o = {}) {
    // Null stands for the model's own, and so might an empty list's data.
    const int32_t none = 0;
    trine_sampling given{};
    given.size = sizeof given;
    given.max_new_tokens = o.max_new_tokens, given.min_new_tokens = o.min_new_tokens;
    given.temperature = o.temperature, given.top_k = o.top_k, given.top_p = o.top_p;
    given.min_p = o.min_p, given.repetition_penalty = o.repetition_penalty, given.seed = o.seed;
    if (o.end_tokens) {
      given.end_tokens = o.end_tokens->empty() ? &none : o.end_tokens->data();
      given.end_token_count = o.end_tokens->size();
    }
    int64_t sequence = 0;
    detail::check(
        trine_generator_add(generator_.get(), prompt.data(), prompt.size(), &given, &sequence));
    return sequence;
  }
  // The same of a text; its tokens come with text, too.
  int64_t add(std::string_view prompt, const GenerateOptions& o = {}) {
    const Tokenizer tokenizer = model_.tokenizer();
    const std::vector<int32_t> ids =
        tokenizer.encode(prompt, {.max_length = INT64_MAX, .special_tokens = o.special_tokens});
    const int64_t sequence = add(std::span<const int32_t>(ids), o);
    streams_.emplace(sequence, TextStream(tokenizer));
    return sequence;
  }
  // One run: the next token of each sequence whose prompt is through, and a part of the prompts of
  // others. Empty while there are only prompts; all is done when no sequence is active.
  std::vector<GeneratedToken> step() {
    std::vector<trine_token> tokens(active());
    size_t count = 0;
    detail::check(trine_generator_step(generator_.get(), tokens.data(), tokens.size(), &count));
    std::vector<GeneratedToken> out;
    for (const trine_token& t : std::span(tokens).first(count)) {
      out.push_back({t.sequence, t.token, t.logprob, static_cast<Finish>(t.finish)});
      const auto stream = streams_.find(t.sequence);
      if (stream == streams_.end()) continue;
      GeneratedToken& last = out.back();
      if (last.finish == Finish::kNone || last.finish == Finish::kLength)
        last.text = stream->second.push(t.token);
      if (last.finish == Finish::kNone) continue;
      last.text += stream->second.flush();
      streams_.erase(stream);
    }
    return out;
  }
  size_t active() const { return trine_generator_active(generator_.get()); }
  // Ends a sequence, finished or not, and gives its memory back.
  void remove(int64_t sequence) {
    detail::check(trine_generator_remove(generator_.get(), sequence));
    streams_.erase(sequence);
  }

 private:
  Model model_;
  std::map<int64_t, TextStream> streams_;  // of sequences whose prompts are texts
  std::unique_ptr<trine_generator, void (*)(trine_generator*)> generator_{nullptr, nullptr};
};

namespace detail {

inline Generation finish(Generator& generator) {
  Generation out;
  while (generator.active() > 0) {
    for (const GeneratedToken& t : generator.step()) {
      out.finish = t.finish;
      out.text += t.text;
      if (t.finish == Finish::kNotANumber) break;
      out.tokens.push_back(t.token);
      out.logprobs.push_back(t.logprob);
    }
  }
  return out;
}

}  // namespace detail

namespace detail {

// The options with no more new tokens than the model has room for behind a prompt.
inline GenerateOptions fit(const Model& model, size_t prompt, GenerateOptions options) {
  const auto tokens = static_cast<int64_t>(prompt);
  const int64_t most = model.max_length() > 0 ? model.max_length() : INT64_MAX;
  if (tokens >= most)
    throw InputError("the prompt has " + std::to_string(tokens) + " tokens, the model takes " +
                     std::to_string(most) + ": there is no room for another");
  if (options.max_new_tokens > most - tokens) options.max_new_tokens = most - tokens;
  return options;
}

}  // namespace detail

inline Generation Model::generate(std::span<const int32_t> prompt,
                                  const GenerateOptions& options) const {
  const GenerateOptions fitted = detail::fit(*this, prompt.size(), options);
  Generator generator(*this, static_cast<int64_t>(prompt.size()) + fitted.max_new_tokens);
  generator.add(prompt, fitted);
  return detail::finish(generator);
}

inline Generation Model::generate(std::string_view prompt, const GenerateOptions& options) const {
  const Tokenizer tokenizer = this->tokenizer();
  const size_t tokens =
      tokenizer.encode(prompt, {.max_length = INT64_MAX, .special_tokens = options.special_tokens})
          .size();
  const GenerateOptions fitted = detail::fit(*this, tokens, options);
  Generator generator(*this, static_cast<int64_t>(tokens) + fitted.max_new_tokens);
  generator.add(prompt, fitted);
  return detail::finish(generator);
}

}  // namespace trine
