// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "text/model.h"
#include "text/vocabulary.h"

namespace trine::text {

// A model whose vocabulary lists ids by text.
class VocabularyModel : public TokenModel {
 public:
  explicit VocabularyModel(const ModelFields& fields);
  int32_t find(std::string_view token) const override { return vocabulary_.find(token); }
  bool text(int32_t id, std::string_view& out) const override { return vocabulary_.text(id, out); }
  size_t size() const override { return vocabulary_.size(); }

 protected:
  Vocabulary vocabulary_;
};

}  // namespace trine::text
