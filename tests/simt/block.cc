// SPDX-License-Identifier: Apache-2.0
// Compiled without sanitizers, see fiber.cc: kernels are checked, this is not.
#include "block.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "fiber.h"
#include "shared_memory.h"

namespace trine::simt {

namespace {

constexpr int kWarp = 32;

enum class State : uint8_t { kReady, kAtBarrier, kInCollective, kDone };

// A thread's copies under way: a ring of fixed size, because memory that grows would be seen by the
// sanitizers, as if threads that use it in turn raced for it.
class Copies {
 public:
  bool empty() const { return begin_ == end_; }
  bool full() const { return end_ - begin_ == kRoom; }
  void push(void* shared, const void* global, int words) {
    ring_[end_++ % kRoom] = {shared, global, words, group_};
  }
  void end_group() { ++group_; }
  const Copy* take(int pending) {
    const Copy& oldest = ring_[begin_ % kRoom];
    if (empty() || oldest.group >= group_ - pending) return nullptr;
    ++begin_;
    return &oldest;
  }
  void clear() { begin_ = end_ = group_ = 0; }

 private:
  static constexpr int kRoom = 256;
  Copy ring_[kRoom];
  int begin_ = 0, end_ = 0, group_ = 0;
};

struct Thread {
  Context context;
  Index3 index;
  int number = 0, lane = 0, warp = 0;
  State state = State::kReady;
  Site site;                   // of the wait
  const char* operation = "";  // a collective's name
  uint32_t mask = 0;
  int arrived = 0;                           // lanes at it, itself included
  unsigned barriers = 0, warp_barriers = 0;  // how many it has passed
  Slot slot;
  Copies copies;
};

struct Votes {
  unsigned barrier = 0;  // from 1
  int count = 0;
};

std::string show(Site site) {
  return std::string(site.file_name()) + ":" + std::to_string(site.line());
}

bool same(Site a, Site b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

unsigned next_random(unsigned& state) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

std::string show(const Thread& thread) {
  std::string text = "thread " + show(thread.index);
  if (thread.state == State::kDone) return text + " has ended";
  if (thread.state == State::kReady) return text;
  const bool barrier = thread.state == State::kAtBarrier;
  return text + " waits in " + (barrier ? "__syncthreads" : thread.operation) + " at " +
         show(thread.site);
}

// The block that is running. Everything here belongs to it or is kept for the next one.
class Block {
 public:
  Block(const Launch& launch, const std::function<void()>& body, Schedule schedule);
  ~Block();
  void run(Index3 index);

  Thread& thread() { return *current_; }
  [[noreturn]] void fail(const std::string& what);
  void wait(State state, Site site);
  void arrive(const char* name, uint32_t mask, Combine combine, Site site);
  void warp_barrier(uint32_t mask, Site site);
  void* shared_array(const char* name, size_t bytes, size_t alignment, Site site);
  std::string where() const;

  const Launch& launch;
  Index3 index;
  SharedMemory shared;
  Votes votes[2];

 private:
  static void entry();
  void start(int i);
  void resume(Thread& thread);
  bool round();
  bool run_warp(int warp);
  void end_of_round();
  void throw_error(const std::string& what) const;
  int warps() const { return (count_ + kWarp - 1) / kWarp; }

  const std::function<void()>& body_;
  const Schedule schedule_;
  unsigned random_;
  int count_;
  std::vector<Thread> threads_;
  std::vector<int> order_;
  FiberPool* fibers_ = nullptr;
  Thread* current_ = nullptr;
  Context main_;
  std::string error_;
  char started_ = 0, ended_ = 0;
};

thread_local Block* running = nullptr;
// As many as blocks in a row that TSan takes for unordered.
FiberPool& next_pool() {
#ifdef SIMT_TSAN
  static FiberPool pools[3];
  static unsigned turn = 0;
  return pools[turn++ % 3];
#else
  static FiberPool pool;
  return pool;
#endif
}

Block::Block(const Launch& launch_, const std::function<void()>& body, Schedule schedule)
    : launch(launch_), body_(body), schedule_(schedule), random_(schedule.seed * 2 + 1) {
  count_ = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  threads_.resize(static_cast<size_t>(count_));
  order_.resize(static_cast<size_t>(count_));
  main_ = this_context();
  on_report([] {
    if (running != nullptr) fprintf(stderr, "in %s\n", running->where().c_str());
  });
}

Block::~Block() {
  acquire(&ended_);
  bool whole = true;
  for (Thread& thread : threads_) {
    if (thread.state == State::kDone) continue;
    join_fiber(thread.context, main_);
    whole = false;
  }
  if (!whole && fibers_ != nullptr) fibers_->abandon();
  running = nullptr;
}

std::string Block::where() const {
  std::string text = std::string(launch.kernel) + ": block " + show(index);
  return current_ == nullptr ? text : text + ", thread " + show(current_->index);
}

void Block::throw_error(const std::string& what) const {
  throw Error(std::string(launch.kernel) + ": block " + show(index) + ": " + what);
}

// Unwinds the fiber; its `entry` hands the message to the launch.
void Block::fail(const std::string& what) { throw Error(what); }

void Block::entry() {
  Block& block = *running;
  entered(block.main_);
  acquire(&block.started_);
  Thread& self = *block.current_;
  try {
    block.body_();
    if (!self.copies.empty()) {
      block.fail("thread " + show(self.index) + " ended with a cp.async that it never waited for");
    }
  } catch (const Error& e) {
    block.error_ = e.what();
  }
  release(&block.ended_);
  self.state = State::kDone;
  switch_context(self.context, block.main_);
  std::abort();
}

void Block::start(int i) {
  Thread& thread = threads_[static_cast<size_t>(i)];
  const unsigned n = static_cast<unsigned>(i);
  const Index3 dim = launch.block;
  thread.index = Index3(n % dim.x, n / dim.x % dim.y, n / (dim.x * dim.y));
#ifdef SIMT_TSAN
  const std::string name = "block " + show(index) + " thread " + show(thread.index);
  thread.context = fibers_->start(i, entry, name.c_str());
#else
  thread.context = fibers_->start(i, entry, "");
#endif
  thread.number = i;
  thread.lane = i % kWarp;
  thread.warp = i / kWarp;
  thread.state = State::kReady;
  thread.barriers = thread.warp_barriers = 0;
  thread.copies.clear();
}

void Block::resume(Thread& thread) {
  current_ = &thread;
  switch_context(main_, thread.context);
  current_ = nullptr;
  if (!error_.empty()) {
    join_fiber(thread.context, main_);
    throw_error(error_);
  }
}

bool Block::run_warp(int warp) {
  bool any = false;
  const int begin = warp * kWarp, end = std::min(count_, begin + kWarp);
  for (bool again = true; again;) {
    again = false;
    for (int i = begin; i < end; ++i) {
      Thread& thread = threads_[static_cast<size_t>(i)];
      if (thread.state != State::kReady) continue;
      resume(thread);
      again = any = true;
    }
  }
  return any;
}

// Lets every thread that can go on do so once, in the schedule's order. False if none could.
bool Block::round() {
  bool any = false;
  if (schedule_.kind == Schedule::kGreedyWarp) {
    const int first = static_cast<int>(next_random(random_) % static_cast<unsigned>(warps()));
    for (int k = 0; k < warps(); ++k) any |= run_warp((first + k) % warps());
    return any;
  }
  uint64_t skipped = 0;
  if (schedule_.kind == Schedule::kRandom) {
    for (size_t i = order_.size(); i > 1; --i) {
      std::swap(order_[i - 1], order_[next_random(random_) % i]);
    }
    skipped = uint64_t{next_random(random_)} << 32 | next_random(random_);
  }
  for (const bool all : {false, true}) {
    for (const int i : order_) {
      Thread& thread = threads_[static_cast<size_t>(i)];
      if (thread.state != State::kReady) continue;
      if (!all && (skipped >> (thread.warp % 64) & 1) != 0) continue;
      resume(thread);
      any = true;
    }
    if (any) break;
  }
  return any;
}

// Nobody can go on: all are at the same barrier, or all have ended, or something is wrong.
void Block::end_of_round() {
  const Thread& first = threads_.front();
  for (const Thread& thread : threads_) {
    if (thread.state == State::kInCollective) {
      std::string missing;
      for (const Thread& other : threads_) {
        if (other.warp != thread.warp || other.state == State::kInCollective) continue;
        missing = ", " + show(other);
        if ((thread.mask >> other.lane & 1) != 0) break;
      }
      throw_error("lanes of a warp part: " + show(thread) + missing);
    }
  }
  for (const Thread& thread : threads_) {
    if (thread.state == first.state &&
        (thread.state == State::kDone || same(thread.site, first.site)))
      continue;
    throw_error("threads of the block part at a barrier: " + show(first) + ", " + show(thread));
  }
}

void Block::run(Index3 block_index) {
  index = block_index;
  fibers_ = &next_pool();
  shared.start(launch.dynamic_shared);
  for (Votes& vote : votes) vote = {};
  release(&started_);
  for (int i = 0; i < count_; ++i) {
    start(i);
    order_[static_cast<size_t>(i)] = schedule_.kind == Schedule::kReverse ? count_ - 1 - i : i;
  }
  while (threads_.front().state != State::kDone) {
    while (round()) {
    }
    end_of_round();
    if (threads_.front().state == State::kDone) break;
    for (Thread& thread : threads_) thread.state = State::kReady;
  }
  const std::string overrun = shared.overrun();
  if (!overrun.empty()) throw_error(overrun);
}

void Block::wait(State state, Site site) {
  Thread& self = *current_;
  self.state = state;
  self.site = site;
  switch_context(self.context, main_);
}

void Block::arrive(const char* name, uint32_t mask, Combine combine, Site site) {
  Thread& self = *current_;
  const int begin = self.warp * kWarp, lanes = std::min(kWarp, count_ - begin);
  if (lanes < kWarp) mask &= (1u << lanes) - 1;  // the last warp may have fewer
  self.operation = name;
  self.mask = mask;
  self.site = site;
  self.state = State::kInCollective;
  if ((mask >> self.lane & 1) == 0) {
    fail(show(self) + " but isn't in the mask it passes");
  }
  // All that wait so far agree with each other, so that a look at one of them is enough.
  Thread* leader = &self;
  for (int l = 0; l < lanes; ++l) {
    Thread& other = threads_[static_cast<size_t>(begin + l)];
    if (&other != &self && (mask >> l & 1) != 0 && other.state == State::kInCollective) {
      leader = &other;
      break;
    }
  }
  if (leader == &self) self.arrived = 0;
  if (!same(leader->site, site) || leader->mask != mask) {
    fail("lanes of a warp part: " + show(self) + ", " + show(*leader) +
         (same(leader->site, site) ? " with another mask" : ""));
  }
  self.arrived = leader->arrived + 1;
  for (Thread* of : {leader, &self}) of->arrived = self.arrived;
  if (self.arrived < std::popcount(mask)) return wait(State::kInCollective, site);
  Slot* slots[kWarp] = {};
  for (int l = 0; l < lanes; ++l) {
    if ((mask >> l & 1) == 0) continue;
    Thread& other = threads_[static_cast<size_t>(begin + l)];
    slots[l] = &other.slot;
    other.state = State::kReady;
  }
  if (combine != nullptr) combine(slots, mask, site);
}

void Block::warp_barrier(uint32_t mask, Site site) {
  Thread& self = *current_;
  char* tag = shared.tag(1 + self.warp, self.warp_barriers++);
  release(tag);
  arrive("__syncwarp", mask, nullptr, site);
  acquire(tag);
}

void* Block::shared_array(const char* name, size_t bytes, size_t alignment, Site site) {
  void* array = shared.array(name, bytes, alignment, site.file_name(), site.line());
  if (array == nullptr || shared.used() > launch.shared_limit) {
    fail("no room in shared memory for " + std::string(name) + " at " + show(site) + " (" +
         std::to_string(shared.used()) + " bytes in all)");
  }
  return array;
}

}  // namespace

void run(const Launch& launch, const std::function<void()>& thread) {
  if (running != nullptr) throw Error(std::string(launch.kernel) + ": launched from a kernel");
  check_launch(launch);
  Block block(launch, thread, schedule());
  running = &block;
  for (unsigned z = 0; z < launch.grid.z; ++z) {
    for (unsigned y = 0; y < launch.grid.y; ++y) {
      for (unsigned x = 0; x < launch.grid.x; ++x) block.run(Index3(x, y, z));
    }
  }
}

const Index3& thread_index() { return running->thread().index; }
const Index3& block_index() { return running->index; }
const Index3& block_dim() { return running->launch.block; }
const Index3& grid_dim() { return running->launch.grid; }
int lane() { return running->thread().lane; }
Slot& slot() { return running->thread().slot; }

void fail(const std::string& what, Site site) {
  running->fail("thread " + show(thread_index()) + " at " + show(site) + ": " + what);
}

void block_barrier(Site site) {
  char* tag = running->shared.tag(0, running->thread().barriers++);
  release(tag);
  running->wait(State::kAtBarrier, site);
  acquire(tag);
}

int block_count(bool predicate, Site site) {
  // Two in turn: slow threads read the one while fast ones are at the next.
  const unsigned barrier = running->thread().barriers;
  Votes& votes = running->votes[barrier & 1];
  if (votes.barrier != barrier + 1) votes = {barrier + 1, 0};
  votes.count += predicate ? 1 : 0;
  block_barrier(site);
  return votes.count;
}

void fence() {
  static char tag;
  release(&tag);
  acquire(&tag);
}

void warp_barrier(uint32_t mask, Site site) { running->warp_barrier(mask, site); }

void collective(const char* name, uint32_t mask, Combine combine, Site site) {
  running->arrive(name, mask, combine, site);
}

void* shared_array(const char* name, size_t bytes, size_t alignment, Site site) {
  return running->shared_array(name, bytes, alignment, site);
}

void* dynamic_shared(Site site) {
  if (running->launch.dynamic_shared == 0) fail("launched without dynamic shared memory", site);
  return running->shared.dynamic();
}

void check_address(const void* p, size_t bytes, bool shared, const char* what, Site site) {
  if (reinterpret_cast<uintptr_t>(p) % bytes != 0) {
    fail(std::string(what) + " is not aligned to " + std::to_string(bytes) + " bytes", site);
  }
  if (running->shared.contains(p, bytes) != shared) {
    fail(std::string(what) + (shared ? " is not in shared memory" : " is in shared memory"), site);
  }
}

void add_copy(void* shared, const void* global, int words, Site site) {
  Copies& copies = running->thread().copies;
  if (copies.full()) fail("too many cp.async are under way for this emulator", site);
  copies.push(shared, global, words);
}

void end_copy_group() { running->thread().copies.end_group(); }

const Copy* take_copy(int pending) { return running->thread().copies.take(pending); }

}  // namespace trine::simt
