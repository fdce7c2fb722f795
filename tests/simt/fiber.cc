// SPDX-License-Identifier: Apache-2.0
// Compiled without sanitizers, so that bookkeeping is invisible to them; SIMT_ASAN and SIMT_TSAN
// say which one the program as a whole is built with.
#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace trine::simt {

namespace {

// Kernels keep accumulators in registers on a GPU, on the stack here; sanitizers add redzones.
constexpr size_t kStack = 256 << 10;

size_t page() {
  static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace

// Saves what the ABI makes the callee keep, then exchanges the stack pointer.
extern "C" void simt_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.type simt_switch, @function
simt_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size simt_switch, . - simt_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.type simt_switch, %function
simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size simt_switch, . - simt_switch
)");
#else
#error "no context switch for this processor"
#endif

FiberPool::FiberPool() : stacks_(map_memory(kFibers * (kStack + page()))) {
  for (int i = 0; i < kFibers; ++i) mprotect(stack(i) - page(), page(), PROT_NONE);
}

FiberPool::~FiberPool() {
  abandon();
  munmap(stacks_, kFibers * (kStack + page()));
}

// Above a page that faults.
char* FiberPool::stack(int i) const {
  return stacks_ + static_cast<size_t>(i) * (kStack + page()) + page();
}

void FiberPool::abandon() {
#ifdef SIMT_TSAN
  for (void*& fiber : tsan_fibers_) {
    if (fiber != nullptr) __tsan_destroy_fiber(fiber);
    fiber = nullptr;
  }
#endif
}

Context FiberPool::start(int i, void (*entry)(), [[maybe_unused]] const char* name) {
  Context fiber;
  fiber.stack_bottom = stack(i);
  fiber.stack_size = kStack;
  allow_access(stack(i), kStack);
  void** top = reinterpret_cast<void**>(stack(i) + kStack - 64);
#if defined(__x86_64__)
  // The address `ret` takes, below it six registers; a function starts 8 past a multiple of 16.
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int k = 0; k < 6; ++k) *--top = nullptr;
#else
  top -= 20;
  std::memset(top, 0, 160);
  top[11] = reinterpret_cast<void*>(entry);
#endif
  fiber.stack_pointer = top;
#ifdef SIMT_TSAN
  if (tsan_fibers_[i] == nullptr) tsan_fibers_[i] = __tsan_create_fiber(0);
  fiber.tsan_fiber = tsan_fibers_[i];
  __tsan_set_fiber_name(fiber.tsan_fiber, name);
#endif
  return fiber;
}

void join_fiber([[maybe_unused]] Context& fiber, [[maybe_unused]] Context& caller) {
#ifdef SIMT_TSAN
  if (fiber.tsan_fiber == nullptr) return;
  __tsan_switch_to_fiber(fiber.tsan_fiber, __tsan_switch_to_fiber_no_sync);
  __tsan_switch_to_fiber(caller.tsan_fiber, 0);
#endif
}

Context this_context() {
  Context context;
#ifdef SIMT_TSAN
  context.tsan_fiber = __tsan_get_current_fiber();
#endif
  return context;
}

void switch_context(Context& from, Context& to) {
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_bottom, to.stack_size);
#endif
#ifdef SIMT_TSAN
  __tsan_switch_to_fiber(to.tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
  simt_switch(&from.stack_pointer, to.stack_pointer);
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void entered([[maybe_unused]] Context& from) {
#ifdef SIMT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &from.stack_bottom, &from.stack_size);
#endif
}

void release([[maybe_unused]] void* tag) {
#ifdef SIMT_TSAN
  __tsan_release(tag);
#endif
}

void acquire([[maybe_unused]] void* tag) {
#ifdef SIMT_TSAN
  __tsan_acquire(tag);
#endif
}

void forbid_access([[maybe_unused]] const void* memory, [[maybe_unused]] size_t bytes) {
#ifdef SIMT_ASAN
  __asan_poison_memory_region(memory, bytes);
#endif
}

void allow_access([[maybe_unused]] const void* memory, [[maybe_unused]] size_t bytes) {
#ifdef SIMT_ASAN
  __asan_unpoison_memory_region(memory, bytes);
#endif
}

char* map_memory(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<char*>(memory);
}

void forget_accesses([[maybe_unused]] char* memory, [[maybe_unused]] size_t bytes) {
#ifdef SIMT_TSAN
  if (mmap(memory, bytes, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
    throw std::bad_alloc();
  }
#endif
}

#if defined(SIMT_ASAN)
void on_report(void (*callback)()) { __sanitizer_set_death_callback(callback); }
#elif defined(SIMT_TSAN)
static void (*report_callback)() = nullptr;
extern "C" void __tsan_on_report(void*) {
  if (report_callback != nullptr) report_callback();
}
void on_report(void (*callback)()) { report_callback = callback; }
#else
void on_report(void (*)()) {}
#endif

}  // namespace trine::simt
