// SPDX-License-Identifier: Apache-2.0
#include "text/added.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"
#include "text/vocabulary.h"

namespace trine::text {
namespace {

// The start of the last character of a text that isn't empty.
size_t last_character(std::string_view text) noexcept {
  size_t at = text.size() - 1;
  while (is_tail(text[at])) --at;
  return at;
}

bool ends_with(std::string_view text, unsigned flag) noexcept {
  if (text.empty()) return false;
  const char* at = text.data() + last_character(text);
  return has(next_char(at), flag);
}

bool starts_with(std::string_view text, unsigned flag) noexcept {
  if (text.empty()) return false;
  const char* at = text.data();
  return has(next_char(at), flag);
}

}  // namespace

AddedTokens::AddedTokens(const Json& list, const TokenModel& model,
                         const Normalizers& normalizers) {
  std::vector<Trie::Entry> raw, normal;
  const auto count = static_cast<int32_t>(model.size());
  for (const Json& json : list.as_array()) {
    Token token;
    token.content = json.at("content").as_string();
    token.single_word = json.at("single_word").as_bool();
    token.lstrip = json.at("lstrip").as_bool();
    token.rstrip = json.at("rstrip").as_bool();
    token.normalized = json.at("normalized").as_bool();
    token.special = json.at("special").as_bool();
    const uint64_t id = json.at("id").as_uint();
    if (id > Vocabulary::kMaxId)
      throw ModelError(cat("an added token has the id ", id, ", at most ", Vocabulary::kMaxId));
    if (token.content.empty()) continue;
    // The library gives ids itself: the model's, or the next one behind all.
    token.id = find(token.content);
    if (token.id == TokenModel::kNone) token.id = model.find(token.content);
    if (token.id == TokenModel::kNone) {
      token.id = count + static_cast<int32_t>(new_);
      ++new_;
    }
    if (static_cast<uint64_t>(token.id) != id)
      throw ModelError(cat("the added token ", quoted(token.content), " has the id ", id,
                           ", by its place in the list it gets ", token.id));
    end_ = std::max(end_, token.id + 1);
    if (token.normalized) {
      Buffer text{token.content, 0}, spare;
      normalizers.run(text, spare);
      token.normal = text.text;
      if (token.normal.empty())
        throw ModelError(cat("nothing is left of the added token ", quoted(token.content)));
    }
    by_content_[token.content] = token.id;
    if (token.special) hidden_.insert(token.content);
    const auto [place, added] = by_id_.emplace(token.id, tokens_.size());
    if (added) {
      tokens_.push_back(std::move(token));
    } else {
      tokens_[place->second] = std::move(token);
    }
  }
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const Token& token = tokens_[i];
    auto& entries = token.normalized ? normal : raw;
    entries.push_back({token.normalized ? token.normal : token.content, static_cast<int32_t>(i)});
  }
  for (auto* entries : {&raw, &normal}) {
    std::unordered_set<std::string_view> seen;
    for (const Trie::Entry& entry : *entries) {
      if (!seen.insert(entry.key).second)
        throw ModelError(cat("two added tokens are ", quoted(entry.key), " once normalized"));
    }
  }
  raw_ = Trie(std::move(raw));
  normal_ = Trie(std::move(normal));
}

template <class OnToken, class OnText>
void AddedTokens::find_all(std::string_view text, const Trie& trie, const OnToken& on_token,
                           const OnText& on_text) const {
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    if (!trie.begins(text[at])) {
      ++at;
      continue;
    }
    size_t length = 0;
    int32_t index = Trie::kNone;
    trie.prefixes(text.substr(at), [&](size_t size, int32_t value) {
      length = size;
      index = value;
    });
    if (index == Trie::kNone) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + length;
    at = end;
    const Token& token = tokens_[static_cast<size_t>(index)];
    if (token.single_word &&
        (ends_with(text.substr(0, begin), kWord) || starts_with(text.substr(end), kWord)))
      continue;
    // White space that the token before took is gone.
    if (token.lstrip) {
      while (begin > 0 && ends_with(text.substr(0, begin), kSpace))
        begin = last_character(text.substr(0, begin));
      begin = std::max(begin, done);
    }
    if (token.rstrip) {
      while (starts_with(text.substr(end), kSpace)) end += char_length(text[end]);
    }
    if (done < begin) on_text(done, begin);
    if (begin < end) on_token(token, begin, end);
    done = end;
  }
  if (done < text.size()) on_text(done, text.size());
}

void AddedTokens::split(std::string_view text, const Normalizers& normalizers, Pieces& out) const {
  out.clear();
  Buffer buffer, spare;
  const auto put_token = [&](const Token& token, size_t, size_t) {
    const auto at = static_cast<uint32_t>(out.text.size());
    out.all.push_back({at, at, token.id, 0});
  };
  find_all(text, raw_, put_token, [&](size_t begin, size_t end) {
    buffer.text = text.substr(begin, end - begin);
    buffer.front = begin == 0 ? char_length(text[0]) : 0;
    normalizers.run(buffer, spare);
    const auto base = static_cast<uint32_t>(out.text.size());
    out.text += buffer.text;
    const Piece whole{base, static_cast<uint32_t>(out.text.size()), Piece::kWord,
                      static_cast<uint32_t>(buffer.front)};
    find_all(buffer.text, normal_, put_token,
             [&](size_t from, size_t to) { out.all.push_back(whole.part(from, to)); });
  });
}

int32_t AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? TokenModel::kNone : found->second;
}

bool AddedTokens::text(int32_t id, std::string_view& out) const {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return false;
  const Token& token = tokens_[found->second];
  out = token.normalized ? token.normal : token.content;
  return true;
}

bool AddedTokens::is_special(int32_t id) const {
  const auto found = by_id_.find(id);
  return found != by_id_.end() && tokens_[found->second].special;
}

}  // namespace trine::text
