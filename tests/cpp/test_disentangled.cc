// SPDX-License-Identifier: Apache-2.0
// Attention with DeBERTa's position tables, on every instruction set: against ref/, and bit for bit
// against itself however the work is cut.
#include <cmath>

#include "attention_testing.h"
#include "cpu/positions.h"

namespace trine::test {
namespace {

struct Shape {
  std::vector<int32_t> lengths;
  int32_t heads, head_dim;
  int32_t buckets, max_positions;
  bool keys = true, queries = true;
  int64_t misalign = 0;
};

std::string name_of(const Shape& s) {
  return cat("lengths ", s.lengths, ", heads ", s.heads, " of ", s.head_dim, ", buckets ",
             s.buckets, " of ", s.max_positions, s.keys ? ", c2p" : "", s.queries ? ", p2c" : "");
}

int64_t sum_of(const std::vector<int32_t>& lengths) {
  int64_t sum = 0;
  for (const int32_t length : lengths) sum += length;
  return sum;
}

struct Problem {
  Problem(const Shape& s, uint64_t seed)
      : shape(s),
        width(int64_t{s.heads} * s.head_dim),
        q(sum_of(s.lengths), width, width + 5, s.misalign),
        k(sum_of(s.lengths), width, width + 3, s.misalign + 1),
        v(sum_of(s.lengths), width, width, s.misalign + 2) {
    attrs.heads = attrs.kv_heads = s.heads;
    attrs.position_buckets = s.buckets;
    attrs.max_relative_positions = s.max_positions;
    Random random(seed);
    for (Matrix<float>* x : {&q, &k, &v}) x->fill(random);
    rows = {position_rows(attrs), 0, 0};
    columns[0] = cpu::positions_of(attrs, s.head_dim);
    columns[1] = cpu::positions_of(attrs, (s.head_dim + 1) / 2);
    for (auto& table : tables) {
      table.resize(size_t(2 * attrs.span() * width));
      for (float& x : table) x = random.uniform(-1, 1);
    }
    for (int i = 0; i < 2; ++i) {
      for (int bf16 = 0; bf16 < 2; ++bf16)
        packed[bf16][i].resize(size_t(s.heads * columns[bf16].head));
      cpu::pack_positions(tables[i].data(), attrs, s.head_dim, packed[0][i].data());
      cpu::pack_positions_bf16(tables[i].data(), attrs, s.head_dim,
                               reinterpret_cast<uint16_t*>(packed[1][i].data()));
    }
    offsets.push_back(0);
    for (const int32_t length : s.lengths) offsets.push_back(offsets.back() + length);
  }

  AttentionArgs args(Matrix<float>& y, const Positions& positions,
                     const std::vector<float> (&of)[2]) const {
    AttentionArgs a = {};
    a.q = q.data(), a.k = k.data(), a.v = v.data();
    a.ldq = q.ld(), a.ldk = k.ld(), a.ldv = v.ld();
    a.y = y.data(), a.ldy = y.ld();
    a.batch = {offsets.data(), int32_t(shape.lengths.size())};
    a.heads = a.kv_heads = shape.heads;
    a.head_dim = shape.head_dim;
    a.scale = float(1.0 / std::sqrt(3.0 * double(shape.head_dim)));
    if (shape.keys) a.position_keys = of[0].data();
    if (shape.queries) a.position_queries = of[1].data();
    a.position_at = positions.at.center();
    a.reach = positions.at.reach;
    a.position_head = positions.head;
    a.position_columns = positions.columns;
    return a;
  }
  AttentionArgs on_cpu(Matrix<float>& y, bool bf16) const {
    return args(y, columns[bf16], packed[bf16]);
  }
  AttentionArgs on_ref(Matrix<float>& y) const { return args(y, rows, tables); }
  Matrix<float> output() const { return Matrix<float>(q.rows(), width, width + 2, 1); }

  Shape shape;
  int64_t width;
  Matrix<float> q, k, v;
  AttentionAttrs attrs;
  Positions rows, columns[2];  // of float32, of bf16
  std::vector<float> tables[2], packed[2][2];
  std::vector<int32_t> offsets;
};

int64_t longest_of(const Shape& s) { return *std::max_element(s.lengths.begin(), s.lengths.end()); }

void compare_with_ref(const Shape& shape, uint64_t seed) {
  const Problem problem(shape, seed);
  Matrix<float> y = problem.output();
  // As in test_attention.cc; a score is three sums of head_dim products of numbers in [-1, 1], each
  // at most scale * head_dim, and two more roundings.
  const int64_t d = shape.head_dim;
  const double score = 3.0 * double(d) * double(problem.on_ref(y).scale);
  compare_attentions(name_of(shape), problem, longest_of(shape), 2 * likely_gamma(d + 8) * score);
}

}  // namespace

TEST(disentangled_attention_of_every_short_length) {
  for (int32_t length = 0; length <= 40; ++length) {
    compare_with_ref({{length}, 2, 16, 256, 512, true, true, length % 4}, uint64_t(length));
    compare_with_ref({{length, 1, 40 - length}, 2, 20, 8, 24}, uint64_t(length));
    compare_with_ref({{length}, 1, 32, 8, 24}, uint64_t(length));
  }
}

TEST(disentangled_attention_of_long_sequences) {
  for (const int32_t length : {95, 96, 97, 127, 128, 129, 200, 256, 257, 512, 600})
    compare_with_ref({{length}, 1, 32, 256, 512}, uint64_t(length));
  compare_with_ref({{700, 3, 190}, 2, 64, 256, 512}, 1);
  compare_with_ref({{300}, 1, 24, 16, 64}, 2);   // far beyond the table
  compare_with_ref({{300}, 1, 24, -1, 100}, 3);  // no buckets
}

TEST(disentangled_attention_with_each_kind_of_table) {
  for (const int32_t length : {7, 33, 150}) {
    for (const bool keys : {false, true}) {
      for (const auto& [buckets, most] :
           {std::pair{256, 512}, {8, 10}, {8, 200}, {7, 30}, {2, 9}, {-1, 12}, {0, 512}}) {
        compare_with_ref({{length}, 2, 8, buckets, most, keys, !keys}, uint64_t(length));
        compare_with_ref({{length}, 1, length == 33 ? 32 : 12, buckets, most, keys, true},
                         uint64_t(length));
      }
    }
  }
}

TEST(disentangled_attention_of_every_head_dim) {
  for (const int32_t dim : {1, 3, 4, 8, 15, 16, 17, 31, 32, 48, 63, 64, 65, 80, 96, 128, 300})
    compare_with_ref({{19, 0, 70}, 2, dim, 32, 64, true, true, 1}, uint64_t(dim));
}

TEST(disentangled_attention_does_not_depend_on_its_surroundings) {
  const Shape shape = {{5, 0, 61, 1, 130, 16, 300}, 3, 32, 32, 96};
  const Problem problem(shape, 11);
  Random random(12);
  for (const Attention& attention : attentions()) {
    Matrix<float> batch = problem.output();
    attention.run(problem.on_cpu(batch, attention.bf16));

    Matrix<float> alone = problem.output();
    for (int32_t b = 0; b < int32_t(shape.lengths.size()); ++b) {
      AttentionArgs args = problem.on_cpu(alone, attention.bf16);
      const int64_t first = problem.offsets[size_t(b)];
      const int32_t offsets[] = {0, shape.lengths[size_t(b)]};
      args.q += first * args.ldq, args.k += first * args.ldk, args.v += first * args.ldv,
          args.y += first * args.ldy;
      args.batch = {offsets, 1};
      attention.run(args);
    }
    CHECK(identical(batch, alone));

    Matrix<float> cut = problem.output();
    const AttentionArgs args = problem.on_cpu(cut, attention.bf16);
    Scratch scratch(attention.kernel().scratch_bytes(300, args.head_dim, args.position_columns));
    for (int32_t b = 0; b < args.batch.sequences; ++b) {
      const int64_t length = shape.lengths[size_t(b)];
      for (int64_t q0 = 0, q1 = 0; q0 < length; q0 = q1) {
        q1 = std::min(length, q0 + 1 + random.below(q0 % 2 == 0 ? 5 : 120));
        for (int32_t h = 0; h < args.heads; ++h)
          attention.kernel().run(args, b, h, q0, q1, scratch.data());
      }
    }
    CHECK(identical(batch, cut));
    CHECK(scratch.intact());
  }
}

// One query of each sequence, in the sequence's own row.
TEST(disentangled_attention_of_one_query) {
  const Problem problem({{5, 0, 61, 1, 130}, 3, 32, 32, 96}, 31);
  const auto sequences = int64_t(problem.shape.lengths.size());
  for (const Attention& attention : attentions()) {
    Matrix<float> all = problem.output();
    attention.run(problem.on_cpu(all, attention.bf16));
    for (const Queries queries : {Queries::kFirst, Queries::kLast}) {
      Matrix<float> q(sequences, problem.width, problem.width, 1), y(sequences, problem.width),
          want(sequences, problem.width), exact(sequences, problem.width);
      q.fill(0.0f);
      want.fill(0.0f);
      for (int64_t b = 0; b < sequences; ++b) {
        if (problem.shape.lengths[size_t(b)] == 0) continue;
        const int64_t row = queries == Queries::kFirst ? problem.offsets[size_t(b)]
                                                       : problem.offsets[size_t(b) + 1] - 1;
        for (int64_t c = 0; c < problem.width; ++c) {
          q.at(b, c) = problem.q.at(row, c);
          want.at(b, c) = all.at(row, c);
        }
      }
      AttentionArgs args = problem.on_cpu(y, attention.bf16);
      args.queries = queries;
      args.q = q.data(), args.ldq = q.ld();
      for (const int threads : {1, 2}) {
        cpu::ThreadPool pool(threads);
        const size_t bytes = attention.kernel().scratch_bytes(130, 32, args.position_columns);
        const size_t stride = (bytes + 63) / 64 * 64;
        Scratch scratch(stride * size_t(pool.size()));
        attention.drive(args, {attention.table, &pool, scratch.data(), stride});
        CHECK(identical(want, y));
        CHECK(y.intact());
        CHECK(scratch.intact());
      }
      AttentionArgs reference = problem.on_ref(exact);
      reference.queries = queries;
      reference.q = q.data(), reference.ldq = q.ld();
      Attention{nullptr, attention.bf16}.run(reference);
      // compare_attentions() has the tight bounds; in bf16 some weights are rounded the other way.
      const double most = attention.bf16 ? 0x1p-8 : 2e-5;
      CHECK_CLOSE(cat("one query, ", attention.name()), y, exact,
                  [=](int64_t, int64_t) { return most; });
    }
  }
}

TEST(disentangled_attention_does_not_depend_on_threads) {
  const Problem problem({{700, 0, 3, 250}, 3, 16, 256, 512}, 21);
  for (const Attention& attention : attentions()) {
    Matrix<float> want = problem.output();
    const AttentionArgs args = problem.on_cpu(want, attention.bf16);
    attention.run(args);
    for (const int threads : {1, 2, 5}) {
      cpu::ThreadPool pool(threads);
      const size_t bytes = attention.kernel().scratch_bytes(700, 16, args.position_columns);
      const size_t stride = (bytes + 63) / 64 * 64;
      Scratch scratch(stride * size_t(pool.size()));
      Matrix<float> y = problem.output();
      attention.drive(problem.on_cpu(y, attention.bf16),
                      {attention.table, &pool, scratch.data(), stride});
      CHECK(identical(want, y));
      CHECK(y.intact());
      CHECK(scratch.intact());
    }
  }
}

}  // namespace trine::test
