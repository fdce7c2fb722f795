// SPDX-License-Identifier: Apache-2.0
// A conversation in a terminal, a line at a time, with a language model:
//
//   trine compile MODEL -o chat.trine && chat chat.trine
//
// Chat templates are programs in a language of their own (jinja), which this library does not run:
// it takes prompts that are rendered already. But nearly all templates put the same text around
// each message, and `trine compile` has found out which: "trine.chat.user" and its like in the
// file.
#include <trine.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

namespace {

// What the template makes of a message of this role.
std::string framed(const trine::Model& model, const std::string& role, const std::string& content) {
  const auto frame = model.metadata("trine.chat." + role);
  if (!frame)
    throw trine::InputError("the file doesn't say what its chat template puts around messages");
  const std::string mark = "{content}";
  const size_t at = frame->find(mark);
  return frame->substr(0, at) + content + frame->substr(at + mark.size());
}

}  // namespace

int main(int count, char** arguments) try {
  if (count < 2) {
    std::fprintf(stderr, "usage: %s MODEL.trine [MAX_NEW_TOKENS [TEMPERATURE]]\n", arguments[0]);
    return 2;
  }
  const auto model = trine::Model::load(arguments[1]);
  const trine::GenerateOptions options{
      .max_new_tokens = count > 2 ? std::atoi(arguments[2]) : 256,
      .temperature = count > 3 ? static_cast<float>(std::atof(arguments[3])) : 0.0f,
      .special_tokens = false,  // the template's own are in the prompt
  };
  const trine::Tokenizer tokenizer = model.tokenizer();
  std::string prompt = model.metadata("trine.chat.begin").value_or("");
  for (std::string line; std::cout << "> " << std::flush, std::getline(std::cin, line);) {
    prompt += framed(model, "user", line);
    const std::string opened = prompt + model.metadata("trine.chat.answer").value_or("");
    const std::vector<int32_t> ids =
        tokenizer.encode(opened, {.max_length = INT64_MAX, .special_tokens = false});
    trine::Generator generator(model, static_cast<int64_t>(ids.size()) + options.max_new_tokens);
    generator.add(opened, options);
    std::string answer;
    while (generator.active() > 0) {
      for (const trine::GeneratedToken& t : generator.step()) {
        answer += t.text;
        std::cout << t.text << std::flush;
      }
    }
    std::cout << "\n";
    prompt += framed(model, "assistant", answer);
  }
  std::cout << "\n";
  return 0;
} catch (const trine::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
