// SPDX-License-Identifier: Apache-2.0
// The C++ interface of trine: compiled models, run on ragged batches of token ids. C++20.
// Everything that can fail throws one of the errors below, before a run's first step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trine_c.h"

namespace trine {

// Of the library, "0.1.0".
inline std::string version() { return trine_version(); }

class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A file that is broken or of another version: the text names it and says what to do.
class ModelError : public Error {
  using Error::Error;
};
// What the caller passed cannot be run: an id out of range, a sequence too long, an unknown output.
class InputError : public Error {
  using Error::Error;
};
// The device is missing, lacks something or failed.
class DeviceError : public Error {
  using Error::Error;
};

namespace detail {

inline void check(trine_error* error) {
  if (error == nullptr) return;
  const int32_t kind = trine_error_kind(error);
  const std::string text = trine_error_text(error);
  trine_error_free(error);
  if (kind == TRINE_MODEL_ERROR) throw ModelError(text);
  if (kind == TRINE_INPUT_ERROR) throw InputError(text);
  if (kind == TRINE_DEVICE_ERROR) throw DeviceError(text);
  throw Error(text);
}

}  // namespace detail

// Sequences laid end to end: sequence b is ids[offsets[b]] .. ids[offsets[b + 1] - 1]. No padding.
// A value; for one thread at a time.
class Batch {
 public:
  // token_types: empty, or one per id. prompt_length: how many of the first tokens belong to a
  // prompt that pooling leaves out when the model's pooling says so.
  void add(std::span<const int32_t> ids, std::span<const int32_t> token_types = {},
           int32_t prompt_length = 0) {
    const bool types_so_far = token_types_.size() == ids_.size() && !ids_.empty();
    if (!token_types.empty() && token_types.size() != ids.size())
      throw InputError("sequence " + std::to_string(size()) + " has " + std::to_string(ids.size()) +
                       " ids and " + std::to_string(token_types.size()) + " token types");
    // Token types are given for all sequences or for none; the first one that has them makes the
    // earlier ones 0.
    if (!token_types.empty() || types_so_far) {
      token_types_.resize(ids_.size());
      token_types_.insert(token_types_.end(), token_types.begin(), token_types.end());
      token_types_.resize(ids_.size() + ids.size());
    }
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    offsets_.push_back(static_cast<int32_t>(ids_.size()));
    prompt_lengths_.push_back(prompt_length);
  }
  void add(std::initializer_list<int32_t> ids) { add(std::span(ids.begin(), ids.size())); }
  void clear() noexcept {
    ids_.clear();
    token_types_.clear();
    offsets_.resize(1);
    prompt_lengths_.clear();
  }

  size_t size() const noexcept { return prompt_lengths_.size(); }
  std::span<const int32_t> ids() const noexcept { return ids_; }
  std::span<const int32_t> token_types() const noexcept { return token_types_; }
  std::span<const int32_t> offsets() const noexcept { return offsets_; }
  std::span<const int32_t> prompt_lengths() const noexcept { return prompt_lengths_; }

 private:
  std::vector<int32_t> ids_;
  std::vector<int32_t> token_types_;
  std::vector<int32_t> offsets_{0};
  std::vector<int32_t> prompt_lengths_;
};

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
};

enum class Finish : int32_t { kNone, kEndToken, kLength, kNotANumber };

struct GeneratedToken {
  int64_t sequence;
  int32_t token;
  float logprob;  // of the model's own distribution
  Finish finish;
};

struct Generation {
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
  // may be replaced by a rename.
  static Model load(const std::filesystem::path& path, const Options& options = {}) {
    const std::u8string name = path.u8string();
    const trine_options given{sizeof(trine_options), options.threads};
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

  // A prompt to its end; for several at once, or token by token, there is Generator. InputError for
  // a model that is no decoder, and for a prompt that leaves no room.
  Generation generate(std::span<const int32_t> prompt, const GenerateOptions& options = {}) const;

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
  // Tokens of the longest sequence; 0 where any goes.
  int64_t max_length() const noexcept { return trine_model_max_length(get()); }
  std::string isa() const { return trine_model_isa(get()); }
  // What else is in the file: "config.json", "tokenizer.json", "trine.version", ...
  std::optional<std::string> metadata(const std::string& key) const {
    const char* const text = trine_model_metadata(get(), key.c_str());
    return text == nullptr ? std::nullopt : std::optional<std::string>(text);
  }

  trine_model* get() const noexcept { return model_.get(); }

 private:
  explicit Model(std::shared_ptr<trine_model> model) : model_(std::move(model)) {}
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

// Sequences that are being written, each with its keys and values; they share runs. Calls from many
// threads wait for each other.
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
  // One run: the next token of each sequence whose prompt is through, and a part of the prompts of
  // others. Empty while there are only prompts; all is done when no sequence is active.
  std::vector<GeneratedToken> step() {
    std::vector<trine_token> tokens(active());
    size_t count = 0;
    detail::check(trine_generator_step(generator_.get(), tokens.data(), tokens.size(), &count));
    std::vector<GeneratedToken> out;
    for (const trine_token& t : std::span(tokens).first(count))
      out.push_back({t.sequence, t.token, t.logprob, static_cast<Finish>(t.finish)});
    return out;
  }
  size_t active() const { return trine_generator_active(generator_.get()); }
  // Ends a sequence, finished or not, and gives its memory back.
  void remove(int64_t sequence) {
    detail::check(trine_generator_remove(generator_.get(), sequence));
  }

 private:
  Model model_;
  std::unique_ptr<trine_generator, void (*)(trine_generator*)> generator_{nullptr, nullptr};
};

inline Generation Model::generate(std::span<const int32_t> prompt,
                                  const GenerateOptions& options) const {
  Generator generator(*this, static_cast<int64_t>(prompt.size()) + options.max_new_tokens);
  generator.add(prompt, options);
  Generation out;
  while (generator.active() > 0) {
    for (const GeneratedToken& t : generator.step()) {
      out.finish = t.finish;
      if (t.finish == Finish::kNotANumber) break;
      out.tokens.push_back(t.token);
      out.logprobs.push_back(t.logprob);
    }
  }
  return out;
}

}  // namespace trine
