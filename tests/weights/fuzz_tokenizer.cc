// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/utf8.h"
#include "text/tokenizer.h"
#include "trine.h"

// A tokenizer.json, a zero byte, a text: one of the library's errors, or ids below the vocabulary's
// end that decode to UTF-8, all at once as in pieces. The seeds in tests/weights/tokenizer are
// whole files with texts.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(all.find('\0'), all.size());
  const std::string_view text = all.substr(std::min(cut + 1, all.size())).substr(0, 4096);
  try {
    const auto tokenizer = std::make_shared<const trine::text::Tokenizer>(
        all.substr(0, cut), R"({"limit":40,"side":"left","token_types":true})", "fuzz");
    const std::string_view second = text.substr(text.size() / 2);
    for (const std::string_view* pair : {static_cast<const std::string_view*>(nullptr), &second}) {
      trine::text::Encoded out;
      tokenizer->encode(text, pair, {}, out);
      if (out.ids.size() != out.types.size() || out.ids.size() > 40) std::abort();
      trine::text::TextStream stream(tokenizer);
      std::string pieces;
      for (const int32_t id : out.ids) pieces += stream.push(id);
      pieces += stream.flush();
      if (!trine::is_utf8(pieces) || !trine::is_utf8(tokenizer->decode(out.ids, false)))
        std::abort();
    }
  } catch (const trine::Error&) {
  }
  return 0;
}
