// SPDX-License-Identifier: Apache-2.0
// Two sequences of token ids, continued side by side and printed as they come:
//
//   trine compile tests/golden/examples/chat -o chat.trine && generate chat.trine 40 0.8
#include <trine.h>

#include <cstdio>
#include <cstdlib>

int main(int count, char** arguments) try {
  if (count != 4) {
    std::fprintf(stderr, "usage: %s MODEL.trine NEW_TOKENS TEMPERATURE\n", arguments[0]);
    return 2;
  }
  const auto model = trine::Model::load(arguments[1]);
  const trine::GenerateOptions options{
      .max_new_tokens = std::atoi(arguments[2]),
      .temperature = static_cast<float>(std::atof(arguments[3])),
      .seed = 7,
  };
  trine::Generator generator(model, 8 + options.max_new_tokens);
  for (const std::vector<int32_t>& prompt : {std::vector{5, 6, 7}, std::vector{9, 8, 7, 6}})
    generator.add(prompt, options);
  while (generator.active() > 0) {
    for (const trine::GeneratedToken& t : generator.step())
      std::printf("%d:%d\n", static_cast<int>(t.sequence), t.token);
  }
  return 0;
} catch (const trine::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
