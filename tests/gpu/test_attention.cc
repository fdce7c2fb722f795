// SPDX-License-Identifier: Apache-2.0
// Attention on a GPU or on the emulator (TRINE_SIMT): against ref/, and bit for bit against itself
// in other batches and, with caches, in other runs. Outputs are full of NaN before.
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include "exec/distances.h"
#include "gpu/buffers.h"
#include "kernels/attention.h"
#include "ref/ref.h"

namespace trine::test {
namespace {

struct Case {
  std::vector<int32_t> lengths;
  int32_t heads, kv_heads, head_dim;
  DType dtype = DType::kBF16;
  bool causal = false;
  bool bias = false;
  Queries queries = Queries::kAll;
  size_t misalign = 0;  // elements; rows are this much longer, too
  DType out = DType::kF32;
  float scale = 0;  // 0: as usual
  // Position tables; without buckets there are none.
  int32_t buckets = 0, max_positions = 0;
  bool position_keys = true, position_queries = true;
};

std::string name_of(const Case& c) {
  return cat("lengths ", c.lengths, ", heads ", c.heads, "/", c.kv_heads, " of ", c.head_dim, ", ",
             trine::name_of(c.dtype), " to ", trine::name_of(c.out), c.causal ? ", causal" : "",
             c.bias ? ", bias" : "", ", queries ", int(c.queries), ", off by ", c.misalign,
             ", buckets ", c.buckets, "/", c.max_positions);
}

int32_t sum_of(const std::vector<int32_t>& lengths) {
  int32_t sum = 0;
  for (const int32_t length : lengths) sum += length;
  return sum;
}

// The rows of some sequences' tokens, in a row.
struct Piece {
  int32_t sequence, begin, end;
};

// Inputs of all the sequences of a case, of which runs take pieces.
struct Problem {
  explicit Problem(const Case& c_, uint64_t seed = 1)
      : c(c_),
        tokens(sum_of(c_.lengths)),
        q(tokens, c_.heads * c_.head_dim),
        k(tokens, c_.kv_heads * c_.head_dim),
        v(tokens, c_.kv_heads * c_.head_dim) {
    Random random(seed);
    for (Matrix<float>* m : {&q, &k, &v}) {
      m->fill(random);
      round_to(c.dtype, *m);
    }
    offsets.push_back(0);
    for (const int32_t length : c.lengths) {
      offsets.push_back(offsets.back() + length);
      longest = std::max(longest, length);
    }
    span = longest + 3;
    if (c.bias) {
      for (int64_t i = 0; i < c.heads * (2 * span - 1); ++i) bias.push_back(random.uniform(-2, 2));
    }
    if (c.buckets != 0) {
      AttentionAttrs attrs;
      attrs.heads = attrs.kv_heads = c.heads;
      attrs.position_buckets = c.buckets;
      attrs.max_relative_positions = c.max_positions;
      distances = position_rows(attrs);
      for (auto& table : tables) {
        table = std::make_unique<Matrix<float>>(2 * attrs.span(), c.heads * c.head_dim);
        table->fill(random);
        round_to(c.dtype, *table);
      }
    }
    scale = c.scale != 0 ? c.scale : float(1.0 / std::sqrt(double(c.head_dim)));
  }

  std::vector<Piece> whole() const {
    std::vector<Piece> pieces;
    for (int32_t b = 0; b < int32_t(c.lengths.size()); ++b)
      pieces.push_back({b, 0, c.lengths[size_t(b)]});
    return pieces;
  }

  void reference(Matrix<float>& y) const {
    // Of pooled queries, the row of q is the sequence's.
    Matrix<float> pooled(int64_t(c.lengths.size()), q.cols());
    for (int64_t b = 0; b < pooled.rows(); ++b) {
      const int32_t begin = offsets[size_t(b)], end = offsets[size_t(b) + 1];
      if (begin == end) continue;
      std::memcpy(pooled.row(b), q.row(c.queries == Queries::kFirst ? begin : end - 1),
                  size_t(q.cols()) * sizeof(float));
    }
    AttentionArgs a = {};
    a.q = c.queries == Queries::kAll ? q.data() : pooled.data();
    a.k = k.data(), a.v = v.data();
    a.ldq = q.ld(), a.ldk = k.ld(), a.ldv = v.ld();
    a.bias = c.bias ? bias.data() : nullptr, a.span = span;
    a.y = y.data(), a.ldy = y.ld();
    a.batch = {offsets.data(), int32_t(c.lengths.size())};
    a.heads = c.heads, a.kv_heads = c.kv_heads, a.head_dim = c.head_dim;
    a.scale = scale, a.causal = c.causal, a.queries = c.queries;
    if (c.buckets != 0) {
      if (c.position_keys) a.position_keys = tables[0]->data();
      if (c.position_queries) a.position_queries = tables[1]->data();
      a.position_at = distances.center(), a.reach = distances.reach;
    }
    ref::attention(a);
  }

  Case c;
  int32_t tokens, longest = 0, span;
  Matrix<float> q, k, v;
  std::vector<int32_t> offsets;
  std::vector<float> bias;
  Distances distances;
  std::unique_ptr<Matrix<float>> tables[2];
  float scale;
};

// Pages on the device for all the sequences of a problem, in any order, between those of two other
// layers.
class Pages {
 public:
  explicit Pages(const Problem& problem) : dtype_(problem.c.dtype) {
    const Case& c = problem.c;
    constexpr int64_t kTokens = cuda::KvPages::kTokens;
    ld_ = (problem.longest + kTokens - 1) / kTokens + 1;
    const auto sequences = int64_t(c.lengths.size());
    for (int64_t i = 0; i < sequences * ld_; ++i) order_.push_back(int32_t(i));
    Random random(5);
    for (size_t i = order_.size(); i > 1; --i)
      std::swap(order_[i - 1], order_[size_t(random.below(int64_t(i)))]);
    layer_ = c.kv_heads * kTokens * c.head_dim;
    const int64_t unit = int64_t(size_of(dtype_)) / 2;
    memory_ = std::make_unique<DeviceArray<uint16_t>>(
        std::vector<uint16_t>(size_t(int64_t(order_.size()) * 6 * layer_ * unit), 0xffff));
    past_.assign(c.lengths.size(), 0);
  }

  // Of the sequences of these pieces; what it returns is good until the next call.
  cuda::KvPages view(const std::vector<Piece>& pieces, const std::vector<bool>& cached) {
    std::vector<int32_t> table, past;
    cuda::KvPages pages;
    for (const Piece& piece : pieces) {
      const auto row = order_.begin() + piece.sequence * ld_;
      table.insert(table.end(), row, row + ld_);
      const bool has = cached[size_t(piece.sequence)];
      past.push_back(has ? past_[size_t(piece.sequence)] : -1);
      pages.all &= has;
      pages.max_keys = std::max(pages.max_keys, piece.end);
      past_[size_t(piece.sequence)] = piece.end;
    }
    table_ = std::make_unique<DeviceArray<int32_t>>(table);
    before_ = std::make_unique<DeviceArray<int32_t>>(past);
    pages.data = memory_->data();
    pages.page_stride = 6 * layer_;
    pages.keys = 2 * layer_;
    pages.values = 3 * layer_;
    pages.table = table_->data();
    pages.table_ld = ld_;
    pages.past = before_->data();
    return pages;
  }

 private:
  DType dtype_;
  int64_t ld_, layer_;
  std::vector<int32_t> order_, past_;
  std::unique_ptr<DeviceArray<uint16_t>> memory_;
  std::unique_ptr<DeviceArray<int32_t>> table_, before_;
};

// A matrix that a function can return.
class Result {
 public:
  explicit Result(std::unique_ptr<Matrix<float>> m) : m_(std::move(m)) {}
  operator const Matrix<float>&() const { return *m_; }
  const float* row(int64_t i) const { return m_->row(i); }
  int64_t rows() const { return m_->rows(); }
  int64_t cols() const { return m_->cols(); }

 private:
  std::unique_ptr<Matrix<float>> m_;
};

// Rows of y for the pieces: of their tokens, or one each.
Result run(const Problem& problem, const std::vector<Piece>& pieces, Pages* pages = nullptr,
           std::vector<bool> cached = {}, bool counting = true) {
  const Case& c = problem.c;
  std::vector<int32_t> offsets = {0};
  int32_t longest = 0;
  for (const Piece& piece : pieces) {
    offsets.push_back(offsets.back() + piece.end - piece.begin);
    longest = std::max(longest, piece.end - piece.begin);
  }
  const bool all = c.queries == Queries::kAll;
  const int64_t tokens = offsets.back(), rows = all ? tokens : int64_t(pieces.size());
  Matrix<float> q(rows, problem.q.cols()), k(tokens, problem.k.cols()), v(tokens, k.cols());
  q.fill(0.0f);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const int32_t from = problem.offsets[size_t(pieces[i].sequence)];
    for (int32_t t = pieces[i].begin; t < pieces[i].end; ++t) {
      const int64_t to = offsets[i] + t - pieces[i].begin;
      std::memcpy(k.row(to), problem.k.row(from + t), size_t(k.cols()) * sizeof(float));
      std::memcpy(v.row(to), problem.v.row(from + t), size_t(v.cols()) * sizeof(float));
      const bool asks = all || t == (c.queries == Queries::kFirst ? 0 : pieces[i].end - 1);
      if (asks)
        std::memcpy(q.row(all ? to : int64_t(i)), problem.q.row(from + t),
                    size_t(q.cols()) * sizeof(float));
    }
  }
  const auto gap = int64_t(c.misalign);
  auto owned = std::make_unique<Matrix<float>>(rows, q.cols());
  Matrix<float>& y = *owned;
  y.fill(std::numeric_limits<float>::quiet_NaN());
  DeviceMatrix device_q(q, c.dtype, gap, c.misalign), device_k(k, c.dtype, gap, c.misalign),
      device_v(v, c.dtype, gap, c.misalign), device_y(y, c.out, gap, c.misalign);
  DeviceArray<int32_t> device_offsets(offsets);
  DeviceArray<float> bias(problem.bias);
  DeviceArray<int32_t> position_at(problem.distances.values);
  std::unique_ptr<DeviceMatrix> tables[2];
  cuda::AttentionArgs a;
  a.q = device_q.view(), a.k = device_k.view(), a.v = device_v.view(), a.y = device_y.view();
  a.batch = {device_offsets.data(), int32_t(pieces.size()), int32_t(tokens), longest};
  a.heads = c.heads, a.kv_heads = c.kv_heads, a.head_dim = c.head_dim;
  a.scale = problem.scale, a.causal = c.causal, a.queries = c.queries;
  if (c.bias) a.bias = bias.data(), a.span = problem.span;
  if (c.buckets != 0) {
    for (int i = 0; i < 2; ++i)
      tables[i] = std::make_unique<DeviceMatrix>(*problem.tables[i], c.dtype, gap, c.misalign);
    if (c.position_keys) a.position_keys = tables[0]->view();
    if (c.position_queries) a.position_queries = tables[1]->view();
    a.position_at =
        position_at.data() + (problem.distances.center() - problem.distances.values.data());
    a.reach = problem.distances.reach;
  }
  if (pages != nullptr) {
    cached.resize(c.lengths.size(), true);
    a.cache = pages->view(pieces, cached);
  }
  const auto workspace = size_t(cuda::attention_workspace(a)) / sizeof(float);
  DeviceArray<float> scratch(
      std::vector<float>(workspace, std::numeric_limits<float>::quiet_NaN()));
  a.workspace = scratch.data();
  DeviceArray<int32_t> counters(std::vector<int32_t>(size_t(cuda::attention_counters(a)), 0));
  if (counting) a.counters = counters.data();
  CHECK_CUDA(cuda::attention(a, nullptr));
  wait_for_device();
  device_y.get(y);
  scratch.get();
  for (const int32_t count : counters.get()) CHECK_EQ(count, 0);
  return Result(std::move(owned));
}

// What follows from rounding, for q, k and v in [-1, 1]: of a score in absolute terms, which is the
// relative error of its exponential; of a result, a mean of values, the same. Exponentials are
// rounded to the type before they are multiplied, too. tf32's products leave 2^-21 behind.
double tolerance_of(const Problem& problem) {
  const Case& c = problem.c;
  const double terms = c.buckets != 0 ? 3 : 1;
  const double largest = std::fabs(double(problem.scale)) * double(c.head_dim) * terms;
  const double product = c.dtype == DType::kBF16 ? 0 : 0x1p-21;
  const double score = largest * (likely_gamma(c.head_dim + 2) + product) + 4 * kUnit;
  const double rounded = c.dtype == DType::kBF16 ? 0x1p-9 : product;
  return 2 * score + rounded + likely_gamma(2 * problem.longest + 8) + 8 * kUnit;
}

Result check(const Problem& problem) {
  const Case& c = problem.c;
  const bool all = c.queries == Queries::kAll;
  Matrix<float> want(all ? problem.tokens : int64_t(c.lengths.size()), problem.q.cols());
  problem.reference(want);
  const double tolerance = tolerance_of(problem);
  Result got = run(problem, problem.whole());
  CHECK_CLOSE(name_of(c), got, want, [&](int64_t i, int64_t j) {
    return tolerance + std::fabs(double(want.at(i, j))) * rounding_of(c.out);
  });
  return got;
}

void check(const Case& c) { check(Problem(c)); }

TEST(attention_of_all_lengths) {
  for (const DType dtype : kGpuTypes) {
    for (const bool causal : {false, true})
      check({{1, 0, 2, 15, 16, 17, 63, 64, 65, 130}, 2, 1, 32, dtype, causal});
  }
}

// Of each kernel's size of heads some that fill it and some that don't, with a mask and without.
TEST(attention_of_all_head_sizes) {
  for (const DType dtype : kGpuTypes) {
    for (const int32_t dim : {1, 32, 40, 96, 100, 160}) check({{19, 70}, 2, 2, dim, dtype});
    for (const int32_t dim : {6, 20, 64, 80, 128, 256}) check({{19, 70}, 2, 2, dim, dtype, true});
    check({{5, 66}, 1, 1, 24, dtype, false, false, Queries::kAll, 1});
    check({{5, 66}, 2, 1, 64, dtype, true, false, Queries::kAll, 3, DType::kBF16});
  }
}

TEST(attention_with_a_bias) {
  for (const DType dtype : kGpuTypes) {
    for (const int32_t dim : {32, 64, 100})
      check({{1, 17, 131}, 2, 2, dim, dtype, false, true, Queries::kAll, 0, DType::kBF16});
    check({{33, 5}, 2, 1, 32, dtype, false, true, Queries::kAll, 0, DType::kF32, -0.3f});
    check({{33, 5}, 2, 1, 32, dtype, false, false, Queries::kAll, 0, DType::kF32, -0.3f});
  }
}

TEST(attention_of_one_token) {
  for (const DType dtype : kGpuTypes) {
    for (const Queries queries : {Queries::kFirst, Queries::kLast}) {
      for (const bool bias : {false, true})
        check({{1, 0, 40, 100}, 4, 2, 32, dtype, false, bias, queries});
      check({{1, 0, 40, 300}, 4, 2, 32, dtype, true, false, queries});
    }
  }
}

TEST(attention_in_chunks) {
  for (const DType dtype : kGpuTypes) check({{255, 256, 257}, 1, 1, 32, dtype, true});
}

void check_alone_and_in_a_batch(const Case& c) {
  Problem problem(c);
  const Result all = check(problem);
  for (const Piece& piece : problem.whole()) {
    const Result one = run(problem, {piece});
    CHECK(std::memcmp(one.row(0), all.row(problem.offsets[size_t(piece.sequence)]),
                      size_t(one.rows() * one.cols()) * sizeof(float)) == 0);
  }
}

TEST(attention_alone_and_in_a_batch) {
  for (const DType dtype : kGpuTypes) {
    check_alone_and_in_a_batch({{70, 3, 129, 1, 64}, 2, 2, 32, dtype});
    check_alone_and_in_a_batch({{70, 3, 129, 1, 64}, 2, 2, 64, dtype, false, true});
    check_alone_and_in_a_batch({{70, 3, 260, 1, 64}, 2, 1, 32, dtype, true});
  }
#ifndef TRINE_METAL
  // Enough sequences for the kernels with more rows a block, which bfloat16 has; one is not.
  std::vector<int32_t> lengths(32, 1);
  lengths[0] = 70, lengths[1] = 3, lengths[30] = 129, lengths[31] = 66;
  check_alone_and_in_a_batch({lengths, 4, 1, 32, DType::kBF16});
  check_alone_and_in_a_batch({lengths, 4, 4, 64, DType::kBF16, false, true});
  check_alone_and_in_a_batch({lengths, 4, 1, 32, DType::kBF16, true});
#endif
}

// A sequence in one run without a cache, and in pieces with one, among others: the same bits.
TEST(attention_with_caches) {
  for (const DType dtype : kGpuTypes) {
    for (const Case& c :
         {Case{{300, 70, 530}, 2, 1, 32, dtype, true}, Case{{300, 17, 261}, 2, 2, 64, dtype, true},
          Case{{300, 17, 261}, 1, 1, 20, dtype, true, false, Queries::kAll, 1}}) {
      Problem problem(c);
      const Result whole = check(problem);
      Pages pages(problem);
      // Prefill of different sizes; decoding beside prefill; decoding alone, several tokens at
      // once; a sequence without tokens; one that comes to an end.
      const int32_t end = c.lengths[2], late = std::max(261, end - 2),
                    next = std::min(late + 1, end);
      const std::vector<std::vector<Piece>> runs = {
          {{0, 0, 100}, {1, 0, 1}},
          {{2, 0, 255}, {0, 100, 101}},
          {{0, 101, 297}, {2, 255, 256}, {1, 1, 4}},
          {{1, 4, 4}, {2, 256, 257}},
          {{2, 257, 258}, {0, 297, 298}, {1, 4, 5}},
          {{0, 298, 300}, {2, 258, 261}, {1, 5, 17}},
          {{1, 17, c.lengths[1]}, {2, 261, late}},
          {{2, late, next}},  // behind two whole chunks, if it is that long
          {{2, next, end}},
      };
      for (size_t r = 0; r < runs.size(); ++r) {
        const Result part = run(problem, runs[r], &pages, {}, r % 3 != 1);
        int64_t row = 0;
        for (const Piece& piece : runs[r]) {
          const int64_t at = problem.offsets[size_t(piece.sequence)];
          for (int32_t t = piece.begin; t < piece.end; ++t, ++row) {
            const bool same = std::memcmp(part.row(row), whole.row(at + t),
                                          size_t(part.cols()) * sizeof(float)) == 0;
            if (!same) {
              report_failure(__FILE__, __LINE__,
                             cat(name_of(c), ": run ", r, ", sequence ", piece.sequence, ", token ",
                                 t, " has other bits than in one run"));
              return;
            }
          }
        }
      }
    }
  }
}

// Beside sequences that have a cache, one that has none.
TEST(attention_with_caches_of_some) {
  for (const DType dtype : kGpuTypes) {
    Problem problem({{90, 40, 33}, 4, 2, 32, dtype, true});
    const Result whole = run(problem, problem.whole());
    Pages pages(problem);
    run(problem, {{0, 0, 89}}, &pages);
    const std::vector<Piece> pieces = {{1, 0, 40}, {0, 89, 90}, {2, 0, 33}};
    const Result some = run(problem, pieces, &pages, {true, false, true});
    const auto bytes = [&](int64_t rows) { return size_t(rows * some.cols()) * sizeof(float); };
    CHECK(std::memcmp(some.row(0), whole.row(90), bytes(40)) == 0);
    CHECK(std::memcmp(some.row(40), whole.row(89), bytes(1)) == 0);
    CHECK(std::memcmp(some.row(41), whole.row(130), bytes(33)) == 0);
  }
}

// One query a sequence, behind a cache.
TEST(attention_of_the_last_token_with_caches) {
  for (const DType dtype : kGpuTypes) {
    Case c = {{90, 300, 20}, 4, 2, 32, dtype, true};
    Problem problem(c);
    const Result whole = run(problem, problem.whole());
    c.queries = Queries::kLast;
    Problem last(c);
    Pages pages(last);
    run(last, {{0, 0, 89}, {1, 0, 297}, {2, 0, 0}}, &pages);
    const Result y = run(last, {{0, 89, 90}, {1, 297, 300}, {2, 0, 20}}, &pages);
    for (int64_t b = 0; b < 3; ++b) {
      CHECK(std::memcmp(y.row(b), whole.row(problem.offsets[size_t(b) + 1] - 1),
                        size_t(y.cols()) * sizeof(float)) == 0);
    }
  }
}

// Distances within reach and beyond, buckets and none; either table alone.
TEST(attention_disentangled) {
  for (const DType dtype : kGpuTypes) {
    const auto of = [&](std::vector<int32_t> lengths, int32_t dim, int32_t buckets, int32_t most,
                        size_t misalign = 0) {
      Case c = {std::move(lengths), 2, 2, dim, dtype, false, false, Queries::kAll, misalign};
      c.buckets = buckets, c.max_positions = most, c.scale = float(1 / std::sqrt(3.0 * dim));
      return c;
    };
    check(of({1, 17, 64, 65, 140}, 64, 256, 512));
    check(of({3, 130}, 64, 16, 128));
    check(of({40, 150}, 20, 8, 32));
    check(of({40, 70}, 32, 0, 20));
    check(of({40, 70}, 24, 12, 40, 1));
    check(of({37, 50}, 100, 32, 64));
    Case c = of({33, 90}, 64, 32, 64);
    c.position_keys = false;
    check(c);
    std::swap(c.position_keys, c.position_queries);
    c.scale = -0.1f;
    check(c);
    c.position_queries = true;
    for (const Queries queries : {Queries::kFirst, Queries::kLast}) {
      c.queries = queries;
      c.lengths = {33, 0, 90, 1};
      check(c);
    }
  }
}

TEST(attention_disentangled_alone_and_in_a_batch) {
  for (const DType dtype : kGpuTypes) {
    Case c = {{70, 3, 129, 64}, 2, 2, 64, dtype};
    c.buckets = 32, c.max_positions = 64;
    check_alone_and_in_a_batch(c);
  }
}

#ifndef TRINE_METAL  // there the host looks at it, at load

TEST(attention_refuses) {
  cuda::AttentionArgs a;
  a.heads = a.kv_heads = 1, a.head_dim = 257;
  CHECK_EQ(cuda::attention(a, nullptr), cudaErrorInvalidValue);
  a.head_dim = 64, a.causal = true, a.scale = -1;
  CHECK_EQ(cuda::attention(a, nullptr), cudaErrorInvalidValue);
  a.scale = 1;
  CHECK_EQ(cuda::attention(a, nullptr), cudaSuccess);
}

#endif

}  // namespace
}  // namespace trine::test
