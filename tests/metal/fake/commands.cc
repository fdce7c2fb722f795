// SPDX-License-Identifier: Apache-2.0
// Command buffers do their work as late as they may: when somebody waits for them.
#include <cstring>
#include <functional>
#include <vector>

#include "metal/fake/metal.h"
#include "simt/failure.h"

namespace trine::fake {
namespace {

constexpr size_t kIndices = 31;
constexpr UInt kMostBytes = 4096, kMostThreads = 1024;
// MTLCommandBufferStatus
constexpr UInt kOpen = 0, kCommitted = 2, kCompleted = 4, kFailed = 5;

struct Size {
  UInt width, height, depth;
};

struct Bound {
  Held<Buffer> buffer;
  UInt offset = 0;
  std::vector<char> bytes;
};

struct Dispatch {
  Held<Pipeline> pipeline;
  std::vector<Bound> bound;
  Size groups, threads;
};

struct CommandError : Object {
  CommandError(const Class& of, Int number) : Object(of), code(number) {}
  Int code;
};
const Class kCommandError{"NSError",
                          {{"code", method(+[](CommandError* e, Selector) { return e->code; })},
                           {"localizedDescription", method(+[](CommandError*, Selector) {
                              return string("planned failure");
                            })}}};

struct CommandBuffer : Object {
  using Object::Object;
  void end() override {
    if (encoding) misuse("a MTLCommandBuffer is freed while an encoder is open");
    work.clear();
    if (error != nullptr) release(error);
  }
  bool encoding = false;
  UInt status = kOpen;
  CommandError* error = nullptr;
  std::vector<Dispatch> work;
};

struct Encoder : Object {
  Encoder(const Class& of, CommandBuffer* into) : Object(of), commands(into) {}
  void end() override {
    if (!ended) misuse("a MTLComputeCommandEncoder is freed before endEncoding");
    commands = {};
    next = {};
  }
  void must_be_open() const {
    if (ended) misuse("a MTLComputeCommandEncoder is used after endEncoding");
  }
  Bound& at(UInt index) {
    must_be_open();
    if (index >= kIndices) misuse("there is no buffer index " + std::to_string(index));
    if (next.bound.size() <= index) next.bound.resize(index + 1);
    return next.bound[index] = {};
  }
  Held<CommandBuffer> commands;
  Dispatch next;
  bool ended = false;
};

void set_buffer(Encoder* e, Selector, Id buffer, UInt offset, UInt index) {
  auto* const b = checked<Buffer>(buffer, kBuffer);
  if (offset >= b->bytes) {
    misuse("offset " + std::to_string(offset) + " into a buffer of " + std::to_string(b->bytes) +
           " at index " + std::to_string(index));
  }
  if (offset % 256 != 0) misuse("the offset of a binding is no multiple of 256");
  e->at(index) = {Held(b), offset, {}};
}

void set_bytes(Encoder* e, Selector, const void* bytes, UInt count, UInt index) {
  if (count == 0 || count > kMostBytes)
    misuse("setBytes takes 1 to 4096 bytes, not " + std::to_string(count));
  const auto* const first = static_cast<const char*>(bytes);
  e->at(index) = {{}, 0, std::vector<char>(first, first + count)};
}

void set_pipeline(Encoder* e, Selector, Id pipeline) {
  e->must_be_open();
  e->next.pipeline = Held(checked<Pipeline>(pipeline, kPipeline));
}

// Forgets what was bound, unlike Metal: what a kernel reads, its own dispatch must have bound.
void dispatch(Encoder* e, Selector, Size groups, Size threads) {
  e->must_be_open();
  if (!e->next.pipeline) misuse("a dispatch without a pipeline");
  const UInt count = threads.width * threads.height * threads.depth;
  if (count == 0 || count > kMostThreads || groups.width * groups.height * groups.depth == 0)
    misuse("a dispatch of " + e->next.pipeline->kernel + " without threads, or with too many");
  for (size_t i = 0; i < e->next.bound.size(); ++i) {
    const Bound& b = e->next.bound[i];
    if (!b.buffer && b.bytes.empty())
      misuse(e->next.pipeline->kernel + " has nothing bound at index " + std::to_string(i));
  }
  e->next.groups = groups;
  e->next.threads = threads;
  e->commands->work.push_back(std::move(e->next));
  e->next = {};
}

void end_encoding(Encoder* e, Selector) {
  e->must_be_open();
  e->ended = true;
  e->commands->encoding = false;
}

const Class kEncoder{"MTLComputeCommandEncoder",
                     {{"setComputePipelineState:", method(set_pipeline)},
                      {"setBuffer:offset:atIndex:", method(set_buffer)},
                      {"setBytes:length:atIndex:", method(set_bytes)},
                      {"dispatchThreadgroups:threadsPerThreadgroup:", method(dispatch)},
                      {"endEncoding", method(end_encoding)}}};

simt::Index3 index3(const Size& s) {
  return {static_cast<unsigned>(s.width), static_cast<unsigned>(s.height),
          static_cast<unsigned>(s.depth)};
}

void run(Dispatch& d) {
  std::vector<simt::MetalBinding> bindings;
  // Constants are aligned as buffers are.
  std::vector<std::vector<std::max_align_t>> constants;
  for (const Bound& b : d.bound) {
    if (b.buffer) {
      bindings.push_back({b.buffer->data + b.offset, b.buffer->bytes - b.offset});
      continue;
    }
    auto& copy = constants.emplace_back(b.bytes.size() / sizeof(std::max_align_t) + 1);
    std::memcpy(copy.data(), b.bytes.data(), b.bytes.size());
    bindings.push_back({copy.data(), b.bytes.size()});
  }
  try {
    simt::run_metal_kernel(d.pipeline->function, bindings, index3(d.groups), index3(d.threads));
  } catch (const std::exception& e) {
    misuse(d.pipeline->kernel + ": " + e.what());
  }
  for (const Bound& b : d.bound) {
    if (b.buffer) b.buffer->check_end(("after " + d.pipeline->kernel).c_str());
  }
}

Id compute_encoder(CommandBuffer* c, Selector) {
  if (c->encoding) misuse("two encoders of a MTLCommandBuffer are open");
  if (c->status != kOpen) misuse("an encoder of a MTLCommandBuffer that was committed");
  c->encoding = true;
  return autorelease(new Encoder(kEncoder, c));
}

void commit(CommandBuffer* c, Selector) {
  if (c->encoding) misuse("a MTLCommandBuffer is committed while an encoder is open");
  if (c->status != kOpen) misuse("a MTLCommandBuffer is committed twice");
  c->status = kCommitted;
}

void wait_until_completed(CommandBuffer* c, Selector) {
  if (c->status == kOpen) misuse("waiting for a MTLCommandBuffer that was not committed");
  if (c->status != kCommitted) return;
  static std::atomic<int> calls{0};
  if (const int code = simt::planned_failure("run", calls)) {
    c->status = kFailed;
    c->error = new CommandError(kCommandError, code);
    return;
  }
  for (Dispatch& d : c->work) run(d);
  c->work.clear();
  c->status = kCompleted;
}

const Class kCommandBuffer{
    "MTLCommandBuffer",
    {{"computeCommandEncoder", method(compute_encoder)},
     {"commit", method(commit)},
     {"waitUntilCompleted", method(wait_until_completed)},
     {"status", method(+[](CommandBuffer* c, Selector) { return c->status; })},
     {"error", method(+[](CommandBuffer* c, Selector) -> Id { return c->error; })}}};

Id command_buffer(Id, Selector) {
  static std::atomic<int> calls{0};
  if (simt::planned_failure("commandBuffer", calls) != 0) return nullptr;
  return autorelease(new CommandBuffer(kCommandBuffer));
}

const Class kQueue{"MTLCommandQueue", {{"commandBuffer", method(command_buffer)}}};

}  // namespace

Id new_queue() { return new Object(kQueue); }

}  // namespace trine::fake
