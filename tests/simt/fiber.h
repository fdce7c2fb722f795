// SPDX-License-Identifier: Apache-2.0
// Stacks of their own within one OS thread, and the switch between them, told to the sanitizers.
#pragma once

#include <cstddef>

namespace trine::simt {

// What runs on one stack: the caller's, or a fiber's. A fiber's memory is the stack pool's.
struct Context {
  void* stack_pointer = nullptr;
  const void* stack_bottom = nullptr;
  size_t stack_size = 0;
  void* fake_stack = nullptr;  // ASan's
  void* tsan_fiber = nullptr;
};

// As many stacks as the largest block so far, each above a page that faults.
class StackPool {
 public:
  StackPool() = default;
  ~StackPool();
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;

  // Stacks without a past: no shadow of earlier fibers' variables.
  void renew(int count);
  char* bottom(int i) const;
  static size_t size();

 private:
  void release();

  char* memory_ = nullptr;
  int count_ = 0;
};

// A context that starts in `entry` at the first switch to it, and never returns from there.
Context make_fiber(const StackPool& stacks, int i, void (*entry)());
void destroy_fiber(Context& fiber);
// What the fiber has done comes before what the caller does next.
void join_fiber(Context& fiber, Context& caller);
// The caller's own context, to be switched from.
Context this_context();
// Names a fiber in TSan's reports.
void name_fiber(const Context& fiber, const char* name);

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
