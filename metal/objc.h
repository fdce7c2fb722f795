// SPDX-License-Identifier: Apache-2.0
// Objective-C's runtime library as plain C++ sees it: found by dlopen, so that this compiles
// without an SDK and loads where there is no Metal. A method is called through objc_msgSend, cast
// to the method's own type as the ABI asks for.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace trine::metal {

using Id = struct Object*;  // any object, and any class; a message to null gives 0
using Selector = struct RegisteredSelector*;

namespace objc {

// DeviceError when there is no Metal: says why and what to do.
void load();
bool loaded() noexcept;
Selector selector(const char* name) noexcept;
Id find_class(const char* name) noexcept;
void* message_send() noexcept;
// Of Metal.framework; the caller owns the array. Null when there is none.
Id copy_all_devices() noexcept;
void* push_pool() noexcept;
void pop_pool(void* pool) noexcept;

}  // namespace objc

// Objects that methods return without giving them away live until the thread's innermost pool ends.
class Pool {
 public:
  Pool() : pool_(objc::push_pool()) {}
  ~Pool() { objc::pop_pool(pool_); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

 private:
  void* pool_;
};

template <class Signature>
class Method;

// method(object, arguments...), whatever the object's class.
template <class Result, class... Arguments>
class Method<Result(Arguments...)> {
 public:
  constexpr explicit Method(const char* name) : name_(name) {}

  Result operator()(Id object, Arguments... arguments) const noexcept {
    Selector s = selector_.load(std::memory_order_relaxed);
    if (s == nullptr) {
      s = objc::selector(name_);
      selector_.store(s, std::memory_order_relaxed);
    }
    using Function = Result (*)(Id, Selector, Arguments...);
    return reinterpret_cast<Function>(objc::message_send())(object, s, arguments...);
  }

 private:
  const char* name_;
  mutable std::atomic<Selector> selector_{nullptr};
};

inline constinit const Method<Id()> retain{"retain"};
inline constinit const Method<void()> release{"release"};

// Owns a reference to an object.
class Ref {
 public:
  Ref() = default;
  // What `new...`, `copy...` and `alloc` methods return.
  static Ref owned(Id object) noexcept { return Ref(object); }
  // What other methods return.
  static Ref shared(Id object) noexcept { return Ref(object == nullptr ? object : retain(object)); }
  Ref(const Ref& other) noexcept : Ref(shared(other.object_)) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ != nullptr) release(object_);
  }

  Id get() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  explicit Ref(Id object) noexcept : object_(object) {}
  Id object_ = nullptr;
};

// An NSString of the innermost pool.
Id string(const char* text) noexcept;
// Empty for null.
std::string text_of(Id string);

}  // namespace trine::metal
