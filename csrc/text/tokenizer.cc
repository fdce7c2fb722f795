// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace trine::text {

// Memory of one call.
struct Tokenizer::Room {
  std::string valid;
  Pieces pieces, spare;
  Scratch scratch;
};

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// How many tokens of each part to keep.
void fit(const size_t sizes[2], bool pair, size_t room, Cut cut, int64_t limit, size_t kept[2]) {
  if (!pair) {
    kept[0] = room;
    return;
  }
  if (cut == Cut::kLongestFirst) {
    size_t few = std::min(sizes[0], sizes[1]);
    size_t many = std::max(few, room - std::min(room, few));
    if (few + many > room) {
      few = room / 2;
      many = room - few;
    }
    kept[0] = sizes[0] <= sizes[1] ? few : many;
    kept[1] = sizes[0] <= sizes[1] ? many : few;
    return;
  }
  const int whole = cut == Cut::kOnlyFirst ? 1 : 0;
  if (sizes[whole] >= room)
    throw InputError(cat("the ", whole == 1 ? "second" : "first", " text of a pair has ",
                         sizes[whole], " tokens: with a limit of ", limit,
                         " nothing of the other is left"));
  kept[whole] = sizes[whole];
  kept[1 - whole] = room - sizes[whole];
}

}  // namespace

Tokenizer::Tokenizer(std::string_view json, std::string_view settings, const std::string& source) {
  read(json, source + ": tokenizer.json");
  if (!settings.empty()) read_settings(settings, source + ": trine.tokenizer");
}

void Tokenizer::read(std::string_view json, const std::string& source) {
  JsonReader reader(json, source);
  Json normalizer, splitter, processor, decoder, added = Json::Array();
  const auto kept = [&](const std::string& key) -> Json* {
    if (key == "normalizer") return &normalizer;
    if (key == "pre_tokenizer") return &splitter;
    if (key == "post_processor") return &processor;
    if (key == "decoder") return &decoder;
    return key == "added_tokens" ? &added : nullptr;
  };
  std::string key;
  const auto read_all = [&] {
    for (reader.begin_object(); reader.next_key(key);) {
      if (key == "model") {
        model_ = read_token_model(reader);
      } else if (Json* place = kept(key)) {
        *place = reader.value();
      } else if (key == "version") {
        const Json version = reader.value();
        if (version.as_string() != "1.0")
          throw ModelError(cat("version ", quoted(version.as_string()), ", expected '1.0'"));
      } else {
        reader.skip();  // truncation and padding, which are the caller's
      }
    }
    reader.finish();
    if (model_ == nullptr) throw ModelError("there is no model");
    normalizers_ = Normalizers(normalizer);
    splitters_ = Splitters(splitter);
    processor_ = Processor(processor);
    decoders_ = Decoders(decoder);
    added_ = AddedTokens(added, *model_, normalizers_);
  };
  try {
    read_all();
  } catch (const ModelError& error) {
    const std::string_view what = error.what();
    if (what.starts_with(source)) throw;
    throw ModelError(cat(source, ": ", what));
  }
}

void Tokenizer::read_settings(std::string_view settings, const std::string& source) {
  const Json json = Json::parse(settings, source);
  try {
    if (const Json* limit = json.find("limit"); limit != nullptr && !limit->is_null())
      limit_ = limit->as_int();
    if (const Json* types = json.find("token_types"); types != nullptr && !types->is_null())
      token_types_ = types->as_bool();
    if (const Json* side = json.find("side"); side != nullptr && !side->is_null())
      cuts_left_ = side->as_string() == "left";
  } catch (const ModelError& error) {
    throw ModelError(cat(source, ": ", error.what()));
  }
}

// The tokens of a text, without those that are put around it.
void Tokenizer::part(std::string_view text, Room& room, std::vector<int32_t>& out) const {
  if (!is_utf8(text)) text = room.valid = replace_invalid(text);
  if (text.size() > INT32_MAX / 4) throw InputError(cat("a text of ", text.size(), " bytes"));
  added_.split(text, normalizers_, room.pieces);
  splitters_.run(room.pieces, room.spare);
  for (const Piece& piece : room.pieces.all) {
    if (piece.token != Piece::kWord) {
      out.push_back(piece.token);
    } else {
      model_->encode(room.pieces.of(piece), room.scratch, out);
    }
  }
}

void Tokenizer::encode(std::string_view first, const std::string_view* second,
                       const EncodeSettings& how, Encoded& out) const {
  Room room;
  std::vector<int32_t> parts[2];
  part(first, room, parts[0]);
  const bool pair = second != nullptr;
  if (pair) part(*second, room, parts[1]);
  const size_t sizes[2] = {parts[0].size(), parts[1].size()};
  const size_t around = how.special ? processor_.added(pair) : 0;
  const size_t whole = sizes[0] + sizes[1] + around;
  const std::optional<int64_t> limit = how.limit ? how.limit : limit_;
  std::span<const int32_t> kept[2] = {parts[0], parts[1]};
  out = {};
  if (limit && static_cast<int64_t>(whole) > *limit) {
    if (!how.truncate)
      throw InputError(cat("a text has ", whole, " tokens, the limit is ", *limit));
    if (*limit < static_cast<int64_t>(around))
      throw InputError(
          cat("a limit of ", *limit, " tokens leaves no room beside the special tokens"));
    size_t most[2] = {0, 0};
    fit(sizes, pair, static_cast<size_t>(*limit) - around, how.cut, *limit, most);
    for (int i = 0; i < 2; ++i) {
      const size_t size = std::min(most[i], sizes[i]);
      kept[i] = cuts_left_ ? kept[i].last(size) : kept[i].first(size);
      out.cut += sizes[i] - size;
    }
  }
  out.ends_special =
      processor_.run(kept[0], pair ? &kept[1] : nullptr, how.special, out.ids, out.types);
  // Without a processor nothing gives parts that were cut the types that whole texts have.
  if (out.cut > 0 && !processor_.there()) std::fill(out.types.begin(), out.types.end(), 0);
}

size_t Tokenizer::prompt_length(std::string_view prompt, std::optional<int64_t> limit) const {
  Encoded encoded;
  encode(prompt, nullptr, {.limit = limit}, encoded);
  return encoded.ids.size() - (encoded.ends_special ? 1 : 0);
}

int32_t Tokenizer::find(std::string_view token) const {
  const int32_t added = added_.find(token);
  return added != TokenModel::kNone ? added : model_->find(token);
}

bool Tokenizer::text(int32_t id, std::string_view& out) const {
  return added_.text(id, out) || model_->text(id, out);
}

bool Tokenizer::is_byte(int32_t id) const {
  std::string_view token;
  return decoders_.byte_fallback() && text(id, token) && byte_of_token(token) >= 0;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special) const {
  std::vector<std::string> tokens;
  std::string_view token;
  for (const int32_t id : ids) {
    if (!text(id, token) || (skip_special && added_.hides(token))) continue;
    tokens.emplace_back(token);
  }
  return decoders_.run(std::move(tokens));
}

std::string TextStream::push(int32_t token) {
  if (tokenizer_->is_special(token)) return "";
  tokens_.push_back(token);
  if (tokenizer_->is_byte(token)) return "";
  return show(false);
}

std::string TextStream::show(bool last) {
  const auto shown = static_cast<std::ptrdiff_t>(shown_);
  const std::string before = tokenizer_->decode({tokens_.begin(), tokens_.begin() + shown}, true);
  const std::string now = tokenizer_->decode(tokens_, true);
  if (!last && now.ends_with(kReplacement)) return "";
  // Context may look otherwise with more behind it: as many characters as it had are cut.
  size_t at = 0;
  for (const char c : before) {
    if (!is_tail(c) && at < now.size()) at += char_length(now[at]);
  }
  std::string piece = now.substr(at);
  if (!piece.empty()) {
    tokens_.erase(tokens_.begin(), tokens_.begin() + shown);
    shown_ = tokens_.size();
  }
  return piece;
}

}  // namespace trine::text
