// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"

namespace trine::text {

// Turns tokens into pieces of text. Safe to use from many threads.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual void run(std::vector<std::string>& tokens) const = 0;
};

// One after the other; sequences within sequences are laid out flat.
class Decoders {
 public:
  Decoders() = default;
  // Of tokenizer.json's "decoder"; ModelError for one that isn't known or is incomplete.
  explicit Decoders(const Json& description);

  // The text: with spaces between the tokens where there is no decoder.
  std::string run(std::vector<std::string> tokens) const;
  // Whether <0x0A> stands for a byte.
  bool byte_fallback() const noexcept { return byte_fallback_; }

 private:
  void add(const Json& description);

  std::vector<std::unique_ptr<const Decoder>> all_;
  bool there_ = false, byte_fallback_ = false;
};

// The byte that a token like <0x0A> stands for, -1 for another token.
int byte_of_token(std::string_view token) noexcept;

}  // namespace trine::text
