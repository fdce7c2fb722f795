// SPDX-License-Identifier: Apache-2.0
// Threads that wait by spinning briefly, then sleep. The caller works too: a pool of N threads
// starts N - 1.
#pragma once

#include <cstdint>
#include <memory>

namespace trine::cpu {

class ThreadPool {
 public:
  // threads <= 0: the processors this process may run on (sched_getaffinity).
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const noexcept;

  // body(item, thread) for each item in [0, items), each once, on up to size() threads; returns
  // when all are done. `thread` is in [0, size()) and no two bodies of the same thread run at once.
  // Allocates nothing. One call at a time per pool (callers take turns above it); a nested call
  // from inside a body runs on that thread alone.
  template <class Body>
  void parallel_for(int64_t items, const Body& body) noexcept {
    run(items, &body, [](const void* b, int64_t item, int thread) {
      (*static_cast<const Body*>(b))(item, thread);
    });
  }

 private:
  using Call = void (*)(const void* body, int64_t item, int thread);
  void run(int64_t items, const void* body, Call call) noexcept;

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trine::cpu
