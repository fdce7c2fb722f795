// SPDX-License-Identifier: Apache-2.0
// Counters without atomics where the pool promises that one thread at a time writes them: TSan then
// checks the promise.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/thread_pool.h"

#if defined(__linux__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#elif defined(_WIN32)
#include "base/windows.h"
#endif
#if defined(__linux__)
#include <sched.h>

#include <csignal>
#endif

namespace trine::cpu {
namespace {

constexpr int kMany = 9;  // more threads than a small machine has processors

void check_each_item_once(ThreadPool& pool, int64_t items) {
  std::vector<int> runs(static_cast<size_t>(items), 0);
  std::vector<int64_t> per_thread(static_cast<size_t>(pool.size()), 0);
  std::atomic<bool> bad_thread{false};
  pool.parallel_for(items, [&](int64_t item, int thread) {
    if (thread < 0 || thread >= pool.size()) {
      bad_thread = true;
      return;
    }
    ++runs[static_cast<size_t>(item)];
    ++per_thread[static_cast<size_t>(thread)];
  });
  CHECK(!bad_thread);
  CHECK_EQ(std::count(runs.begin(), runs.end(), 1), static_cast<ptrdiff_t>(items));
  int64_t sum = 0;
  for (const int64_t n : per_thread) sum += n;
  CHECK_EQ(sum, items);
}

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

}  // namespace

TEST(thread_pool_runs_each_item_once) {
  for (const int threads : {1, 2, 3, kMany}) {
    ThreadPool pool(threads);
    CHECK_EQ(pool.size(), threads);
    for (const int64_t items : {0, 1, 2, 3, 31, 32, 33, 100, 1000, 12345}) {
      check_each_item_once(pool, items);
    }
  }
}

TEST(thread_pool_default_size) {
  ThreadPool pool(0);
  CHECK(pool.size() >= 1);
  check_each_item_once(pool, 100);
#if defined(__linux__)
  cpu_set_t set;
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  CHECK(pool.size() <= CPU_COUNT(&set));
#elif defined(_WIN32)
  DWORD_PTR before = 0, all = 0;
  CHECK(GetProcessAffinityMask(GetCurrentProcess(), &before, &all) != 0);
  if (before != 0 && SetProcessAffinityMask(GetCurrentProcess(), before & (~before + 1)) != 0) {
    CHECK_EQ(ThreadPool(0).size(), 1);
    CHECK(SetProcessAffinityMask(GetCurrentProcess(), before) != 0);
  }
#endif
}

// Results of one call are visible to the next, through memory that no atomic guards.
TEST(thread_pool_many_small_calls) {
  ThreadPool pool(2);
  std::array<int64_t, 8> cells{};
  constexpr int kCalls = 20000;
  for (int call = 0; call < kCalls; ++call) {
    pool.parallel_for(1 + call % 8,
                      [&](int64_t item, int) { cells[static_cast<size_t>(item)] += call; });
  }
  std::array<int64_t, 8> expected{};
  for (int call = 0; call < kCalls; ++call) {
    for (int item = 0; item <= call % 8; ++item) expected[static_cast<size_t>(item)] += call;
  }
  CHECK(cells == expected);
}

TEST(thread_pool_many_small_calls_oversubscribed) {
  ThreadPool pool(kMany);
  std::vector<int64_t> cells(64, 0);
  constexpr int kCalls = 2000;
  for (int call = 0; call < kCalls; ++call) {
    pool.parallel_for(64, [&](int64_t item, int) { ++cells[static_cast<size_t>(item)]; });
  }
  CHECK_EQ(std::count(cells.begin(), cells.end(), int64_t{kCalls}), ptrdiff_t{64});
}

// Two threads must be inside bodies at once, or this never ends.
TEST(thread_pool_works_in_parallel) {
  ThreadPool pool(2);
  for (const int idle_ms : {0, 0, 5}) {
    sleep_ms(idle_ms);
    std::atomic<int> arrived{0};
    pool.parallel_for(2, [&](int64_t, int) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    CHECK_EQ(arrived.load(), 2);
  }
}

TEST(thread_pool_sleeps_and_wakes) {
  ThreadPool pool(3);
  for (int i = 0; i < 10; ++i) {
    sleep_ms(2);
    check_each_item_once(pool, 50);
  }
}

TEST(thread_pool_nested_call_stays_on_its_thread) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (const int64_t items : {1, 40}) {
      std::vector<int> inner(static_cast<size_t>(items), 0);
      std::atomic<int> strays{0};
      pool.parallel_for(items, [&](int64_t item, int thread) {
        const std::thread::id here = std::this_thread::get_id();
        pool.parallel_for(7, [&](int64_t, int inner_thread) {
          if (inner_thread != thread || std::this_thread::get_id() != here) ++strays;
          ++inner[static_cast<size_t>(item)];
        });
      });
      CHECK_EQ(strays.load(), 0);
      CHECK_EQ(std::count(inner.begin(), inner.end(), 7), static_cast<ptrdiff_t>(items));
    }
  }
}

// A pool used inside another's body, and the outer one again inside that.
TEST(thread_pool_two_pools_nested) {
  ThreadPool outer(2);
  std::array<int64_t, 10> sums{};
  std::atomic<int> strays{0};
  outer.parallel_for(10, [&](int64_t item, int thread) {
    if (thread != 0) {
      sums[static_cast<size_t>(item)] = 12;
      return;
    }
    ThreadPool inner(2);
    std::atomic<int64_t> sum{0};
    inner.parallel_for(4, [&](int64_t, int inner_thread) {
      if (inner_thread != 0) {
        sum += 3;
        return;
      }
      outer.parallel_for(3, [&](int64_t, int again) {
        if (again != thread) ++strays;
        ++sum;
      });
    });
    sums[static_cast<size_t>(item)] = sum;
  });
  CHECK_EQ(strays.load(), 0);
  CHECK_EQ(std::count(sums.begin(), sums.end(), int64_t{12}), ptrdiff_t{10});
}

TEST(thread_pool_destroyed_while_spinning_or_asleep) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(1 + i % 5);
    if (i % 3 != 0) check_each_item_once(pool, i);
    if (i % 20 == 0) sleep_ms(2);
  }
}

// Workers that are about to look for chunks when the pool goes.
TEST(thread_pool_destroyed_right_after_a_call) {
  for (int i = 0; i < 2000; ++i) {
    ThreadPool pool(2 + i % 2);
    std::atomic<int64_t> sum{0};
    for (int call = 0; call <= i % 3; ++call) {
      pool.parallel_for(2, [&](int64_t item, int) { sum += item; });
    }
    CHECK_EQ(sum.load(), int64_t{1 + i % 3});
  }
}

TEST(thread_pool_pools_of_many_threads) {
  std::vector<std::thread> users;
  for (int user = 0; user < 3; ++user) {
    users.emplace_back([] {
      ThreadPool pool(2);
      for (int i = 0; i < 200; ++i) check_each_item_once(pool, 25);
    });
  }
  for (std::thread& user : users) user.join();
}

#if defined(__linux__)
TEST(thread_pool_workers_take_no_signals) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  std::atomic<bool> blocked{true};
  pool.parallel_for(2, [&](int64_t, int thread) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    const bool is_blocked = sigismember(&mask, SIGINT) == 1;
    if (is_blocked != (thread != 0)) blocked = false;
  });
  CHECK(blocked);
}
#endif

// ThreadSanitizer does not follow threads started after a fork.
#if defined(__SANITIZE_THREAD__)
#define TRINE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TRINE_TSAN 1
#endif
#endif

#if (defined(__linux__) || defined(__APPLE__)) && !defined(TRINE_TSAN)
TEST(thread_pool_after_fork) {
  ThreadPool pool(2);
  check_each_item_once(pool, 100);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a hang ends as a signal
    std::atomic<int64_t> sum{0};
    for (int i = 0; i < 100; ++i) pool.parallel_for(10, [&](int64_t item, int) { sum += item; });
    // The new worker helps: two threads meet.
    std::atomic<int> arrived{0};
    pool.parallel_for(2, [&](int64_t, int) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    {
      ThreadPool fresh(3);
      fresh.parallel_for(10, [&](int64_t item, int) { sum += item; });
    }
    _exit(sum == 101 * 45 ? 0 : 1);
  }
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  check_each_item_once(pool, 100);
}

TEST(thread_pool_destroyed_in_a_forked_child) {
  auto pool = std::make_unique<ThreadPool>(3);
  check_each_item_once(*pool, 100);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    pool.reset();
    _exit(0);
  }
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

}  // namespace trine::cpu
