// SPDX-License-Identifier: Apache-2.0
// What the tests of attention share: every kernel of it, in float32 and in bf16, and how far it may
// be from ref/.
#pragma once

#include <string>
#include <vector>

#include "amx_emulated.h"
#include "cpu/ops.h"
#include "kernel_testing.h"
#include "ref/ref.h"
#include "weights/convert.h"

namespace trine::test {

// Attention of one instruction set, or the reference, in one of the two types.
struct Attention {
  const cpu::KernelTable* table;  // null: the reference
  bool bf16;

  std::string name() const {
    return cat(bf16 ? "attention_bf16 on " : "attention on ", table ? table->name : "ref");
  }
  const cpu::AttentionKernel& kernel() const {
    return bf16 ? table->attention_bf16 : table->attention;
  }
  void specify(const AttentionArgs& args) const {
    bf16 ? ref::attention_bf16(args) : ref::attention(args);
  }
  void drive(const AttentionArgs& args, const cpu::Workers& workers) const {
    bf16 ? cpu::attention_bf16(args, workers) : cpu::attention(args, workers);
  }
  // Sequence by sequence, head by head, in scratch of just the size that it asks for.
  void run(const AttentionArgs& args) const {
    if (!table) return specify(args);
    int64_t longest = 0;
    for (int32_t b = 0; b < args.batch.sequences; ++b)
      longest = std::max<int64_t>(longest, args.batch.offsets[b + 1] - args.batch.offsets[b]);
    Scratch scratch(kernel().scratch_bytes(longest, args.head_dim, args.position_columns));
    for (int32_t b = 0; b < args.batch.sequences; ++b) {
      for (int32_t h = 0; h < args.heads; ++h) {
        kernel().run(args, b, h, 0, args.batch.offsets[b + 1] - args.batch.offsets[b],
                     scratch.data());
      }
    }
    CHECK(scratch.intact());
  }
};

inline std::vector<Attention> attentions() {
  std::vector<Attention> all;
  for (const cpu::KernelTable* table : kernel_tables()) {
    for (const bool bf16 : {false, true}) all.push_back({table, bf16});
  }
  all.push_back({&cpu::amx_emulated::table(), true});
  return all;
}

// Rounding to bf16 turns the smallest error of a weight into 2^-8 of it where a border lies
// between: what that may add to each element of `out`, given the relative error of the weights.
inline void add_border_errors(const AttentionArgs& args, double error, Matrix<float>& out) {
  const auto rounded = [](double x) { return double{bf16_to_f32(f32_to_bf16(float(x)))}; };
  for (int32_t b = 0; b < args.batch.sequences; ++b) {
    const int64_t first = args.batch.offsets[b];
    for (int64_t i = first; i < args.batch.offsets[b + 1]; ++i) {
      for (int64_t h = 0; h < args.heads; ++h) {
        const float* v = args.v + first * args.ldv + h * args.kv_heads / args.heads * args.head_dim;
        const std::vector<double> p = ref::attention_weights_bf16(args, b, h, i - first);
        double total = 0.0;
        for (const double weight : p) total += weight;
        for (size_t j = 0; j < p.size(); ++j) {
          const double between = rounded(p[j] * (1 + error)) - rounded(p[j] * (1 - error));
          for (int64_t c = 0; between > 0.0 && c < args.head_dim; ++c) {
            out.at(i, h * args.head_dim + c) +=
                float(between / total * std::fabs(rounded(v[int64_t(j) * args.ldv + c])) * 1.01);
          }
        }
      }
    }
  }
}

// Every kernel against ref/. A Problem has q, k, v, output(), and arguments for either side. An
// exponent of a weight is off by `exponent_error` at most: the exponential turns that into a
// relative error of the weight, and adds two ulp (four units); a weight appears above and below the
// fraction bar, the sums over keys add gamma(L) above and, with at least four lanes, gamma(L / 4 +
// 2) below.
template <class Problem>
void compare_attentions(const std::string& what, const Problem& problem, int64_t longest,
                        double exponent_error) {
  // sum over j of p_j |v_j|: what the errors of the p_j are multiplied with.
  Matrix<float> magnitude(problem.v.rows(), problem.v.cols(), problem.v.ld());
  for (int64_t i = 0; i < magnitude.rows(); ++i) {
    for (int64_t j = 0; j < magnitude.cols(); ++j)
      magnitude.at(i, j) = std::fabs(problem.v.at(i, j));
  }
  const double relative = 1.01 * (2 * exponent_error + 8 * kUnit + likely_gamma(longest) +
                                  likely_gamma(longest / 4 + 8));
  for (const bool bf16 : {false, true}) {
    Matrix<float> want = problem.output(), spread = problem.output();
    const Attention ref = {nullptr, bf16};
    ref.run(problem.on_ref(want));
    AttentionArgs absolute = problem.on_ref(spread);
    absolute.v = magnitude.data();
    ref.run(absolute);
    Matrix<float> borders(want.rows(), want.cols());
    borders.fill(0.0f);
    if (bf16) add_border_errors(problem.on_ref(want), 2 * exponent_error + 4 * kUnit, borders);
    const auto tolerance = [&](int64_t i, int64_t j) {
      return relative * double(spread.at(i, j)) + double(borders.at(i, j)) + 1e-37;
    };
    for (const Attention& attention : attentions()) {
      if (attention.bf16 != bf16) continue;
      Matrix<float> y = problem.output();
      attention.run(problem.on_cpu(y, bf16));
      CHECK_CLOSE(cat(attention.name(), ", ", what), y, want, tolerance);
      CHECK(y.intact());
    }
  }
}

}  // namespace trine::test
