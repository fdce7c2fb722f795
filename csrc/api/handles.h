// SPDX-License-Identifier: Apache-2.0
// What the handles of trine_c.h are, and how exceptions become errors.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "exec/compiled.h"
#include "exec/devices.h"
#include "exec/session.h"
#include "text/tokenizer.h"
#include "trine_c.h"

namespace trine::api {

// ModelError when the file has none, or one that isn't known.
std::shared_ptr<const text::Tokenizer> tokenizer_of(const CompiledFile& file);

}  // namespace trine::api

struct trine_error {
  int32_t kind;
  std::string text;
};

struct trine_model {
  trine_model(const std::filesystem::path& path, int threads, trine::Device chosen)
      : file(path),
        device(std::move(chosen)),
        engine(file.engine(make_backend(device, file.dtype(), threads))),
        info(engine->info().backend) {
    const trine::Json model =
        trine::Json::parse(text("trine.model"), file.name() + ": trine.model");
    const trine::Json config =
        trine::Json::parse(text("config.json"), file.name() + ": config.json");
    if (const trine::Json& limit = model.at("limit"); !limit.is_null()) max_length = limit.as_int();
    const auto& graph_outputs = engine->graph().outputs;
    const bool generates = std::any_of(graph_outputs.begin(), graph_outputs.end(),
                                       [](const auto& o) { return o.first == "next_logits"; });
    if (generates && file.metadata().contains("trine.tokenizer")) {
      // Rotary positions end nowhere; what a decoder was trained for, its tokenizer says.
      const trine::Json settings =
          trine::Json::parse(text("trine.tokenizer"), file.name() + ": trine.tokenizer");
      const trine::Json* const limit = settings.find("limit");
      if (limit != nullptr && !limit->is_null()) max_length = limit->as_int();
    }
    for (const trine::Json& id : model.at("end_tokens").as_array())
      end_tokens.push_back(static_cast<int32_t>(id.as_int()));
    const trine::Json::Array& made_for = model.at("outputs").as_array();
    for (const auto& [name, id] : engine->graph().outputs) {
      const trine::Shape& shape = engine->graph()[id].shape;
      const bool wanted =
          std::find(made_for.begin(), made_for.end(), trine::Json(name)) != made_for.end();
      outputs.push_back({name.c_str(), shape.cols(), shape.rows == trine::Rows::kTokens, wanted});
    }
    if (const trine::Json* names = config.find("id2label"); names != nullptr && !names->is_null()) {
      for (size_t i = 0; const trine::Json* name = names->find(trine::cat(i)); ++i)
        labels.push_back(name->as_string());
    }
    if (const trine::Json* sentence = model.find("sentence"); sentence != nullptr) {
      if (const trine::Json* named = sentence->find("prompts"); named != nullptr) {
        for (const auto& [name, prompt] : named->as_object()) prompts[name] = prompt.as_string();
      }
      const trine::Json* name = sentence->find("default_prompt_name");
      const auto found =
          name == nullptr || name->is_null() ? prompts.end() : prompts.find(name->as_string());
      prompts[""] = found == prompts.end() ? "" : found->second;
    }
    // What is asked for by default is ready before the first run.
    std::vector<std::string> first;
    for (const trine_output& o : outputs) {
      if (o.by_default) first.emplace_back(o.name);
    }
    engine->plan(first);
  }

  const std::string& text(std::string_view key) const {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end())
      throw trine::ModelError(
          trine::cat(file.name(), ": its metadata has no ", key, "; compile the model again"));
    return found->second;
  }

  // Read at the first call with text.
  std::shared_ptr<const trine::text::Tokenizer> tokenizer() const {
    const std::lock_guard lock(tokenizer_mutex);
    if (read_tokenizer == nullptr) read_tokenizer = trine::api::tokenizer_of(file);
    return read_tokenizer;
  }

  trine::CompiledFile file;
  trine::Device device;
  std::shared_ptr<trine::Engine> engine;
  trine::BackendInfo info;
  std::vector<trine_output> outputs;
  std::vector<std::string> labels;
  std::vector<int32_t> end_tokens;
  int64_t max_length = 0;
  std::map<std::string, std::string, std::less<>> prompts;  // "" for the one by default

 private:
  mutable std::mutex tokenizer_mutex;
  mutable std::shared_ptr<const trine::text::Tokenizer> read_tokenizer;
};

namespace trine::api {

inline trine_error no_memory{TRINE_OTHER_ERROR, "out of memory"};

// Null, or the exception as an error: none crosses this interface.
template <class Work>
trine_error* guarded(const Work& work) noexcept {
  try {
    try {
      work();
      return nullptr;
    } catch (const trine::ModelError& e) {
      return new trine_error{TRINE_MODEL_ERROR, e.what()};
    } catch (const trine::InputError& e) {
      return new trine_error{TRINE_INPUT_ERROR, e.what()};
    } catch (const trine::DeviceError& e) {
      return new trine_error{TRINE_DEVICE_ERROR, e.what()};
    } catch (const std::bad_alloc&) {
      return &no_memory;
    } catch (const std::exception& e) {
      return new trine_error{TRINE_OTHER_ERROR, e.what()};
    }
  } catch (...) {
    return &no_memory;
  }
}

template <class T>
void require(const T* given, size_t size, const char* what) {
  if (given == nullptr || given->size < size)
    throw trine::InputError(trine::cat(what, ": null, or too small"));
}

}  // namespace trine::api
