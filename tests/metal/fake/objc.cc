// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <vector>

#include "metal/fake/objects.h"

#define TRINE_FAKE_API extern "C" __attribute__((visibility("default")))

namespace trine::fake {
namespace {

// Objects that are not freed yet, by class.
std::mutex live_mutex;
std::map<std::string, int>& live() {
  static std::map<std::string, int> counts;
  return counts;
}
void count_live(const Object& object, int by) {
  if (object.immortal) return;
  const std::lock_guard lock(live_mutex);
  live()[object.isa.name] += by;
}

thread_local std::vector<std::vector<Id>> pools;

}  // namespace

void misuse(const std::string& what) {
  std::fprintf(stderr, "fake Metal: %s\n", what.c_str());
  std::fflush(stderr);
  std::abort();
}

Object::Object(const Class& of, bool forever) : isa(of), immortal(forever) { count_live(*this, 1); }
Object::~Object() = default;

void release(Id object) {
  if (object->immortal) return;
  const int left = --object->references;
  if (left < 0) misuse("one release too many of a " + object->isa.name);
  if (left > 0) return;
  object->end();
  count_live(*object, -1);
}

Id autorelease(Id object) {
  if (pools.empty()) misuse("a " + object->isa.name + " is autoreleased without a pool: it leaks");
  pools.back().push_back(object);
  return object;
}

}  // namespace trine::fake

using namespace trine::fake;

extern "C" void* trine_fake_find_method(Id object, Selector selector) {
  if (object == nullptr) return method(+[](Id, Selector) -> void* { return nullptr; });
  if (object->references <= 0)
    misuse(std::string(selector) + " is sent to a freed " + object->isa.name);
  const std::string_view name = selector;
  if (name == "retain") return method(+[](Id self, Selector) { return retained(self); });
  if (name == "release") return method(+[](Id self, Selector) { release(self); });
  const auto found = object->isa.methods.find(name);
  if (found == object->isa.methods.end())
    misuse(object->isa.name + " has no method " + std::string(selector));
  return found->second;
}

// Finds the method and jumps to it with all of the caller's arguments where they were.
#if defined(__x86_64__)
asm(R"(
.text
.globl objc_msgSend
.type objc_msgSend, @function
objc_msgSend:
  push %rbp
  mov %rsp, %rbp
  sub $192, %rsp
  mov %rdi, (%rsp)
  mov %rsi, 8(%rsp)
  mov %rdx, 16(%rsp)
  mov %rcx, 24(%rsp)
  mov %r8, 32(%rsp)
  mov %r9, 40(%rsp)
  movups %xmm0, 64(%rsp)
  movups %xmm1, 80(%rsp)
  movups %xmm2, 96(%rsp)
  movups %xmm3, 112(%rsp)
  movups %xmm4, 128(%rsp)
  movups %xmm5, 144(%rsp)
  movups %xmm6, 160(%rsp)
  movups %xmm7, 176(%rsp)
  call trine_fake_find_method@PLT
  mov %rax, %r11
  mov (%rsp), %rdi
  mov 8(%rsp), %rsi
  mov 16(%rsp), %rdx
  mov 24(%rsp), %rcx
  mov 32(%rsp), %r8
  mov 40(%rsp), %r9
  movups 64(%rsp), %xmm0
  movups 80(%rsp), %xmm1
  movups 96(%rsp), %xmm2
  movups 112(%rsp), %xmm3
  movups 128(%rsp), %xmm4
  movups 144(%rsp), %xmm5
  movups 160(%rsp), %xmm6
  movups 176(%rsp), %xmm7
  leave
  jmp *%r11
.size objc_msgSend, .-objc_msgSend
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl objc_msgSend
.type objc_msgSend, %function
objc_msgSend:
  stp x29, x30, [sp, #-16]!
  mov x29, sp
  sub sp, sp, #208
  stp x0, x1, [sp]
  stp x2, x3, [sp, #16]
  stp x4, x5, [sp, #32]
  stp x6, x7, [sp, #48]
  str x8, [sp, #64]
  stp q0, q1, [sp, #80]
  stp q2, q3, [sp, #112]
  stp q4, q5, [sp, #144]
  stp q6, q7, [sp, #176]
  bl trine_fake_find_method
  mov x16, x0
  ldp x0, x1, [sp]
  ldp x2, x3, [sp, #16]
  ldp x4, x5, [sp, #32]
  ldp x6, x7, [sp, #48]
  ldr x8, [sp, #64]
  ldp q0, q1, [sp, #80]
  ldp q2, q3, [sp, #112]
  ldp q4, q5, [sp, #144]
  ldp q6, q7, [sp, #176]
  mov sp, x29
  ldp x29, x30, [sp], #16
  br x16
.size objc_msgSend, .-objc_msgSend
)");
#else
#error "objc_msgSend is not written for this processor"
#endif

TRINE_FAKE_API Selector sel_registerName(const char* name) {
  static std::mutex mutex;
  static std::set<std::string> names;
  const std::lock_guard lock(mutex);
  return names.insert(name).first->c_str();
}

TRINE_FAKE_API Id objc_getClass(const char* name) {
  for (Object* known : {&kStringClass, &kProcessInfoClass, &kCompileOptionsClass}) {
    if (known->isa.name == std::string("class ") + name) return known;
  }
  return nullptr;
}

TRINE_FAKE_API void* objc_autoreleasePoolPush() {
  pools.emplace_back();
  return reinterpret_cast<void*>(pools.size());
}

TRINE_FAKE_API void objc_autoreleasePoolPop(void* pool) {
  if (pools.size() != reinterpret_cast<size_t>(pool)) misuse("pools end in another order");
  const std::vector<Id> objects = std::move(pools.back());
  pools.pop_back();
  for (const Id object : objects) release(object);
}

// How many objects are not freed, with their names and numbers: what a test of leaks asks.
TRINE_FAKE_API int trine_fake_live(char* names, size_t size) {
  const std::lock_guard lock(live_mutex);
  std::string text;
  int all = 0;
  for (const auto& [name, count] : live()) {
    if (count != 0) text += name + ": " + std::to_string(count) + "\n";
    all += count;
  }
  if (size > 0) std::snprintf(names, size, "%s", text.c_str());
  return all;
}
