// SPDX-License-Identifier: Apache-2.0
// Vectors of token ids, from a compiled file, without Python:
//
//   trine compile demo -o model.trine
//   echo "0 2058 2007 2788 2" | embed model.trine
//
// Standard input has the ids of a text on each line, special tokens included. (The library does not
// read text yet: in Python, model.tokenize([text]).ids gives them.) Out comes a line of numbers for
// each, and on standard error how much each is like the first.
#include <trine.h>

#include <cmath>
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

}  // namespace

int main(int count, char** arguments) try {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s MODEL.trine < lines of token ids\n", arguments[0]);
    return 2;
  }
  const auto model = trine::Model::load(arguments[1], {.threads = 2});
  trine::Batch batch;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::vector<int32_t> ids;
    for (int32_t id; words >> id;) ids.push_back(id);
    batch.add(ids);
  }
  const trine::Outputs out = model.run(batch);
  const trine::Output& vectors = out["sentence_embedding"];
  for (size_t row = 0; row < vectors.rows; ++row) {
    for (const float value : vectors[row]) std::printf("%.9g ", double{value});
    std::printf("\n");
    std::fprintf(stderr, "%zu: %.4f\n", row, cosine(vectors[0], vectors[row]));
  }
  return 0;
} catch (const trine::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
