// SPDX-License-Identifier: Apache-2.0
// A job is published by storing one word, the ticket: which job it is, how many chunks it has,
// which chunk is next. Threads take chunks by adding one to that word, so what comes back says at
// once whether a chunk was taken and of which job. Nothing waits for a worker that took no chunk:
// one that wakes late, or that no longer exists after a fork, costs nothing but its help.
//
// After fork() the child has none of the workers. Its first parallel_for starts new ones; a child
// that never computes starts none. (A fork from inside a body is not supported: chunks that workers
// held are lost with them.)
#include "cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <system_error>
#include <thread>

#include "base/error.h"
#include "base/platform.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#endif
#if defined(_WIN32)
#include <bit>

#include "base/windows.h"
#endif
#if defined(__linux__) || defined(__APPLE__)
#define TRINE_POSIX_THREADS 1
#include <pthread.h>
#include <signal.h>
#endif

namespace trine::cpu {
namespace {

// How long a worker spins before it sleeps: the next step of a run follows within microseconds.
constexpr std::chrono::microseconds kSpinAfterJob{50};
// Pauses (20 to 60 ns each) between two looks at the clock, and before a joining caller starts to
// yield.
constexpr int kPausesPerClock = 32;
constexpr int kPausesPerJoin = 4096;
// Enough that the last chunk leaves few threads idle, few enough that taking them costs nothing.
constexpr int64_t kChunksPerThread = 16;
constexpr int kMaxThreads = 1024;

// Threads that got no chunk have added one too, each at most once a job, hence the slack in `next`.
struct Ticket {
  uint64_t bits;

  static constexpr int kCountBits = 20;
  static constexpr uint64_t kCountMask = (uint64_t{1} << kCountBits) - 1;
  static_assert(kMaxThreads * kChunksPerThread + kMaxThreads < int64_t{kCountMask});

  static Ticket of(uint64_t job, int64_t count) {
    return {job << (2 * kCountBits) | static_cast<uint64_t>(count) << kCountBits};
  }
  uint64_t job() const { return bits >> (2 * kCountBits); }
  int64_t count() const { return static_cast<int64_t>(bits >> kCountBits & kCountMask); }
  int64_t next() const { return static_cast<int64_t>(bits & kCountMask); }
};

// The pools whose bodies this thread is inside of, innermost first: how a nested call is told.
struct Frame {
  const void* pool;
  int thread;
  const Frame* outer;
};
constinit thread_local const Frame* innermost_frame = nullptr;

const Frame* find_frame(const void* pool) {
  const Frame* frame = innermost_frame;
  while (frame != nullptr && frame->pool != pool) frame = frame->outer;
  return frame;
}

class FrameScope {
 public:
  FrameScope(const void* pool, int thread) : frame_{pool, thread, innermost_frame} {
    innermost_frame = &frame_;
  }
  ~FrameScope() { innermost_frame = frame_.outer; }
  FrameScope(const FrameScope&) = delete;
  FrameScope& operator=(const FrameScope&) = delete;

 private:
  Frame frame_;
};

// Sleeps while `word` is `expected`; may return early.
void sleep_while(std::atomic<uint32_t>& word, uint32_t expected) {
#if defined(__linux__)
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
#else
  word.wait(expected);
#endif
}

void wake_sleepers(std::atomic<uint32_t>& word) {
#if defined(__linux__)
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#else
  word.notify_all();
#endif
}

// Incremented in every forked child.
std::atomic<int> fork_count{0};

void watch_forks() {
#if defined(TRINE_POSIX_THREADS)
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { fork_count.fetch_add(1, std::memory_order_relaxed); });
  (void)registered;
#endif
}

// Linux likes to wake a thread on the processor of the one that wakes it. When the others are busy
// it leaves it there, and since the caller of a pool never sleeps, the two then take turns for good
// instead of working together.
int this_cpu() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

void leave_cpu([[maybe_unused]] int cpu) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (cpu < 0 || cpu != sched_getcpu() || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
    return;
  cpu_set_t others = allowed;
  CPU_CLR(cpu, &others);
  if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0) {
    sched_setaffinity(0, sizeof allowed, &allowed);
  }
#endif
}

void name_this_thread() {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "trine");
#elif defined(__APPLE__)
  pthread_setname_np("trine");
#elif defined(_WIN32)
  (void)SetThreadDescription(GetCurrentThread(), L"trine");
#endif
}

// Threads started in this scope get no signal: the host program's handlers run on threads that it
// knows.
class BlockSignals {
 public:
#if defined(TRINE_POSIX_THREADS)
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
#else
  BlockSignals() {}
#endif
};

#if defined(__linux__)
bool read_numbers(const char* path, const char* format, double* a, double* b) {
  std::FILE* file = std::fopen(path, "re");
  if (file == nullptr) return false;
  const int got = b != nullptr ? std::fscanf(file, format, a, b) : std::fscanf(file, format, a);
  std::fclose(file);
  return got == (b != nullptr ? 2 : 1);
}

// Processors' worth of time that a container may use, or a huge number.
double cgroup_cpus() {
  double quota = 0, period = 0;
  if (read_numbers("/sys/fs/cgroup/cpu.max", "%lf %lf", &quota, &period) ||
      (read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "%lf", &quota, nullptr) &&
       read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "%lf", &period, nullptr))) {
    if (quota > 0 && period > 0) return quota / period;
  }
  return kMaxThreads;
}
#endif

// More threads than this take time slices from each other.
int available_cpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
  cpus = std::min(cpus, static_cast<int>(cgroup_cpus() + 0.999));
#elif defined(_WIN32)
  // Masks have 64 bits: a process that spans groups of processors has none, and may use them all.
  DWORD_PTR mine = 0, all = 0;
  if (GetProcessAffinityMask(GetCurrentProcess(), &mine, &all) != 0) {
    cpus = mine != 0 ? std::popcount(mine)
                     : static_cast<int>(GetActiveProcessorCount(ALL_PROCESSOR_GROUPS));
  }
#endif
  return std::clamp(cpus, 1, kMaxThreads);
}

}  // namespace

struct ThreadPool::State {
  // The job in hand, beside the ticket so that taking a chunk moves one cache line. Written only
  // while no chunk is out.
  alignas(64) std::atomic<uint64_t> ticket{0};
  const void* body = nullptr;
  Call call = nullptr;
  int64_t items = 0;
  int64_t chunk = 0;

  alignas(64) std::atomic<int64_t> done{0};  // chunks that workers have finished

  // What sleeping workers wait on. Bit 0: somebody may be asleep; the rest counts calls to rouse().
  alignas(64) std::atomic<uint32_t> signal{0};
  std::atomic<int> waker_cpu{-1};  // where the thread runs that last called rouse() for sleepers
  std::atomic<bool> stop{false};

  // Constant while workers run.
  alignas(64) int size = 1;
  bool crowded =
      false;  // more threads than processors: spinning would only keep the others from working
  int forks = 0;
  std::unique_ptr<std::thread[]> workers;

  void start();
  void start_after_fork() noexcept;
  void stop_workers() noexcept;
  void work(int thread, uint64_t seen) noexcept;
  uint64_t await_job(uint64_t seen) noexcept;
  bool spin(uint64_t seen, std::chrono::microseconds time) const noexcept;
  int64_t run_chunks(int thread, uint64_t* seen) noexcept;
  void publish(int64_t count) noexcept;
  void rouse() noexcept;
  void join(int64_t target) const noexcept;
  uint64_t job(std::memory_order order) const noexcept { return Ticket{ticket.load(order)}.job(); }
};

void ThreadPool::State::start() {
  forks = fork_count.load(std::memory_order_relaxed);
  // An empty job: chunks that a forked child inherited from another thread's call are not for its
  // workers.
  done.store(0, std::memory_order_relaxed);
  signal.store(0, std::memory_order_relaxed);
  const uint64_t idle = job(std::memory_order_relaxed) + 1;
  ticket.store(Ticket::of(idle, 0).bits, std::memory_order_relaxed);
  const uint64_t seen = job(std::memory_order_relaxed);
  const BlockSignals scope;
  workers = std::make_unique<std::thread[]>(static_cast<size_t>(size - 1));
  for (int i = 1; i < size; ++i) {
    workers[static_cast<size_t>(i - 1)] = std::thread([this, i, seen] { work(i, seen); });
  }
}

void ThreadPool::State::start_after_fork() noexcept {
  // The handles name threads of the parent: they can be neither joined nor destroyed here.
  (void)workers.release();
  try {
    start();
  } catch (...) {
    // Fewer workers, or none: the caller's own thread does what they do not.
  }
}

void ThreadPool::State::stop_workers() noexcept {
  stop.store(true, std::memory_order_relaxed);
  publish(0);
  for (int i = 0; i < size - 1; ++i) {
    std::thread& worker = workers[static_cast<size_t>(i)];
    if (worker.joinable()) worker.join();
  }
}

void ThreadPool::State::work(int thread, uint64_t seen) noexcept {
  name_this_thread();
  const FrameScope frame(this, thread);
  // Asked after each job as well: run_chunks may have met, and counted as seen, the job that
  // stop_workers published.
  while (!stop.load(std::memory_order_relaxed)) {
    seen = await_job(seen);
    const int64_t finished = run_chunks(thread, &seen);
    if (finished > 0) done.fetch_add(finished, std::memory_order_release);
  }
}

// Returns the number of a job that is not `seen`.
uint64_t ThreadPool::State::await_job(uint64_t seen) noexcept {
  const std::chrono::microseconds time = crowded ? std::chrono::microseconds{0} : kSpinAfterJob;
  uint32_t before = signal.load(std::memory_order_relaxed) | 1;
  while (!spin(seen, time)) {
    uint32_t now = signal.load(std::memory_order_relaxed);
    if ((now | 1) == before) {
      // Either publish() sees bit 0, or this thread sees the new ticket: both are sequentially
      // consistent.
      if (!signal.compare_exchange_strong(now, before)) continue;
      if (job(std::memory_order_seq_cst) != seen) break;
      sleep_while(signal, before);
      if (!crowded) leave_cpu(waker_cpu.load(std::memory_order_relaxed));
      now = signal.load(std::memory_order_relaxed);
    }
    before = now | 1;
  }
  return job(std::memory_order_acquire);
}

bool ThreadPool::State::spin(uint64_t seen, std::chrono::microseconds time) const noexcept {
  if (job(std::memory_order_acquire) != seen) return true;
  if (time.count() == 0) return false;
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    for (int i = 0; i < kPausesPerClock; ++i) {
      if (job(std::memory_order_acquire) != seen) return true;
      TRINE_PAUSE();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

// Runs chunks until none is left; returns how many it ran. While this thread holds a chunk the job
// cannot end, so all of them are of one job, and body, call, items and chunk are that job's.
int64_t ThreadPool::State::run_chunks(int thread, uint64_t* seen) noexcept {
  for (int64_t finished = 0;; ++finished) {
    const Ticket mine{ticket.fetch_add(1, std::memory_order_acq_rel)};
    *seen = mine.job();
    if (mine.next() >= mine.count()) return finished;
    const int64_t begin = mine.next() * chunk;
    const int64_t end = std::min(begin + chunk, items);
    for (int64_t item = begin; item < end; ++item) call(body, item, thread);
  }
}

void ThreadPool::State::publish(int64_t count) noexcept {
  done.store(0, std::memory_order_relaxed);
  const uint64_t number = job(std::memory_order_relaxed) + 1;
  ticket.store(Ticket::of(number, count).bits, std::memory_order_seq_cst);
  rouse();
}

void ThreadPool::State::rouse() noexcept {
  uint32_t now = signal.load(std::memory_order_seq_cst);
  do {
    if ((now & 1) == 0) return;
  } while (!signal.compare_exchange_weak(now, now + 1));
  waker_cpu.store(this_cpu(), std::memory_order_relaxed);
  wake_sleepers(signal);
}

void ThreadPool::State::join(int64_t target) const noexcept {
  for (int spins = crowded ? kPausesPerJoin : 0; done.load(std::memory_order_acquire) != target;) {
    if (spins < kPausesPerJoin) {
      TRINE_PAUSE();
      ++spins;
    } else {
      std::this_thread::yield();
    }
  }
}

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  State& s = *state_;
  const int cpus = available_cpus();
  s.size = threads <= 0 ? cpus : std::min(threads, kMaxThreads);
  s.crowded = s.size > cpus;
  if (s.size == 1) return;
  watch_forks();
  try {
    s.start();
  } catch (const std::system_error& e) {
    s.stop_workers();
    throw Error(cat("cannot start ", s.size - 1, " threads: ", e.what()));
  }
}

ThreadPool::~ThreadPool() {
  State& s = *state_;
  if (s.size == 1) return;
  if (s.forks == fork_count.load(std::memory_order_relaxed)) {
    s.stop_workers();
  } else {
    (void)s.workers.release();
  }
}

int ThreadPool::size() const noexcept { return state_->size; }

void ThreadPool::run(int64_t items, const void* body, Call call) noexcept {
  State& s = *state_;
  const Frame* outer = s.size > 1 ? find_frame(&s) : nullptr;
  if (s.size == 1 || outer != nullptr || items <= 1) {
    const int thread = outer != nullptr ? outer->thread : 0;
    const FrameScope frame(&s, thread);
    for (int64_t item = 0; item < items; ++item) call(body, item, thread);
    return;
  }
  if (s.forks != fork_count.load(std::memory_order_relaxed)) s.start_after_fork();
  s.body = body;
  s.call = call;
  s.items = items;
  s.chunk = (items - 1) / (s.size * kChunksPerThread) + 1;
  const int64_t count = (items - 1) / s.chunk + 1;
  const FrameScope frame(&s, 0);
  s.publish(count);
  uint64_t seen = 0;
  const int64_t mine = s.run_chunks(0, &seen);
  s.join(count - mine);
}

}  // namespace trine::cpu
