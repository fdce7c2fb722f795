// SPDX-License-Identifier: Apache-2.0
#include "objc.h"

#include <dlfcn.h>

#include <mutex>

#include "base/error.h"

// The tests' build names its own library for both.
#ifndef TRINE_OBJC_LIBRARY
#define TRINE_OBJC_LIBRARY "/usr/lib/libobjc.A.dylib"
#define TRINE_METAL_LIBRARY "/System/Library/Frameworks/Metal.framework/Metal"
#endif

namespace trine::metal {
namespace objc {
namespace {

struct Functions {
  Selector (*selector)(const char*) = nullptr;
  Id (*find_class)(const char*) = nullptr;
  void* message_send = nullptr;
  void* (*push_pool)() = nullptr;
  void (*pop_pool)(void*) = nullptr;
  Id (*copy_all_devices)() = nullptr;
};

Functions functions;
std::atomic<bool> ready{false};

void* open(const char* path) {
  void* const library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const why = dlerror();
    throw DeviceError(cat("Metal is not there: ", why == nullptr ? path : why,
                          "; device=\"metal\" needs macOS on Apple silicon, device=\"cpu\" works "
                          "everywhere"));
  }
  return library;
}

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) {
    throw DeviceError(
        cat("this system's Metal has no ", name, ": update macOS, or use device=\"cpu\""));
  }
}

}  // namespace

void load() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (loaded()) return;
  Functions found;
  void* const runtime = open(TRINE_OBJC_LIBRARY);
  find(runtime, "sel_registerName", found.selector);
  find(runtime, "objc_getClass", found.find_class);
  find(runtime, "objc_msgSend", found.message_send);
  find(runtime, "objc_autoreleasePoolPush", found.push_pool);
  find(runtime, "objc_autoreleasePoolPop", found.pop_pool);
  find(open(TRINE_METAL_LIBRARY), "MTLCopyAllDevices", found.copy_all_devices);
  functions = found;
  ready.store(true, std::memory_order_release);
}

bool loaded() noexcept { return ready.load(std::memory_order_acquire); }
Selector selector(const char* name) noexcept { return functions.selector(name); }
Id find_class(const char* name) noexcept { return functions.find_class(name); }
void* message_send() noexcept { return functions.message_send; }
Id copy_all_devices() noexcept { return functions.copy_all_devices(); }
void* push_pool() noexcept { return functions.push_pool(); }
void pop_pool(void* pool) noexcept { functions.pop_pool(pool); }

}  // namespace objc

Id string(const char* text) noexcept {
  static constinit const Method<Id(const char*)> make{"stringWithUTF8String:"};
  return make(objc::find_class("NSString"), text);
}

std::string text_of(Id string) {
  static constinit const Method<const char*()> utf8{"UTF8String"};
  const char* const text = utf8(string);
  return text == nullptr ? std::string() : text;
}

}  // namespace trine::metal
