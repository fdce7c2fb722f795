// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <deque>

#include "api/handles.h"
#include "base/version.h"

using namespace trine;
using namespace trine::api;

struct trine_generator {
  trine_generator(const trine_model& model, int64_t capacity)
      : session(model.engine, {.capacity = capacity}), end_tokens(model.end_tokens) {}

  Session session;
  std::vector<int32_t> end_tokens;
  std::mutex mutex;  // of what is ready; the session has its own
  std::deque<trine_token> ready;
};

const char* trine_version() { return core_version(); }

int32_t trine_error_kind(const trine_error* error) { return error->kind; }
const char* trine_error_text(const trine_error* error) { return error->text.c_str(); }
void trine_error_free(trine_error* error) {
  if (error != &no_memory) delete error;
}

trine_error* trine_model_load(const char* path, const trine_options* options, trine_model** model) {
  return guarded([&] {
    // A caller that was compiled before `device` was there has none.
    require(options, offsetof(trine_options, device), "trine_options");
    const bool named = options->size >= sizeof(trine_options) && options->device != nullptr;
    const std::string name = path;
    *model = new trine_model(std::u8string(name.begin(), name.end()), options->threads,
                             choose_device(named ? options->device : "auto"));
  });
}

void trine_model_free(trine_model* model) { delete model; }
size_t trine_model_output_count(const trine_model* model) { return model->outputs.size(); }
trine_output trine_model_output(const trine_model* model, size_t i) { return model->outputs[i]; }

trine_error* trine_model_run(const trine_model* model, const trine_batch* batch,
                             const char* const* outputs, size_t count, float* const* results) {
  return guarded([&] {
    require(batch, sizeof(trine_batch), "trine_batch");
    const size_t sequences = batch->sequences;
    const std::span offsets(batch->offsets, sequences + 1);
    const auto tokens = static_cast<size_t>(std::max(offsets.back(), 0));
    const auto optional = [](const int32_t* from, size_t n) {
      return from == nullptr ? std::span<const int32_t>() : std::span(from, n);
    };
    model->engine->run_finite(model->engine->plan({outputs, outputs + count}),
                              {{batch->ids, tokens},
                               offsets,
                               optional(batch->token_types, tokens),
                               optional(batch->prompt_lengths, sequences)},
                              {results, count});
  });
}

const char* trine_model_metadata(const trine_model* model, const char* key) {
  const auto found = model->file.metadata().find(std::string_view(key));
  return found == model->file.metadata().end() ? nullptr : found->second.c_str();
}

const char* trine_model_isa(const trine_model* model) { return model->info.isa.c_str(); }
const char* trine_model_device(const trine_model* model) { return model->info.device.c_str(); }
const char* trine_model_device_reason(const trine_model* model) {
  return model->device.reason.c_str();
}
int64_t trine_model_max_length(const trine_model* model) { return model->max_length; }
size_t trine_model_label_count(const trine_model* model) { return model->labels.size(); }
const char* trine_model_label(const trine_model* model, size_t i) {
  return model->labels[i].c_str();
}
trine_error* trine_generator_new(const trine_model* model, int64_t capacity,
                                 trine_generator** generator) {
  return guarded([&] { *generator = new trine_generator(*model, capacity); });
}

void trine_generator_free(trine_generator* generator) { delete generator; }

trine_error* trine_generator_add(trine_generator* generator, const int32_t* prompt, size_t tokens,
                                 const trine_sampling* sampling, int64_t* sequence) {
  return guarded([&] {
    require(sampling, sizeof(trine_sampling), "trine_sampling");
    const trine_sampling& s = *sampling;
    std::vector<int32_t> ends = generator->end_tokens;
    if (s.end_tokens != nullptr) ends.assign(s.end_tokens, s.end_tokens + s.end_token_count);
    *sequence = generator->session.add({prompt, tokens}, s.max_new_tokens,
                                       {.temperature = s.temperature,
                                        .top_k = s.top_k,
                                        .top_p = s.top_p,
                                        .min_p = s.min_p,
                                        .repetition_penalty = s.repetition_penalty,
                                        .min_new_tokens = s.min_new_tokens,
                                        .logprobs = 0,
                                        .seed = s.seed,
                                        .end_tokens = std::move(ends)});
  });
}

trine_error* trine_generator_step(trine_generator* generator, trine_token* tokens, size_t room,
                                  size_t* count) {
  return guarded([&] {
    const std::lock_guard lock(generator->mutex);
    auto& ready = generator->ready;
    if (ready.empty()) {
      for (const Generated& g : generator->session.step())
        ready.push_back(
            {g.sequence, g.sample.token, g.sample.logprob, static_cast<int32_t>(g.finish)});
    }
    // Sequences may have joined since the caller asked how many there are: the rest waits.
    for (*count = 0; *count < room && !ready.empty(); ready.pop_front())
      tokens[(*count)++] = ready.front();
  });
}

size_t trine_generator_active(const trine_generator* generator) {
  auto* const g = const_cast<trine_generator*>(generator);
  const std::lock_guard lock(g->mutex);
  return std::max(static_cast<size_t>(g->session.active()), g->ready.size());
}

trine_error* trine_generator_remove(trine_generator* generator, int64_t sequence) {
  return guarded([&] { generator->session.remove(sequence); });
}
