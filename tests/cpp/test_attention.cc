// SPDX-License-Identifier: Apache-2.0
// Attention on every instruction set: against ref/, and bit for bit against itself however the work
// is cut.
#include <cmath>

#include "attention_testing.h"

namespace trine::test {
namespace {

struct Shape {
  std::vector<int32_t> lengths;
  int32_t heads, kv_heads, head_dim;
  bool bias, causal;
  int64_t misalign;
};

std::string name_of(const Shape& s) {
  return cat("lengths ", s.lengths, ", heads ", s.heads, "/", s.kv_heads, " of ", s.head_dim,
             s.bias ? ", bias" : "", s.causal ? ", causal" : "");
}

// Inputs laid out as a model has them: q, k and v beside each other in one matrix, with gaps.
struct Problem {
  explicit Problem(const Shape& s, uint64_t seed)
      : shape(s),
        q(rows(s), int64_t{s.heads} * s.head_dim, int64_t{s.heads} * s.head_dim + 5, s.misalign),
        k(rows(s), int64_t{s.kv_heads} * s.head_dim, int64_t{s.kv_heads} * s.head_dim + 3,
          s.misalign + 1),
        v(rows(s), int64_t{s.kv_heads} * s.head_dim, int64_t{s.kv_heads} * s.head_dim,
          s.misalign + 2),
        bias(s.heads, 2 * span(s) - 1, 2 * span(s) - 1, 1) {
    Random random(seed);
    q.fill(random);
    k.fill(random);
    v.fill(random);
    bias.fill(random, -2, 2);
    offsets.push_back(0);
    for (const int32_t length : s.lengths) offsets.push_back(offsets.back() + length);
  }
  static int64_t rows(const Shape& s) {
    int64_t sum = 0;
    for (const int32_t length : s.lengths) sum += length;
    return sum;
  }
  static int32_t span(const Shape& s) {
    int32_t longest = 1;
    for (const int32_t length : s.lengths) longest = std::max(longest, length);
    return longest;
  }

  AttentionArgs args(Matrix<float>& y) const {
    AttentionArgs a = {};
    a.q = q.data(), a.k = k.data(), a.v = v.data();
    a.ldq = q.ld(), a.ldk = k.ld(), a.ldv = v.ld();
    a.bias = shape.bias ? bias.data() : nullptr;
    a.span = span(shape);
    a.y = y.data(), a.ldy = y.ld();
    a.batch = {offsets.data(), int32_t(shape.lengths.size())};
    a.heads = shape.heads, a.kv_heads = shape.kv_heads, a.head_dim = shape.head_dim;
    a.scale = float(1.0 / std::sqrt(double(shape.head_dim)));
    a.causal = shape.causal;
    return a;
  }
  AttentionArgs on_cpu(Matrix<float>& y, bool) const { return args(y); }
  AttentionArgs on_ref(Matrix<float>& y) const { return args(y); }
  Matrix<float> output() const { return Matrix<float>(q.rows(), q.cols(), q.cols() + 2, 1); }

  Shape shape;
  Matrix<float> q, k, v, bias;
  std::vector<int32_t> offsets;
};

double largest_norm(const Matrix<float>& x, int64_t head_dim) {
  double largest = 0.0;
  for (int64_t i = 0; i < x.rows(); ++i) {
    for (int64_t c = 0; c < x.cols(); c += head_dim) {
      double squares = 0.0;
      for (int64_t j = c; j < c + head_dim; ++j) squares += double(x.at(i, j)) * double(x.at(i, j));
      largest = std::max(largest, std::sqrt(squares));
    }
  }
  return largest;
}

void compare_with_ref(const Shape& shape, uint64_t seed) {
  const Problem problem(shape, seed);
  Matrix<float> y = problem.output();
  // A score sums head_dim products, |score| <= scale |q| |k| + |bias| by Cauchy and Schwarz (1.01:
  // rounding to bf16 may lengthen both); scaling, the bias and the distance to the largest score
  // add a few roundings of twice that.
  const int64_t d = shape.head_dim;
  const double score = 1.01 * double(problem.args(y).scale) * largest_norm(problem.q, d) *
                           largest_norm(problem.k, d) +
                       (shape.bias ? 2.0 : 0.0);
  compare_attentions(name_of(shape), problem, Problem::span(shape),
                     2 * likely_gamma(d + 6) * score);
}

}  // namespace

TEST(attention_of_every_short_length) {
  for (int32_t length = 0; length <= 40; ++length) {
    const bool odd = length % 2 == 1;
    compare_with_ref({{length}, 2, 2, 16, odd, false, length % 4}, uint64_t(length));
    compare_with_ref({{length, 1, 40 - length}, 2, 1, 20, !odd, true, 0}, uint64_t(length));
    compare_with_ref({{length}, 2, 1, 32, !odd, false, 1}, uint64_t(length));
  }
}

TEST(attention_of_every_head_dim) {
  for (const int32_t dim : {1,  3,  4,  8,  12, 15, 16, 17, 20,  24,  31,  32, 33,
                            40, 48, 63, 64, 65, 72, 80, 96, 100, 128, 256, 300}) {
    compare_with_ref({{19, 0, 70}, 2, 2, dim, true, false, 1}, uint64_t(dim));
    compare_with_ref({{33}, 2, 2, dim, false, true, 0}, uint64_t(dim));
  }
}

TEST(attention_of_long_sequences) {
  for (const int32_t length :
       {47, 48, 63, 64, 65, 100, 127, 128, 129, 255, 256, 257, 300, 511, 512, 513, 600}) {
    compare_with_ref({{length}, 1, 1, 32, length % 2 == 0, length % 3 == 0, 0}, uint64_t(length));
  }
  compare_with_ref({{530}, 2, 2, 64, true, true, 3}, 1);
}

TEST(attention_with_shared_keys) {
  compare_with_ref({{17, 50}, 6, 2, 16, true, false, 0}, 1);
  compare_with_ref({{17, 50}, 6, 3, 16, false, true, 0}, 2);
  compare_with_ref({{9}, 4, 1, 64, false, false, 0}, 3);
}

// One sequence has the same bits alone, in a batch, cut anywhere into ranges of queries, and for
// any thread count.
TEST(attention_does_not_depend_on_its_surroundings) {
  for (const auto& [dim, causal] : {std::pair{20, false}, {20, true}, {32, false}}) {
    const Shape shape = {{5, 0, 61, 1, 130, 16, 300}, 3, 3, dim, true, causal, 1};
    const Problem problem(shape, 11);
    Random random(12);
    for (const Attention& attention : attentions()) {
      Matrix<float> batch = problem.output();
      attention.run(problem.args(batch));

      Matrix<float> alone = problem.output();
      for (int32_t b = 0; b < int32_t(shape.lengths.size()); ++b) {
        AttentionArgs args = problem.args(alone);
        const int64_t first = problem.offsets[size_t(b)];
        const int32_t offsets[] = {0, shape.lengths[size_t(b)]};
        args.q += first * args.ldq, args.k += first * args.ldk, args.v += first * args.ldv,
            args.y += first * args.ldy;
        args.batch = {offsets, 1};
        attention.run(args);
      }
      CHECK(identical(batch, alone));

      Matrix<float> cut = problem.output();
      const AttentionArgs args = problem.args(cut);
      Scratch scratch(attention.kernel().scratch_bytes(300, args.head_dim, 0));
      for (int32_t b = 0; b < args.batch.sequences; ++b) {
        const int64_t length = shape.lengths[size_t(b)];
        for (int64_t q0 = 0, q1 = 0; q0 < length; q0 = q1) {
          q1 = std::min(length, q0 + 1 + random.below(q0 % 2 == 0 ? 5 : 50));
          for (int32_t h = 0; h < args.heads; ++h)
            attention.kernel().run(args, b, h, q0, q1, scratch.data());
        }
      }
      CHECK(identical(batch, cut));
      CHECK(scratch.intact());
    }
  }
}

TEST(attention_does_not_depend_on_threads) {
  const Problem problem({{700, 0, 3, 250}, 3, 3, 32, true, false, 0}, 21);
  for (const Attention& attention : attentions()) {
    Matrix<float> want = problem.output();
    attention.run(problem.args(want));
    for (const int threads : {1, 2, 5}) {
      cpu::ThreadPool pool(threads);
      const size_t stride = (attention.kernel().scratch_bytes(700, 32, 0) + 63) / 64 * 64;
      Scratch scratch(stride * size_t(pool.size()));
      Matrix<float> y = problem.output();
      attention.drive(problem.args(y), {attention.table, &pool, scratch.data(), stride});
      CHECK(identical(want, y));
      CHECK(y.intact());
      CHECK(scratch.intact());
    }
  }
}

// The first or the last token's row alone has the bits that it has among all rows.
TEST(attention_of_one_query) {
  const std::vector<Shape> shapes = {{{5, 0, 61, 1, 130, 16, 300}, 4, 2, 20, false, true, 1},
                                     {{5, 0, 61, 1, 130, 16, 300}, 3, 3, 64, true, false, 0},
                                     {{2, 33, 0, 1}, 6, 1, 5, false, true, 2},
                                     {{700, 40}, 3, 1, 32, true, true, 0},
                                     {{0, 0}, 2, 1, 16, false, true, 0}};
  for (const Shape& shape : shapes) {
    const Problem problem(shape, 31);
    const auto sequences = int64_t(shape.lengths.size());
    for (const Queries which : {Queries::kFirst, Queries::kLast}) {
      Matrix<float> q(sequences, problem.q.cols(), problem.q.cols() + 1, 3);
      const auto row_of = [&](int64_t b) {
        return which == Queries::kFirst ? problem.offsets[size_t(b)]
                                        : problem.offsets[size_t(b) + 1] - 1;
      };
      q.fill(0.5f);
      for (int64_t b = 0; b < sequences; ++b) {
        if (shape.lengths[size_t(b)] == 0) continue;
        for (int64_t c = 0; c < q.cols(); ++c) q.at(b, c) = problem.q.at(row_of(b), c);
      }
      std::vector<Attention> all_kernels = attentions();
      all_kernels.insert(all_kernels.end(), {{nullptr, false}, {nullptr, true}});
      for (const Attention& attention : all_kernels) {
        Matrix<float> all = problem.output();
        attention.run(problem.args(all));
        for (const int threads : {1, 3}) {
          Matrix<float> y(sequences, q.cols(), q.cols() + 2, 1);
          AttentionArgs args = problem.args(y);
          args.q = q.data(), args.ldq = q.ld(), args.queries = which;
          if (attention.table) {
            cpu::ThreadPool pool(threads);
            const size_t stride = attention.kernel().scratch_bytes(700, shape.head_dim, 0);
            Scratch scratch(stride * size_t(threads));
            attention.drive(args, {attention.table, &pool, scratch.data(), stride});
            CHECK(scratch.intact());
          } else {
            attention.specify(args);
          }
          CHECK(y.intact());
          for (int64_t b = 0; b < sequences; ++b) {
            const bool empty = shape.lengths[size_t(b)] == 0;
            for (int64_t c = 0; c < y.cols(); ++c)
              CHECK_EQ(y.at(b, c), empty ? 0.0f : all.at(row_of(b), c));
          }
        }
      }
    }
  }
}

// Nothing is read or written past the last element, not even what a mask would drop.
TEST(attention_stops_at_the_last_element) {
  Random random(41);
  for (int32_t length = 1; length <= 70; ++length) {
    const int32_t dim = 1 + length % 37;
    const int64_t size = int64_t{length} * dim;
    PageEnd q(size), k(size), v(size), y(size), bias(2 * length - 1);
    for (PageEnd* p : {&q, &k, &v, &bias}) p->fill(random);
    const int32_t offsets[] = {0, length};
    AttentionArgs args = {};
    args.q = q.data(), args.k = k.data(), args.v = v.data(), args.y = y.data();
    args.ldq = args.ldk = args.ldv = args.ldy = dim;
    args.bias = bias.data(), args.span = length;
    args.batch = {offsets, 1};
    args.heads = args.kv_heads = 1;
    args.head_dim = dim;
    args.scale = 1.0f;
    for (const Attention& attention : attentions()) attention.run(args);
  }
}

// A large common score must cancel, not overflow; and one key may take everything.
TEST(attention_of_large_scores) {
  for (const Attention& attention : attentions()) {
    Matrix<float> q(4, 16), k(4, 16), v(4, 16), y(4, 16);
    q.fill(100.0f);
    k.fill(100.0f);
    k.at(2, 0) = 103.0f;  // ahead by 300: the others' share is 0 even of 1e38
    v.fill(1e38f);
    for (int64_t j = 0; j < 16; ++j) v.at(2, j) = 2.0f;
    const int32_t offsets[] = {0, 4};
    AttentionArgs args = {};
    args.q = q.data(), args.k = k.data(), args.v = v.data(), args.y = y.data();
    args.ldq = args.ldk = args.ldv = args.ldy = 16;
    args.batch = {offsets, 1};
    args.heads = args.kv_heads = 1;
    args.head_dim = 16;
    args.scale = 1.0f;
    attention.run(args);
    CHECK_EQ(y.at(0, 0), 2.0f);
    CHECK_EQ(y.at(3, 15), 2.0f);
  }
}

// A bias of minus infinity hides a key altogether.
TEST(attention_with_infinite_bias) {
  for (const Attention& attention : attentions()) {
    Matrix<float> x(40, 32), v(40, 32), y(40, 32), bias(1, 79);
    Random random(51);
    x.fill(random);
    v.fill(1e38f);
    v.at(7, 0) = 3.0f;
    bias.fill(-std::numeric_limits<float>::infinity());
    bias.at(0, 39 + 7) = 1.0f;  // query 0 sees key 7
    const int32_t offsets[] = {0, 40};
    AttentionArgs args = {};
    args.q = x.data(), args.k = x.data(), args.v = v.data(), args.y = y.data();
    args.ldq = args.ldk = args.ldv = args.ldy = 32;
    args.bias = bias.data(), args.span = 40;
    args.batch = {offsets, 1};
    args.heads = args.kv_heads = 1;
    args.head_dim = 32;
    args.scale = 1.0f;
    attention.run(args);
    CHECK_EQ(y.at(0, 0), 3.0f);
  }
}

// A NaN reaches the queries that see its key, and no others.
TEST(attention_with_nan) {
  for (const Attention& attention : attentions()) {
    for (const int64_t key : {20, 21}) {
      Matrix<float> x(40, 16), y(40, 16);
      Random random(31);
      x.fill(random);
      Matrix<float> values(40, 16);
      values.copy_from(x);
      values.at(key, 3) = std::numeric_limits<float>::quiet_NaN();
      const int32_t offsets[] = {0, 40};
      AttentionArgs args = {};
      args.q = x.data(), args.k = x.data(), args.v = values.data(), args.y = y.data();
      args.ldq = args.ldk = args.ldv = args.ldy = 16;
      args.batch = {offsets, 1};
      args.heads = args.kv_heads = 1;
      args.head_dim = 16;
      args.scale = 0.25f;
      args.causal = true;
      attention.run(args);
      for (int64_t i = 0; i < 40; ++i) CHECK_EQ(std::isnan(y.at(i, 3)), i >= key);
      CHECK(!std::isnan(y.at(39, 4)));
    }
  }
}

// Instructions for bf16 and what stands in for them give the same bits.
TEST(attention_bf16_is_emulated_to_the_bit) {
  const cpu::KernelTable* emulated = cpu::kernel_table(cpu::Isa::kAvx512);
  const cpu::KernelTable* native = cpu::kernel_table(cpu::Isa::kAvx512Bf16);
  if (emulated == nullptr || native == nullptr) return;
  for (const bool causal : {false, true}) {
    for (const int32_t dim : {1, 20, 64, 600}) {
      const Problem problem({{5, 0, 61, 1, 130, 16, 700}, 2, 1, dim, !causal, causal, 1}, 71);
      Matrix<float> want = problem.output(), y = problem.output();
      Attention{emulated, true}.run(problem.args(want));
      Attention{native, true}.run(problem.args(y));
      CHECK(identical(want, y));
    }
  }
}

}  // namespace trine::test
