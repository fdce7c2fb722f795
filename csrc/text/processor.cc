// SPDX-License-Identifier: Apache-2.0
#include "text/processor.h"

#include "base/error.h"
#include "text/vocabulary.h"

namespace trine::text {
namespace {

int32_t token_of(const Json& id) {
  if (id.as_uint() > Vocabulary::kMaxId)
    throw ModelError(
        cat("post_processor: the id ", id.as_uint(), ", at most ", Vocabulary::kMaxId));
  return static_cast<int32_t>(id.as_uint());
}

// ["</s>", 2]
int32_t named_token(const Json& pair) {
  if (pair.as_array().size() != 2) throw ModelError("post_processor: expected a token and its id");
  return token_of(pair.as_array()[1]);
}

}  // namespace

Processor::Processor(const Json& description) {
  there_ = !description.is_null();
  if (there_) add(description);
}

void Processor::add(const Json& json) {
  const std::string& type = json.at("type").as_string();
  if (type == "Sequence") {
    for (const Json& one : json.at("processors").as_array()) add(one);
    return;
  }
  if (type == "ByteLevel") return;  // changes offsets alone
  if (type != "TemplateProcessing" && type != "BertProcessing" && type != "RobertaProcessing")
    throw ModelError(cat("post_processor ", quoted(type), " is not known to the C++ tokenizer"));
  if (has_template_) throw ModelError("post_processor: two that add tokens, one is known");
  has_template_ = true;
  if (type == "TemplateProcessing") {
    const Json& tokens = json.at("special_tokens");
    single_ = read_template(json.at("single"), tokens, false);
    pair_ = read_template(json.at("pair"), tokens, true);
  } else {
    const int32_t cls = named_token(json.at("cls")), sep = named_token(json.at("sep"));
    const bool bert = type == "BertProcessing";
    const int32_t second = bert ? 1 : 0;
    single_ = {{.tokens = {cls}}, {.text = 0}, {.tokens = {sep}}};
    pair_ = single_;
    if (!bert) pair_.push_back({.tokens = {sep}});
    pair_.push_back({.text = 1, .type = second});
    pair_.push_back({.tokens = {sep}, .type = second});
  }
  added_single_ = count(single_);
  added_pair_ = count(pair_);
}

size_t Processor::count(const Template& parts) {
  size_t all = 0;
  for (const Part& part : parts) all += part.tokens.size();
  return all;
}

Processor::Template Processor::read_template(const Json& parts, const Json& tokens, bool pair) {
  Template out;
  for (const Json& json : parts.as_array()) {
    Part part;
    const Json* const text = json.find("Sequence");
    const Json& described = text != nullptr ? *text : json.at("SpecialToken");
    const std::string& id = described.at("id").as_string();
    part.type = token_of(described.at("type_id"));
    if (text != nullptr) {
      if (id != "A" && id != "B") throw ModelError(cat("post_processor: no sequence ", quoted(id)));
      if (id == "B" && !pair) throw ModelError("post_processor: B in the template of one text");
      part.text = id == "A" ? 0 : 1;
    } else {
      for (const Json& token : tokens.at(id).at("ids").as_array())
        part.tokens.push_back(token_of(token));
    }
    out.push_back(std::move(part));
  }
  return out;
}

bool Processor::run(std::span<const int32_t> first, const std::span<const int32_t>* second,
                    bool special, std::vector<int32_t>& ids, std::vector<int32_t>& types) const {
  bool last = false;
  for (const Part& part : second == nullptr ? single_ : pair_) {
    std::span<const int32_t> tokens = part.text == 0 ? first : part.tokens;
    if (part.text == 1) tokens = *second;
    if (part.text < 0 && !special) continue;
    ids.insert(ids.end(), tokens.begin(), tokens.end());
    types.insert(types.end(), tokens.size(), part.type);
    if (!tokens.empty()) last = part.text < 0;
  }
  return last;
}

}  // namespace trine::text
