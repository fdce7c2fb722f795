// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <fstream>
#include <iterator>

#include "api/handles.h"
#include "base/mapped_file.h"

using namespace trine;
using namespace trine::api;

struct trine_tokenizer {
  std::shared_ptr<const text::Tokenizer> tokenizer;
};

struct trine_tokens {
  std::vector<int32_t> ids, types, offsets{0}, prompts;
  std::vector<int64_t> cut;
  bool has_types = false, has_prompts = false;
};

struct trine_text_stream {
  text::TextStream stream;
  std::string text;
};

namespace trine::api {

std::shared_ptr<const text::Tokenizer> tokenizer_of(const CompiledFile& file) {
  const auto json = file.metadata().find("tokenizer.json");
  const auto settings = file.metadata().find("trine.tokenizer");
  if (json == file.metadata().end())
    throw ModelError(cat(file.name(), ": was compiled without a tokenizer, so this model takes ",
                         "token ids but no text"));
  return std::make_shared<const text::Tokenizer>(
      json->second, settings == file.metadata().end() ? std::string_view() : settings->second,
      file.name());
}

}  // namespace trine::api

namespace {

// A tokenizer.json has no magic number: it begins as JSON does, and a compiled file with a length.
std::shared_ptr<const text::Tokenizer> load(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  char first = 0;
  while (file.get(first) && (first == ' ' || first == '\n' || first == '\r' || first == '\t')) {
  }
  char second = 0;
  file.get(second);
  const bool json = first == '{' && (second == '"' || second == '\n' || second == ' ' ||
                                     second == '\r' || second == '\t' || second == '}');
  if (!json) return tokenizer_of(CompiledFile(path));
  file.clear();
  file.seekg(0);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return std::make_shared<const text::Tokenizer>(text, "", display_name(path));
}

std::string_view view(const char* text, size_t bytes) {
  return text == nullptr ? std::string_view() : std::string_view(text, bytes);
}

}  // namespace

trine_error* trine_tokenizer_load(const char* path, trine_tokenizer** tokenizer) {
  return guarded([&] {
    const std::string name = path;
    *tokenizer = new trine_tokenizer{load(std::u8string(name.begin(), name.end()))};
  });
}

trine_error* trine_model_tokenizer(const trine_model* model, trine_tokenizer** tokenizer) {
  return guarded([&] { *tokenizer = new trine_tokenizer{model->tokenizer()}; });
}

void trine_tokenizer_free(trine_tokenizer* tokenizer) { delete tokenizer; }

trine_error* trine_tokenizer_encode(const trine_tokenizer* tokenizer, const trine_text* texts,
                                    size_t count, const trine_encoding* encoding,
                                    trine_tokens** tokens) {
  return guarded([&] {
    require(encoding, sizeof(trine_encoding), "trine_encoding");
    const trine_encoding& how = *encoding;
    if (how.max_length < 0 || how.cut < TRINE_LONGEST_FIRST || how.cut > TRINE_ONLY_SECOND)
      throw InputError("trine_encoding: max_length or cut is out of range");
    const text::Tokenizer& t = *tokenizer->tokenizer;
    text::EncodeSettings settings{.cut = static_cast<text::Cut>(how.cut),
                                  .truncate = how.refuse == 0,
                                  .special = how.bare == 0};
    if (how.max_length > 0) settings.limit = how.max_length;
    const std::string prompt(view(how.prompt, how.prompt_bytes));
    auto out = std::make_unique<trine_tokens>();
    out->has_types = t.has_types();
    out->has_prompts = !prompt.empty();
    const size_t prompt_length = prompt.empty() ? 0 : t.prompt_length(prompt, settings.limit);
    text::Encoded encoded;
    std::string joined;
    for (size_t i = 0; i < count; ++i) {
      std::string_view first = view(texts[i].first, texts[i].first_bytes);
      const bool pair = texts[i].second != nullptr;
      if (!prompt.empty() && !pair) first = (joined = prompt) += first;
      const std::string_view second = view(texts[i].second, texts[i].second_bytes);
      try {
        t.encode(first, pair ? &second : nullptr, settings, encoded);
      } catch (const InputError& error) {
        throw InputError(cat("input ", i, ": ", error.what()));
      }
      out->ids.insert(out->ids.end(), encoded.ids.begin(), encoded.ids.end());
      out->types.insert(out->types.end(), encoded.types.begin(), encoded.types.end());
      if (out->ids.size() > INT32_MAX) throw InputError("too many tokens for one batch");
      out->offsets.push_back(static_cast<int32_t>(out->ids.size()));
      out->prompts.push_back(static_cast<int32_t>(std::min(prompt_length, encoded.ids.size())));
      out->cut.push_back(static_cast<int64_t>(encoded.cut));
    }
    *tokens = out.release();
  });
}

trine_batch trine_tokens_batch(const trine_tokens* tokens) {
  return {sizeof(trine_batch),
          tokens->ids.data(),
          tokens->offsets.data(),
          tokens->cut.size(),
          tokens->has_types ? tokens->types.data() : nullptr,
          tokens->has_prompts ? tokens->prompts.data() : nullptr};
}

const int64_t* trine_tokens_cut(const trine_tokens* tokens) { return tokens->cut.data(); }
void trine_tokens_free(trine_tokens* tokens) { delete tokens; }

trine_error* trine_tokenizer_decode(const trine_tokenizer* tokenizer, const int32_t* ids,
                                    size_t count, int32_t special, char* text, size_t room,
                                    size_t* bytes) {
  return guarded([&] {
    const std::string decoded = tokenizer->tokenizer->decode({ids, ids + count}, special == 0);
    *bytes = decoded.size();
    if (room > 0) std::memcpy(text, decoded.data(), std::min(room, decoded.size()));
  });
}

int32_t trine_tokenizer_find(const trine_tokenizer* tokenizer, const char* token, size_t bytes) {
  return tokenizer->tokenizer->find(view(token, bytes));
}

const char* trine_tokenizer_token(const trine_tokenizer* tokenizer, int32_t id, size_t* bytes) {
  std::string_view text;
  if (!tokenizer->tokenizer->text(id, text)) return nullptr;
  *bytes = text.size();
  return text.empty() ? "" : text.data();
}

size_t trine_tokenizer_size(const trine_tokenizer* tokenizer) {
  return tokenizer->tokenizer->size();
}

trine_error* trine_text_stream_new(const trine_tokenizer* tokenizer, trine_text_stream** stream) {
  return guarded(
      [&] { *stream = new trine_text_stream{text::TextStream(tokenizer->tokenizer), ""}; });
}

trine_error* trine_text_stream_push(trine_text_stream* stream, int32_t token, const char** text,
                                    size_t* bytes) {
  return guarded([&] {
    stream->text = stream->stream.push(token);
    *text = stream->text.c_str();
    *bytes = stream->text.size();
  });
}

trine_error* trine_text_stream_flush(trine_text_stream* stream, const char** text, size_t* bytes) {
  return guarded([&] {
    stream->text = stream->stream.flush();
    *text = stream->text.c_str();
    *bytes = stream->text.size();
  });
}

void trine_text_stream_free(trine_text_stream* stream) { delete stream; }

const char* trine_model_prompt(const trine_model* model, const char* name) {
  const auto found = model->prompts.find(std::string_view(name == nullptr ? "" : name));
  return found == model->prompts.end() ? nullptr : found->second.c_str();
}
