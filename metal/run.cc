// SPDX-License-Identifier: Apache-2.0
#include "run.h"

#include "base/error.h"

namespace trine::metal {
namespace {

using UInt = unsigned long;  // NSUInteger

struct Size {  // MTLSize
  UInt width, height, depth;
};

constinit const Method<Id()> command_buffer{"commandBuffer"};
constinit const Method<Id()> compute_encoder{"computeCommandEncoder"};
constinit const Method<void(Id)> set_pipeline{"setComputePipelineState:"};
constinit const Method<void(Id, UInt, UInt)> set_buffer{"setBuffer:offset:atIndex:"};
constinit const Method<void(const void*, UInt, UInt)> set_bytes{"setBytes:length:atIndex:"};
constinit const Method<void(Size, Size)> dispatch_groups{
    "dispatchThreadgroups:threadsPerThreadgroup:"};
constinit const Method<void()> end_encoding{"endEncoding"};
constinit const Method<void()> commit_commands{"commit"};
constinit const Method<void()> wait_until_completed{"waitUntilCompleted"};
constinit const Method<UInt()> status{"status"};

constexpr UInt kCompleted = 4;  // MTLCommandBufferStatusCompleted

}  // namespace

Run::Run(std::shared_ptr<Device> device) : device_(std::move(device)) {}

Run::~Run() { abandon(); }

bool Run::open() noexcept {
  if (encoder_) return true;
  if (failed_ != nullptr) return false;
  const Pool pool;
  commands_ = Ref::shared(command_buffer(device_->queue()));
  encoder_ = Ref::shared(compute_encoder(commands_.get()));
  if (!encoder_) failed_ = "the GPU gives no command buffer";
  return bool(encoder_);
}

void Run::dispatch(const Launch& launch, std::initializer_list<Place> buffers, const void* args,
                   size_t bytes) noexcept {
  if (launch.empty() || !open()) return;
  const Id encoder = encoder_.get();
  set_pipeline(encoder, device_->pipeline(launch.kernel));
  UInt index = 0;
  for (const Place& place : buffers) {
    // What is absent must be something, which isn't read.
    const Id buffer = place ? place.buffer : inputs.object.get();
    set_buffer(encoder, buffer, static_cast<UInt>(place.offset), index++);
  }
  set_bytes(encoder, args, bytes, index);
  const auto& groups = launch.threadgroups;
  dispatch_groups(encoder, {groups[0], groups[1], groups[2]}, {launch.threads, 1, 1});
}

void Run::commit() {
  if (failed_ != nullptr) {
    const char* const why = failed_;
    abandon();
    throw DeviceError(cat("Metal, running: ", why, "; device=\"cpu\" still works"));
  }
  if (!encoder_) return;
  wait();  // one is on its way at a time
  const Pool pool;
  end_encoding(encoder_.get());
  encoder_ = {};
  committed_ = std::move(commands_);
  commit_commands(committed_.get());
}

void Run::wait() {
  if (!committed_) return;
  const Pool pool;
  const Ref commands = std::move(committed_);
  wait_until_completed(commands.get());
  if (status(commands.get()) != kCompleted) throw DeviceError(explain_failure(commands.get()));
}

void Run::abandon() noexcept {
  if (encoder_) end_encoding(encoder_.get());  // what was not committed never runs
  encoder_ = {};
  commands_ = {};
  if (committed_) wait_until_completed(committed_.get());
  committed_ = {};
  failed_ = nullptr;
}

Place Run::place(const void* p) const noexcept {
  if (p == nullptr) return {};
  const auto* const at = static_cast<const std::byte*>(p);
  if (at >= inputs.contents && at < inputs.contents + inputs.bytes)
    return {inputs.object.get(), at - inputs.contents, const_cast<std::byte*>(at)};
  return {arena, at - arena_start, const_cast<std::byte*>(at)};
}

}  // namespace trine::metal
