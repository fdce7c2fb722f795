// SPDX-License-Identifier: Apache-2.0
// Labels of texts, one on each line of standard input:
//
//   trine compile FOLDER -o model.trine
//   echo "Great film." | classify model.trine
//
// A tab between two texts makes a pair of them, for models that judge one beside the other.
#include <trine.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

namespace {

// The greatest of the probabilities, and where it is.
std::pair<size_t, double> best(std::span<const float> logits) {
  const auto top = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(double{x} - *top);
  return {static_cast<size_t>(top - logits.begin()), 1 / sum};
}

}  // namespace

int main(int count, char** arguments) try {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s MODEL.trine < lines\n", arguments[0]);
    return 2;
  }
  const auto model = trine::Model::load(arguments[1]);
  const std::vector<std::string> labels = model.labels();
  std::vector<std::string> lines;
  for (std::string line; std::getline(std::cin, line);) lines.push_back(line);

  std::vector<trine::Text> texts;
  for (const std::string& line : lines) {
    const std::string_view all = line;
    const size_t tab = all.find('\t');
    if (tab == all.npos) {
      texts.emplace_back(all);
    } else {
      texts.emplace_back(all.substr(0, tab), all.substr(tab + 1));
    }
  }
  const trine::Outputs out = model.encode(texts);
  const trine::Output& logits = out["logits"];
  for (size_t row = 0; row < logits.rows; ++row) {
    const auto [label, score] = best(logits[row]);
    const std::string name = label < labels.size() ? labels[label] : std::to_string(label);
    std::printf("%s\t%.6f\t%s\n", name.c_str(), score, lines[row].c_str());
  }
  return 0;
} catch (const trine::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
