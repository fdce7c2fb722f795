// SPDX-License-Identifier: Apache-2.0
// What a launch is, which ones the hardware refuses, and in which order their threads run.
#pragma once

#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>

namespace trine::simt {

struct Index3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr Index3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// What a kernel did wrong; thrown by the launch. The message names kernel, block and threads with
// the lines they are at.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// In which order threads that could go on do so. Correct kernels give the same bits in all.
struct Schedule {
  enum Kind {
    kInOrder,     // thread 0 to its next wait, then thread 1, ...
    kReverse,     // the last thread first
    kGreedyWarp,  // one warp goes on alone as long as it can, `seed` says which
    kRandom       // another order each round, from which warps are missing
  };
  Kind kind = kInOrder;
  unsigned seed = 0;
};
Schedule schedule();
void set_schedule(Schedule schedule);
// "in-order", "reverse", "greedy", "greedy:7", "random:3"; throws std::invalid_argument.
Schedule parse_schedule(const std::string& text);
std::string show(Schedule schedule);
// Calls `run` under one schedule of each kind, and a few seeds of those that have them.
void for_each_schedule(const std::function<void(Schedule)>& run);

// What the hardware has: bytes of shared memory for a block, 48 KiB without asking for more. As
// many as sm_90 has, or TRINE_SIMT_SHARED: sm_75 has 65536.
size_t shared_bytes();
inline constexpr size_t kSharedBytesUnasked = 48 << 10;

struct Launch {
  const char* kernel = "";
  Index3 grid, block;
  size_t dynamic_shared = 0;
  size_t dynamic_shared_limit = kSharedBytesUnasked;
  size_t shared_limit = shared_bytes();  // of all arrays together
};

// Throws Error for what the hardware refuses.
void check_launch(const Launch& launch);
std::string show(Index3 i);

// The limit for this kernel's dynamic shared memory that was asked for.
void set_dynamic_shared_limit(const void* kernel, size_t bytes);
size_t dynamic_shared_limit(const void* kernel);

}  // namespace trine::simt
