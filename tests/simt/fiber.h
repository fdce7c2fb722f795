// SPDX-License-Identifier: Apache-2.0
// Stacks of their own within one OS thread, and the switch between them, told to the sanitizers.
#pragma once

#include <cstddef>

namespace trine::simt {

// What runs on one stack: the caller's, or a fiber's. A fiber's memory is its pool's.
struct Context {
  void* stack_pointer = nullptr;
  const void* stack_bottom = nullptr;
  size_t stack_size = 0;
  void* fake_stack = nullptr;  // ASan's
  void* tsan_fiber = nullptr;
};

// Fibers for the threads of a block, used again for the next one. To TSan they are the same fibers
// then, which knows what they have seen; where blocks must look unordered, pools take turns.
class FiberPool {
 public:
  static constexpr int kFibers = 1024;

  FiberPool();
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  // A context that starts in `entry` at the first switch to it, and never returns from there.
  Context start(int i, void (*entry)(), const char* name);
  // Forgets fibers that were left in the middle of something, after join_fiber.
  void abandon();

 private:
  char* stack(int i) const;

  char* stacks_;
  void* tsan_fibers_[kFibers] = {};
};

// What the fiber has done comes before what the caller does next.
void join_fiber(Context& fiber, Context& caller);
// The caller's own context, to be switched from.
Context this_context();
// Leaves `from`, goes on in `to`, and returns when somebody switches back. TSan sees no
// synchronisation in it.
void switch_context(Context& from, Context& to);
// The first thing that `entry` calls: `from` is whence it was switched to.
void entered(Context& from);

// Orders what the caller did before `release` before what follows an `acquire` of the same tag.
void release(void* tag);
void acquire(void* tag);

// Whether ASan lets kernels access this memory.
void forbid_access(const void* memory, size_t bytes);
void allow_access(const void* memory, size_t bytes);
// Fresh pages for TSan, which then knows of no earlier access.
char* map_memory(size_t bytes);
void forget_accesses(char* memory, size_t bytes);

// Called when a sanitizer has reported something, before the process ends.
void on_report(void (*callback)());

}  // namespace trine::simt
