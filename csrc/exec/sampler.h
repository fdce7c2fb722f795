// SPDX-License-Identifier: Apache-2.0
// From a row of logits to a token. The steps and their order are those of transformers' generate():
// repetition penalty, end tokens masked up to min_new_tokens; then temperature, top_k, top_p,
// min_p.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace trine {

struct Sampling {
  float temperature = 0;  // 0: the largest logit, the lowest id of equal ones
  int32_t top_k = 0;      // 0: all
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;  // of all tokens so far, the prompt's included
  int32_t min_new_tokens = 0;
  int32_t logprobs = -1;  // how many of the most likely tokens are reported, -1: nothing is
  uint64_t seed = 0;
  std::vector<int32_t> end_tokens = {};
};

struct Sample {
  int32_t token = -1;
  // Of the model's own distribution, before penalties and filters.
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;
};

// The n-th number of a sequence's stream, in [0, 1): the first 53 bits of Philox4x32-10 (Salmon et
// al. 2011) with the seed as key and n as counter. A sequence's draws depend on its seed and on how
// many tokens it has, on nothing else.
double uniform(uint64_t seed, uint64_t n) noexcept;

// Of one sequence.
class Sampler {
 public:
  // InputError when an option is out of range.
  explicit Sampler(Sampling);

  const Sampling& options() const noexcept { return options_; }
  // A token of the prompt, or one that was generated.
  void see(int32_t token);
  // The n-th token to be generated, n from 0; `logits` are changed. False when they hold a NaN or
  // when the largest is infinite.
  bool pick(std::span<float> logits, int64_t n, Sample&);

 private:
  struct Candidate {
    float logit;
    int32_t id;
    double weight;
  };
  void report(std::span<const float> logits, Sample&) const;
  int32_t draw(std::span<const float> logits, float largest, int64_t n);
  int32_t find(double left) const;
  void keep_top_k(size_t k);
  void sort_candidates();
  void keep_top_p(double total);

  Sampling options_;
  std::vector<int32_t> seen_;  // sorted
  // Of the draw under way: exp of each logit over the largest, sums and largest of blocks of them.
  std::vector<float> weights_, tops_;
  std::vector<double> sums_;
  std::vector<Candidate> candidates_, sorted_;
};

}  // namespace trine
