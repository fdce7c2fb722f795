// SPDX-License-Identifier: Apache-2.0
// Attention over a cache: the bits of attention without one, in whatever pieces a sequence comes.
#include <cmath>
#include <memory>

#include "attention_testing.h"

namespace trine::test {
namespace {

struct Heads {
  int32_t heads, kv_heads, dim;
};
// Groups of 5, 7 and 13 heads fill no block of any instruction set.
constexpr Heads kHeads[] = {{1, 1, 1},   {4, 4, 16},  {6, 2, 20}, {8, 1, 64}, {3, 3, 5},
                            {4, 2, 130}, {10, 2, 32}, {7, 1, 33}, {13, 1, 16}};

// Two layers of the same kind; the second one is used.
struct Memory {
  Memory(const Heads& h, int64_t capacity, bool bf16)
      : begin{0, h.kv_heads * (bf16 ? (h.dim + 1) / 2 + (h.dim + 15) / 16 * 8
                                    : h.dim + (h.dim + 15) / 16 * 16)},
        floats(1, capacity * 2 * begin[1]),
        view{floats.data(), begin, capacity, 0} {
    floats.fill(0.0f);
  }
  int64_t begin[2];
  Matrix<float> floats;
  KvView view;
};

struct Sequence {
  Sequence(const Heads& h, int64_t tokens, Random& random)
      : q(tokens, h.heads * h.dim, h.heads * h.dim + 3, 1),
        k(tokens, h.kv_heads * h.dim, h.kv_heads * h.dim + 1, 2),
        v(tokens, h.kv_heads * h.dim, h.kv_heads * h.dim + 2, 3) {
    q.fill(random, -2, 2);
    k.fill(random, -2, 2);
    v.fill(random);
  }
  Matrix<float> q, k, v;
};

AttentionArgs args_of(const Heads& h, const Sequence& s, int64_t first, Matrix<float>& y,
                      const Ragged& batch) {
  AttentionArgs a = {};
  a.q = s.q.row(first), a.k = s.k.row(first), a.v = s.v.row(first), a.y = y.row(first);
  a.ldq = s.q.ld(), a.ldk = s.k.ld(), a.ldv = s.v.ld(), a.ldy = y.ld();
  a.batch = batch;
  a.heads = h.heads, a.kv_heads = h.kv_heads, a.head_dim = h.dim;
  a.scale = 1 / std::sqrt(float(h.dim)), a.causal = true;
  return a;
}

}  // namespace

TEST(attention_cached) {
  constexpr int64_t kTokens = 75;
  const std::vector<std::vector<int32_t>> kPieces = {
      {75}, std::vector<int32_t>(75, 1), {17, 1, 1, 30, 26}, {2, 3, 4, 5, 6, 7, 8, 40}, {64, 11}};
  Random random(30);
  for (const Heads& h : kHeads) {
    const Sequence s(h, kTokens, random);
    const int32_t whole[] = {0, kTokens};
    std::vector<Attention> all = attentions();
    all.insert(all.end(), {{nullptr, false}, {nullptr, true}});
    for (const Attention& attention : all) {
      Matrix<float> want(kTokens, h.heads * h.dim), exact(kTokens, h.heads * h.dim);
      Attention{nullptr, attention.bf16}.run(args_of(h, s, 0, exact, {whole, 1}));
      attention.run(args_of(h, s, 0, want, {whole, 1}));
      // test_attention.cc has the tight bounds; in bf16 some weights are rounded the other way.
      const double most = attention.bf16 ? 0x1p-8 : 1e-5;
      CHECK_CLOSE("attention", want, exact, [=](int64_t, int64_t) { return most; });
      const size_t bytes =
          attention.table ? attention.kernel().scratch_bytes(kTokens, h.dim, 0) : 0;
      Scratch scratch(bytes);
      for (const auto& pieces : kPieces) {
        Memory memory(h, 80, attention.bf16);
        Matrix<float> y(kTokens, h.heads * h.dim);
        int32_t past = 0;
        for (const int32_t length : pieces) {
          const int32_t offsets[] = {0, length};
          AttentionArgs args = args_of(h, s, past, y, {offsets, 1});
          memory.view.past = past;
          args.caches = &memory.view, args.cache = 1;
          if (!attention.table) attention.specify(args);
          for (int32_t head = 0; attention.table && head < h.kv_heads; ++head) {
            attention.kernel().append(args, 0, head);
            const int64_t half = length / 2;
            attention.kernel().cached(args, 0, head, half, length, scratch.data());
            attention.kernel().cached(args, 0, head, 0, half, scratch.data());
          }
          past += length;
        }
        CHECK(identical(want, y));
        CHECK(y.intact());
        CHECK(memory.floats.intact());
        CHECK(scratch.intact());
        // Nothing in the other layer.
        for (int64_t i = 0; i < 80 * memory.begin[1]; ++i) CHECK_EQ(memory.floats.at(0, i), 0.0f);
      }
    }
  }
}

// A batch of sequences with and without a cache, on any number of threads.
TEST(attention_cached_drivers) {
  const Heads h = {6, 2, 32};
  const std::vector<int32_t> past = {0, 100, 0, 7, 250, 0, 33};
  const std::vector<int32_t> added = {200, 1, 90, 20, 1, 0, 3};  // the third has no cache
  std::vector<int32_t> offsets = {0};
  for (const int32_t n : added) offsets.push_back(offsets.back() + n);
  Random random(31);
  std::vector<std::unique_ptr<Sequence>> sequences;
  const Sequence rows(h, offsets.back(), random);
  for (size_t b = 0; b < past.size(); ++b)
    sequences.push_back(std::make_unique<Sequence>(h, past[b], random));
  for (const Attention& attention : attentions()) {
    std::unique_ptr<Matrix<float>> want;
    for (const int threads : {1, 2, 3}) {
      cpu::ThreadPool pool(threads);
      const size_t stride = attention.kernel().scratch_bytes(256, h.dim, 0);
      Scratch scratch(stride * size_t(threads));
      const cpu::Workers workers = {attention.table, &pool, scratch.data(), stride};
      std::vector<std::unique_ptr<Memory>> memories;
      std::vector<KvView> views;
      for (size_t b = 0; b < past.size(); ++b) {
        memories.push_back(std::make_unique<Memory>(h, 256, attention.bf16));
        Matrix<float> unused(past[b], h.heads * h.dim);
        const int32_t earlier[] = {0, past[b]};
        AttentionArgs args = args_of(h, *sequences[b], 0, unused, {earlier, 1});
        args.caches = &memories[b]->view, args.cache = 1;
        attention.drive(args, workers);
        memories[b]->view.past = past[b];
        views.push_back(b == 2 ? KvView{} : memories[b]->view);
      }
      auto y = std::make_unique<Matrix<float>>(offsets.back(), h.heads * h.dim);
      AttentionArgs args = args_of(h, rows, 0, *y, {offsets.data(), int32_t(past.size())});
      args.caches = views.data(), args.cache = 1;
      attention.drive(args, workers);
      CHECK(y->intact());
      if (!want) {
        Matrix<float> exact(offsets.back(), h.heads * h.dim);
        args.y = exact.data(), args.ldy = exact.ld();
        Attention{nullptr, attention.bf16}.specify(args);  // what is appended again is the same
        const double most = attention.bf16 ? 0x1p-8 : 1e-5;
        CHECK_CLOSE("cached", *y, exact, [=](int64_t, int64_t) { return most; });
        want = std::move(y);
      } else {
        CHECK(identical(*want, *y));
      }
    }
  }
}

}  // namespace trine::test
