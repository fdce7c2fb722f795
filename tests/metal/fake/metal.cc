// SPDX-License-Identifier: Apache-2.0
#include "metal/fake/metal.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "simt/failure.h"

namespace trine::fake {
namespace {

constexpr unsigned char kBehind = 0xa5;
constexpr UInt kMostBytes = UInt{1} << 30;
constexpr Int kApple1 = 1001;
constexpr UInt kLanguage24 = (2 << 16) + 4;

size_t page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
size_t pages_of(size_t bytes) { return (bytes + page() - 1) / page() * page(); }

std::atomic<size_t> allocated{0};

// What TRINE_SIMT_FAIL has for this call.
#define TRINE_PLANNED(name)                             \
  ([] {                                                 \
    static std::atomic<int> calls{0};                   \
    return ::trine::simt::planned_failure(name, calls); \
  }())

struct Array : Object {
  Array(const Class& of, std::vector<Id> all) : Object(of), items(std::move(all)) {}
  void end() override {
    for (const Id item : items) release(item);
  }
  std::vector<Id> items;
};

const Class kArray{"NSArray",
                   {{"count", method(+[](Array* a, Selector) { return UInt{a->items.size()}; })},
                    {"objectAtIndex:", method(+[](Array* a, Selector, UInt i) {
                       if (i >= a->items.size()) misuse("an array has no such object");
                       return a->items[i];
                     })}}};

struct Error : Object {
  Error(const Class& of, Int number, std::string said)
      : Object(of), code(number), text(std::move(said)) {}
  Int code;
  std::string text;
};
const Class kError{
    "NSError",
    {{"code", method(+[](Error* e, Selector) { return e->code; })},
     {"localizedDescription", method(+[](Error* e, Selector) { return string(e->text); })}}};

struct Version {
  Int major, minor, patch;
};
const Class kProcessInfo{
    "NSProcessInfo",
    {{"isOperatingSystemAtLeastVersion:", method(+[](Id, Selector, Version wanted) {
        return wanted.major <= (TRINE_PLANNED("version") != 0 ? 11 : 13);
      })}}};
Object process_info{kProcessInfo, true};

struct CompileOptions : Object {
  using Object::Object;
  bool fast_math = true;
  UInt language = 0;
};
const Class kCompileOptions{
    "MTLCompileOptions",
    {{"setFastMathEnabled:",
      method(+[](CompileOptions* o, Selector, bool on) { o->fast_math = on; })},
     {"setLanguageVersion:",
      method(+[](CompileOptions* o, Selector, UInt version) { o->language = version; })}}};

struct Function : Object {
  Function(const Class& of, std::string called, const simt::MetalKernel& found)
      : Object(of), name(std::move(called)), function(found) {}
  std::string name;
  const simt::MetalKernel& function;
};
const Class kFunction{"MTLFunction"};

// Whether the source makes it is seen by tests/metal/test_sources.py.
Id new_function(Id, Selector, Id name) {
  const std::string& text = checked<String>(name, kString)->text;
  const simt::MetalKernel* const found = simt::find_metal_kernel(text);
  if (found == nullptr || TRINE_PLANNED("newFunction") != 0) return nullptr;
  return new Function(kFunction, text, *found);
}
const Class kLibrary{"MTLLibrary", {{"newFunctionWithName:", method(new_function)}}};

void give_error(Id* error, Int code, const std::string& text) {
  if (error != nullptr) *error = autorelease(new Error(kError, code, text));
}

Id new_library(Id, Selector, Id source, Id options, Id* error) {
  const std::string& text = checked<String>(source, kString)->text;
  const auto* const how = checked<CompileOptions>(options, kCompileOptions);
  if (how->fast_math) misuse("kernels are compiled with fast math: sums lose their order");
  if (how->language != kLanguage24) misuse("kernels are written for MSL 2.4");
  if (text.find("#include \"") != std::string::npos)
    misuse("the source includes a file, and Metal has none");
  if (text.find("#include <metal_stdlib>") == std::string::npos)
    misuse("the source does not include Metal's library");
  if (const int code = TRINE_PLANNED("newLibrary")) {
    give_error(error, code, "program_source:1:1: error: planned");
    return nullptr;
  }
  return new Object(kLibrary);
}

Id new_pipeline(Id, Selector, Id function, Id* error) {
  const auto* const f = checked<Function>(function, kFunction);
  if (const int code = TRINE_PLANNED("newPipeline")) {
    give_error(error, code, "Compiler encountered an internal error");
    return nullptr;
  }
  return new Pipeline(f->name, f->function);
}

Id new_buffer(Id, Selector, UInt bytes, UInt options) {
  if (bytes == 0) misuse("a buffer of no bytes");
  if (options != 0) misuse("storage other than shared is not pretended");
  if (bytes > kMostBytes) misuse("a buffer longer than maxBufferLength");
  if (TRINE_PLANNED("newBuffer") != 0) return nullptr;
  // A page behind it ends the process when it is touched.
  const size_t size = pages_of(bytes);
  void* const p =
      mmap(nullptr, size + page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  mprotect(static_cast<std::byte*>(p) + size, page(), PROT_NONE);
  std::memset(p, 0xff, bytes);
  std::memset(static_cast<std::byte*>(p) + bytes, kBehind, size - bytes);
  allocated += bytes;
  return new Buffer(p, bytes, true);
}

Id new_buffer_around(Id, Selector, void* memory, UInt bytes, UInt options, void* deallocator) {
  if (reinterpret_cast<uintptr_t>(memory) % page() != 0 || bytes % page() != 0 || bytes == 0)
    misuse("a buffer without a copy is of whole pages");
  if (options != 0 || deallocator != nullptr) misuse("options that are not pretended");
  std::vector<unsigned char> known(bytes / page());
  if (mincore(memory, bytes, known.data()) != 0)
    misuse("a buffer without a copy is around memory that is not there");
  if (bytes > kMostBytes) misuse("a buffer longer than maxBufferLength");
  if (TRINE_PLANNED("newBufferWithBytesNoCopy") != 0) return nullptr;
  return new Buffer(memory, bytes, false);
}

bool supports_family(Id, Selector, Int family) {
  return family >= kApple1 && family <= kApple1 + (TRINE_PLANNED("family") != 0 ? 4 : 7);
}

const Class kDevice{
    "MTLDevice",
    {{"name", method(+[](Id, Selector) { return string("emulated Apple GPU"); })},
     {"supportsFamily:", method(supports_family)},
     {"maxBufferLength", method(+[](Id, Selector) { return kMostBytes; })},
     {"recommendedMaxWorkingSetSize", method(+[](Id, Selector) { return uint64_t{1} << 33; })},
     {"currentAllocatedSize", method(+[](Id, Selector) { return UInt{allocated.load()}; })},
     {"newCommandQueue", method(+[](Id, Selector) {
        return TRINE_PLANNED("newCommandQueue") != 0 ? nullptr : new_queue();
      })},
     {"newLibraryWithSource:options:error:", method(new_library)},
     {"newComputePipelineStateWithFunction:error:", method(new_pipeline)},
     {"newBufferWithLength:options:", method(new_buffer)},
     {"newBufferWithBytesNoCopy:length:options:deallocator:", method(new_buffer_around)}}};

const Class kStringMethods{"class NSString",
                           {{"stringWithUTF8String:", method(+[](Id, Selector, const char* text) {
                               return string(text);
                             })}}};
const Class kProcessInfoMethods{
    "class NSProcessInfo",
    {{"processInfo", method(+[](Id, Selector) -> Id { return &process_info; })}}};
const Class kCompileOptionsMethods{
    "class MTLCompileOptions",
    {{"new", method(+[](Id, Selector) -> Id { return new CompileOptions(kCompileOptions); })}}};

}  // namespace

const Class kString{"NSString",
                    {{"UTF8String", method(+[](String* s, Selector) { return s->text.c_str(); })}}};
const Class kBuffer{"MTLBuffer",
                    {{"contents", method(+[](Buffer* b, Selector) -> void* { return b->data; })},
                     {"length", method(+[](Buffer* b, Selector) { return UInt{b->bytes}; })}}};
const Class kPipeline{"MTLComputePipelineState",
                      {{"threadExecutionWidth", method(+[](Id, Selector) { return UInt{32}; })},
                       {"maxTotalThreadsPerThreadgroup", method(+[](Id, Selector) {
                          return UInt{TRINE_PLANNED("maxThreads") != 0 ? 16u : 1024u};
                        })}}};

Object kStringClass{kStringMethods, true};
Object kProcessInfoClass{kProcessInfoMethods, true};
Object kCompileOptionsClass{kCompileOptionsMethods, true};

String::String(std::string s) : Object(kString), text(std::move(s)) {}
String* string(const std::string& text) {
  auto* const made = new String(text);
  autorelease(made);
  return made;
}

Pipeline::Pipeline(std::string kernel_name, const simt::MetalKernel& found)
    : Object(kPipeline), kernel(std::move(kernel_name)), function(found) {}

Buffer::Buffer(void* memory, size_t size, bool own)
    : Object(kBuffer), data(static_cast<std::byte*>(memory)), bytes(size), owns(own) {}

void Buffer::check_end(const char* when) const {
  for (size_t i = bytes; owns && i < pages_of(bytes); ++i) {
    if (data[i] == std::byte{kBehind}) continue;
    misuse("byte " + std::to_string(i) + " of a buffer of " + std::to_string(bytes) +
           " was written, as is seen " + when);
  }
}

void Buffer::end() {
  check_end("when it is freed");
  if (!owns) return;
  allocated -= bytes;
  munmap(data, pages_of(bytes) + page());
}

}  // namespace trine::fake

extern "C" __attribute__((visibility("default"))) trine::fake::Id MTLCopyAllDevices() {
  using namespace trine::fake;
  const bool none = TRINE_PLANNED("devices") != 0;
  std::vector<Id> all;
  if (!none) all.push_back(new Object(kDevice));
  return new Array(kArray, std::move(all));
}
