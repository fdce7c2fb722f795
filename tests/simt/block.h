// SPDX-License-Identifier: Apache-2.0
// A SIMT machine on one OS thread: blocks run one after the other, and each thread of a block is a
// fiber that runs until it waits. What this finds, and in which build:
//   any    threads of a block at different barriers, or gone before one; lanes that miss a shuffle,
//          __syncwarp, mma or ldmatrix; copies that nobody waited for; shared memory written past
//          an array's end; misaligned cp.async and ldmatrix; launches that the hardware refuses
//   any    by NaN in the results: shared memory that was never written, buffers that a cp.async
//          still owns. By results that differ between schedules: missing barriers
//   ASan   accesses outside of device and shared memory        UBSan  misaligned vectors
//   TSan   accesses that no barrier orders, within a block and between blocks, with both lines
// What it can't: the memory model below barriers, rounding of tensor cores, speed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>
#include <tuple>
#include <utility>

#include "simt/launch.h"

namespace trine::simt {

using Site = std::source_location;

// Runs `thread` once per thread of every block. Throws Error.
void run(const Launch& launch, const std::function<void()>& thread);

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), Index3 grid, Index3 block,
            size_t dynamic_shared, Arguments&&... arguments) {
  const std::tuple<Parameters...> stored{static_cast<Parameters>(arguments)...};
  const size_t limit = dynamic_shared_limit(reinterpret_cast<const void*>(kernel));
  run({name, grid, block, dynamic_shared, limit}, [&] { std::apply(kernel, stored); });
}

// The rest is what a kernel may ask for. A thread's index never changes, hence `const`.
[[gnu::const]] const Index3& thread_index();
[[gnu::const]] const Index3& block_index();
[[gnu::const]] const Index3& block_dim();
[[gnu::const]] const Index3& grid_dim();
[[gnu::const]] int lane();

[[noreturn]] void fail(const std::string& what, Site site);

// All threads of the block, with their memory.
void block_barrier(Site site);
// A barrier that gives how many of its threads came with a true predicate.
int block_count(bool predicate, Site site);
// The lanes of `mask`, with their memory.
void warp_barrier(uint32_t mask, Site site);

// What this thread did before comes before what threads do after a later fence of theirs.
void fence();

// What a lane brings to a collective operation of its warp, and takes from it.
struct Slot {
  alignas(16) unsigned char in[64];
  alignas(16) unsigned char out[64];
};
Slot& slot();
// Waits for the lanes of `mask`; the last to come computes every lane's `out`. Of memory, nothing
// is ordered.
using Combine = void (*)(Slot* const (&lanes)[32], uint32_t mask, Site site);
void collective(const char* name, uint32_t mask, Combine combine, Site site);

// An array in shared memory, the same for all threads that ask at this site.
void* shared_array(const char* name, size_t bytes, size_t alignment, Site site);
void* dynamic_shared(Site site);
// Fails unless all `bytes` are in shared memory (or, if not `shared`, none) and aligned to `bytes`.
void check_address(const void* p, size_t bytes, bool shared, const char* what, Site site);

// cp.async: a copy belongs to the thread's current group until it is taken.
struct Copy {
  void* shared;
  const void* global;  // null: zeros
  int words, group;
};
void add_copy(void* shared, const void* global, int words, Site site);
void end_copy_group();
// The oldest copy that is due when only the latest `pending` groups may be under way, or null.
const Copy* take_copy(int pending);

}  // namespace trine::simt
