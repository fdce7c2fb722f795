// SPDX-License-Identifier: Apache-2.0
// Caches and generation: the same bits in whatever pieces and company, errors, sampling.
#include "exec/session.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>

#include "check.h"
#include "tiny_llama.h"

namespace trine::test {
namespace {

using Tokens = std::vector<int32_t>;

std::vector<float> logits_of(Engine& engine, const Tokens& ids, KvCache* cache = nullptr) {
  const Plan& plan = engine.plan({"logits"});
  std::vector<float> out(ids.size() * size_t(plan.outputs[0].value.cols));
  float* const places[] = {out.data()};
  const Tokens offsets{0, int32_t(ids.size())};
  const std::vector<KvCache*> caches(cache ? 1 : 0, cache);
  engine.run(plan, {ids, offsets, {}, {}, caches}, places);
  return out;
}

// Greedy, by running the whole sequence again for each token.
Tokens generate_without_cache(Engine& engine, Tokens ids, int64_t count) {
  for (; count > 0; --count) {
    const std::vector<float> logits = logits_of(engine, ids);
    const auto last = logits.end() - std::ptrdiff_t(logits.size() / ids.size());
    ids.push_back(int32_t(std::max_element(last, logits.end()) - last));
  }
  return ids;
}

void run_to_the_end(Session& session) {
  while (session.active() > 0) session.step();
}

}  // namespace

TEST(a_token_has_the_same_bits_in_whatever_pieces_its_sequence_comes) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const TinyLlama tiny;
    const Tokens ids = tiny.ids(70, 5);
    std::vector<float> want;
    for (const int threads : {1, 2}) {
      Engine engine(tiny.graph(), make_cpu_backend(threads, dtype));
      if (want.empty()) want = logits_of(engine, ids);
      CHECK(logits_of(engine, ids) == want);
      for (const int64_t piece : {1, 7, 33, 70}) {
        const auto cache = engine.make_cache(70);
        std::vector<float> got;
        for (size_t at = 0; at < ids.size(); at += size_t(piece)) {
          const size_t end = std::min(ids.size(), at + size_t(piece));
          const auto part = logits_of(
              engine, Tokens(ids.begin() + int64_t(at), ids.begin() + int64_t(end)), cache.get());
          got.insert(got.end(), part.begin(), part.end());
        }
        CHECK_EQ(cache->length(), int64_t{70});
        CHECK(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)) == 0);
      }
    }
  }
}

TEST(generation_agrees_with_no_cache) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const TinyLlama tiny;
    for (const int threads : {1, 3}) {
      const auto engine = std::make_shared<Engine>(tiny.graph(), make_cpu_backend(threads, dtype));
      for (const int64_t prefill : {1, 5, 512}) {
        Session session(engine, {"next_logits", 64, prefill});
        std::vector<int64_t> sequences;
        for (int64_t i = 0; i < 5; ++i)
          sequences.push_back(session.add(tiny.ids(1 + 9 * i, uint64_t(i)), 8 + i, {}));
        run_to_the_end(session);
        for (int64_t i = 0; i < 5; ++i) {
          CHECK(session.tokens(sequences[size_t(i)]) ==
                generate_without_cache(*engine, tiny.ids(1 + 9 * i, uint64_t(i)), 8 + i));
        }
      }
    }
  }
}

TEST(sequences_come_and_go_between_steps) {
  const TinyLlama tiny;
  const auto engine = std::make_shared<Engine>(tiny.graph(), make_cpu_backend(2));
  const Sampling sampling{.temperature = 1.5f, .top_k = 20, .top_p = 0.9f, .seed = 11};
  Session alone(engine, {"next_logits", 64, 512});
  const int64_t only = alone.add(tiny.ids(9, 1), 20, sampling);
  run_to_the_end(alone);
  const Tokens want = alone.tokens(only);

  Session session(engine, {"next_logits", 64, 4});
  const int64_t other = session.add(tiny.ids(12, 2), 30, {});
  for (int i = 0; i < 5; ++i) session.step();
  const int64_t id = session.add(tiny.ids(9, 1), 20, sampling);
  for (int i = 0; i < 7; ++i) session.step();
  session.remove(other);
  CHECK_THROWS_WITH(session.tokens(other), InputError, "there is no sequence 0");
  run_to_the_end(session);
  CHECK(session.tokens(id) == want);
  CHECK_EQ(session.info().sequences, int64_t{1});
  CHECK_EQ(session.info().tokens, int64_t{28});
  CHECK(session.step().empty());
}

TEST(a_shared_prefix_is_copied) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const TinyLlama tiny;
    const auto engine = std::make_shared<Engine>(tiny.graph(), make_cpu_backend(1, dtype));
    Session session(engine, {"next_logits", 100, 512});
    Tokens a = tiny.ids(40, 1), b = a;
    b[33] = (b[33] + 1) % 61;
    const int64_t first = session.add(a, 5, {});
    run_to_the_end(session);
    const int64_t before = session.info().tokens;
    const int64_t second = session.add(b, 5, {}, first), third = session.add(a, 9, {}, first);
    CHECK_EQ(session.info().tokens, before + 33 + 39);
    run_to_the_end(session);
    CHECK(session.tokens(second) == generate_without_cache(*engine, b, 5));
    CHECK(session.tokens(third) == generate_without_cache(*engine, a, 9));
  }
}

// Dynamic frequencies: a longer sequence turns the keys of the same tokens in another way.
TEST(a_prefix_of_another_rotary_is_not_copied) {
  const TinyLlama tiny({.dynamic_from = 32});
  const auto engine = std::make_shared<Engine>(tiny.graph(), make_cpu_backend(1));
  const Tokens ids = tiny.ids(60, 1);
  const auto begin = [&](int64_t length) { return Tokens(ids.begin(), ids.begin() + length); };
  const auto alone = [&](int64_t length) {
    Session session(engine, {"next_logits", 100, 512});
    const int64_t only = session.add(begin(length), 6, {});
    run_to_the_end(session);
    return session.tokens(only);
  };
  Session session(engine, {"next_logits", 100, 512});
  const int64_t brief = session.add(begin(20), 1, {}), grown = session.add(begin(30), 10, {});
  const int64_t started = session.add(begin(40), 1, {});
  run_to_the_end(session);
  for (const int64_t length : {21, 30, 32, 33, 60}) {
    for (const int64_t prefix : {brief, grown, started}) {
      const int64_t before = session.info().tokens;
      const int64_t id = session.add(begin(length), 6, {}, prefix);
      CHECK_EQ(session.info().tokens - before, prefix == brief && length <= 32 ? 20 : 0);
      run_to_the_end(session);
      CHECK(session.tokens(id) == alone(length));
    }
  }
}

TEST(sessions_of_many_threads_share_runs) {
  const TinyLlama tiny;
  const auto engine = std::make_shared<Engine>(tiny.graph(), make_cpu_backend(2));
  std::vector<Tokens> want, got(4);
  for (uint64_t i = 0; i < 4; ++i)
    want.push_back(generate_without_cache(*engine, tiny.ids(6 + int64_t(i), i), 12));
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      Session session(engine, {"next_logits", 32, 512});
      const int64_t id = session.add(tiny.ids(6 + int64_t(i), i), 12, {});
      run_to_the_end(session);
      got[i] = session.tokens(id);
    });
  }
  for (std::thread& t : threads) t.join();
  CHECK(got == want);
}

TEST(tokens_are_drawn_on_all_threads_and_are_the_same) {
  const TinyLlama tiny;
  std::vector<Tokens> want;
  for (const int threads : {1, 2, 4}) {
    auto engine = std::make_shared<Engine>(tiny.graph(), make_cpu_backend(threads));
    Session session(engine, {.capacity = 40});
    for (uint64_t seed = 0; seed < 9; ++seed)
      session.add(tiny.ids(3 + int64_t(seed), 4), 20,
                  {.temperature = 1.5f, .top_p = 0.9f, .seed = seed});
    run_to_the_end(session);
    std::vector<Tokens> got;
    for (int64_t i = 0; i < 9; ++i) got.push_back(session.tokens(i));
    if (want.empty()) want = got;
    CHECK(got == want);
  }
}

TEST(work_of_an_engine_s_threads) {
  const TinyLlama tiny;
  for (const bool reference : {false, true}) {
    Engine engine(tiny.graph(), reference ? make_ref_backend() : make_cpu_backend(3));
    for (const int64_t items : {0, 1, 2, 50}) {
      std::vector<int> done(size_t(items), 0);
      engine.for_each(items, [&](int64_t i) { ++done[size_t(i)]; });
      CHECK(std::count(done.begin(), done.end(), 1) == items);
    }
    std::atomic<int> done = 0;
    const auto fails = [&](int64_t i) {
      ++done;
      if (i % 7 == 3) throw InputError("item");
    };
    CHECK_THROWS_WITH(engine.for_each(20, fails), InputError, "item");
    CHECK_EQ(done.load(), 20);
    CHECK_THROWS_WITH(engine.for_each(1, [](int64_t) { throw InputError("one"); }), InputError,
                      "one");
    engine.for_each(2, [](int64_t) {});  // and goes on
  }
}

// Two bytes for each key and value of 2 layers x 2 heads of 20, values filled up to 32.
TEST(a_cache_in_bf16_takes_half) {
  const TinyLlama tiny;
  const auto bytes = [&](DType dtype) {
    return Engine(tiny.graph(), make_cpu_backend(1, dtype)).make_cache(64)->bytes();
  };
  CHECK_EQ(bytes(DType::kBF16), size_t{64 * 2 * 2 * (20 + 32) * 2});
  CHECK_EQ(bytes(DType::kF32), 2 * bytes(DType::kBF16));
}

TEST(what_does_not_fit_is_refused) {
  const TinyLlama tiny;
  const auto engine = std::make_shared<Engine>(tiny.graph(), make_cpu_backend(1));
  Session session(engine, {"next_logits", 20, 512});
  CHECK_THROWS_WITH(session.add(tiny.ids(15, 1), 6, {}), InputError,
                    "exceed the session's capacity of 20");
  CHECK_THROWS_WITH(session.add({}, 6, {}), InputError, "a prompt of one token or more");
  CHECK_THROWS_WITH(session.add(Tokens{61}, 6, {}), InputError, "id 61 is out of range");
  CHECK_THROWS_WITH(session.add(Tokens{1}, 6, {}, 7), InputError, "there is no sequence 7");
  CHECK_THROWS_WITH(session.add(Tokens{1}, 6, {.top_p = 0}), InputError, "top_p");
  CHECK_THROWS_WITH(Session(engine, {"logits", 20, 512}), InputError, "no row of logits");

  const auto cache = engine->make_cache(16), other = engine->make_cache(16);
  logits_of(*engine, tiny.ids(10, 1), cache.get());
  CHECK_THROWS_WITH(logits_of(*engine, tiny.ids(7, 1), cache.get()), InputError,
                    "7 tokens behind 10 in a cache for 16");
  CHECK_EQ(cache->length(), int64_t{10});
  const Tokens ids{1, 2}, offsets{0, 1, 2};
  std::vector<float> room(1000);
  float* const places[] = {room.data()};
  const std::vector<KvCache*> twice{cache.get(), cache.get()}, one{cache.get()};
  CHECK_THROWS_WITH(engine->run(engine->plan({"logits"}), {ids, offsets, {}, {}, twice}, places),
                    InputError, "sequence 1 is in use");
  CHECK_THROWS_WITH(engine->run(engine->plan({"logits"}), {ids, offsets, {}, {}, one}, places),
                    InputError, "2 sequences and 1 caches");
  const std::vector<KvCache*> both{cache.get(), other.get()};
  CHECK_THROWS_WITH(engine->run(engine->plan({"first"}), {ids, offsets, {}, {}, both}, places),
                    InputError, "fill 1 layers of a cache of 2");
  engine->run(engine->plan({"logits"}), {ids, offsets, {}, {}, both}, places);
  CHECK_THROWS_WITH(cache->truncate(12), InputError, "a cache of 11 tokens cannot be cut to 12");
  cache->truncate(3);
  CHECK_EQ(cache->length(), int64_t{3});
  CHECK_THROWS_WITH(engine->make_cache(0), InputError, "a cache of 0 tokens");
  CHECK_THROWS_WITH(Engine(tiny.graph(1), make_cpu_backend(1)), ModelError, "but not 0");
}

TEST(philox) {
  // The known answer of Random123 for counter 0 and key 0: 6627e8d5 e169c58d ..
  CHECK_EQ(uniform(0, 0), double(uint64_t{0x6627e8d5e169c58d} >> 11) * 0x1p-53);
  CHECK(uniform(0, 1) != uniform(0, 0));
  CHECK(uniform(1, 0) != uniform(0, 0));
}

TEST(sampler) {
  const std::vector<float> logits{1.0f, 3.0f, -2.0f, 3.0f, 2.0f};
  const auto pick = [&](Sampling options, int64_t n, std::vector<float> row, Tokens seen = {}) {
    Sampler sampler(std::move(options));
    for (int32_t id : seen) sampler.see(id);
    Sample out;
    CHECK(sampler.pick(row, n, out));
    return out;
  };
  CHECK_EQ(pick({}, 0, logits).token, 1);  // the lowest id of equal ones
  CHECK_EQ(pick({.repetition_penalty = 2}, 0, logits, {1, 1}).token, 3);
  CHECK_EQ(pick({.repetition_penalty = 2}, 0, {-1, -1.5f}, {0, 0}).token, 1);
  CHECK_EQ(pick({.min_new_tokens = 1, .end_tokens = {1, 3, 99}}, 0, logits).token, 4);
  CHECK_EQ(pick({.min_new_tokens = 1, .end_tokens = {1}}, 1, logits).token, 1);

  const auto shares = [&](Sampling options) {
    std::vector<double> out(5);
    options.seed = 5;
    for (int64_t n = 0; n < 20000; ++n) out[size_t(pick(options, n, logits).token)] += 1.0 / 20000;
    return out;
  };
  const auto softmax = [&](float temperature, Tokens kept) {
    std::vector<double> out(5);
    double total = 0;
    for (int32_t id : kept)
      total += out[size_t(id)] = std::exp(double(logits[size_t(id)] / temperature));
    for (double& x : out) x /= total;
    return out;
  };
  const auto close = [](const std::vector<double>& a, const std::vector<double>& b) {
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      worst = std::max(worst, std::fabs(a[i] - b[i]));
      if ((a[i] == 0) != (b[i] == 0)) return false;
    }
    return worst < 0.02;  // five standard deviations of 20000 draws
  };
  CHECK(close(shares({.temperature = 2}), softmax(2, {0, 1, 2, 3, 4})));
  CHECK(close(shares({.temperature = 1, .top_k = 1}), softmax(1, {1, 3})));  // a tie is kept
  CHECK(close(shares({.temperature = 1, .top_k = 3}), softmax(1, {1, 3, 4})));
  // Probabilities 0.40, 0.40, 0.15, 0.05, 0.003.
  CHECK(close(shares({.temperature = 1, .top_p = 0.3f}), softmax(1, {1})));
  CHECK(close(shares({.temperature = 1, .top_p = 0.7f}), softmax(1, {1, 3})));
  CHECK(close(shares({.temperature = 1, .top_p = 0.9f}), softmax(1, {1, 3, 4})));
  CHECK(close(shares({.temperature = 1, .min_p = 0.1f}), softmax(1, {0, 1, 3, 4})));
  CHECK(close(shares({.temperature = 1, .min_p = 1}), softmax(1, {1, 3})));

  const Sample report = pick({.repetition_penalty = 100, .logprobs = 2}, 0, logits, {1, 3});
  CHECK_EQ(report.token, 4);
  CHECK_EQ(report.top.size(), size_t{2});
  CHECK_EQ(report.top[0].first, 1);
  CHECK_EQ(report.top[1].first, 3);
  const double p = softmax(1, {0, 1, 2, 3, 4})[4];
  CHECK(std::fabs(double(report.logprob) - std::log(p)) < 1e-6);

  Sampler sampler({});
  Sample out;
  std::vector<float> nan{1, NAN, 2}, infinite{1, INFINITY}, none(3, -INFINITY);
  CHECK(!sampler.pick(nan, 0, out));
  CHECK(!sampler.pick(infinite, 0, out));
  CHECK(!sampler.pick(none, 0, out));
}

}  // namespace trine::test
