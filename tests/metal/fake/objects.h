// SPDX-License-Identifier: Apache-2.0
// Objects, classes and reference counts of a pretended Objective-C. What a caller must not do ends
// the process with a line on stderr that says what it was.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <string_view>

namespace trine::fake {

// Prints "fake Metal: ..." and aborts.
[[noreturn]] void misuse(const std::string& what);

struct Object;
using Id = Object*;
using Selector = const char*;  // of sel_registerName: one address for each name
using UInt = unsigned long;    // NSUInteger
using Int = long;

struct Class {
  std::string name;
  std::map<std::string_view, void*> methods = {};  // besides retain and release
};

struct Object {
  // `immortal`: a class or a singleton, which nobody owns.
  explicit Object(const Class& of, bool immortal = false);
  virtual ~Object();
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  // When the last reference goes: lets go of what it holds. Its shell stays, to know who comes
  // late.
  virtual void end() {}

  const Class& isa;
  const bool immortal;
  std::atomic<int> references{1};
};

template <class T>
T* retained(T* object) {
  if (object != nullptr && !object->immortal) ++object->references;
  return object;
}
void release(Id object);
// Gives a reference to the thread's innermost pool.
Id autorelease(Id object);

// A reference that ends with its holder.
template <class T>
class Held {
 public:
  Held() = default;
  explicit Held(T* object) : object_(retained(object)) {}
  Held(const Held& other) : Held(other.object_) {}
  Held& operator=(Held other) {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Held() {
    if (object_ != nullptr) release(object_);
  }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  T* object_ = nullptr;
};

// An argument that must be an object of this class.
template <class T>
T* checked(Id object, const Class& of) {
  if (object == nullptr) misuse("null instead of an object of " + of.name);
  if (&object->isa != &of)
    misuse("an object of " + object->isa.name + " instead of one of " + of.name);
  if (object->references <= 0) misuse("an argument is a freed " + of.name);
  return static_cast<T*>(object);
}

struct String : Object {
  explicit String(std::string s);
  std::string text;
};
String* string(const std::string& text);  // of the innermost pool
extern const Class kString;

// A method's address: method(+[](T* self, Selector, arguments...) {...}).
template <class F>
void* method(F* function) {
  return reinterpret_cast<void*>(function);
}

// What objc_getClass finds: objects whose methods are the classes'.
extern Object kStringClass, kProcessInfoClass, kCompileOptionsClass;

}  // namespace trine::fake
