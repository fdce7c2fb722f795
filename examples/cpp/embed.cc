// SPDX-License-Identifier: Apache-2.0
// Semantic search over the lines of a file, without Python:
//
//   trine compile demo -o model.trine
//   embed model.trine lines.txt "what to look for" [HOW_MANY]
//
// The lines that mean the most alike come first, each with its cosine.
#include <trine.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
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
  if (count != 4 && count != 5) {
    std::fprintf(stderr, "usage: %s MODEL.trine LINES QUERY [HOW_MANY]\n", arguments[0]);
    return 2;
  }
  const auto model = trine::Model::load(arguments[1], {.threads = 2});
  std::ifstream file(arguments[2]);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);

  const trine::Outputs found = model.encode(lines);
  const trine::Outputs asked = model.encode({arguments[3]});
  const trine::Output& vectors = found["sentence_embedding"];
  std::vector<double> scores;
  for (size_t row = 0; row < vectors.rows; ++row)
    scores.push_back(cosine(vectors[row], asked["sentence_embedding"][0]));

  std::vector<size_t> order(lines.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  order.resize(std::min<size_t>(order.size(), count == 5 ? std::atoi(arguments[4]) : 5));
  for (const size_t i : order) std::printf("%.4f %s\n", scores[i], lines[i].c_str());
  return 0;
} catch (const trine::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
