// SPDX-License-Identifier: Apache-2.0
#include "launch.h"

#include <cstdlib>
#include <map>
#include <stdexcept>

namespace trine::simt {

namespace {

Schedule& current_schedule() {
  static Schedule schedule = [] {
    const char* text = std::getenv("SIMT_SCHEDULE");
    return text == nullptr ? Schedule{} : parse_schedule(text);
  }();
  return schedule;
}

std::map<const void*, size_t>& limits() {
  static std::map<const void*, size_t> bytes;
  return bytes;
}

}  // namespace

std::string show(Index3 i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

void check_launch(const Launch& launch) {
  const auto refuse = [&](const std::string& what) {
    throw Error(std::string(launch.kernel) + ": refused: " + what);
  };
  const Index3 g = launch.grid, b = launch.block;
  const uint64_t threads = uint64_t{b.x} * b.y * b.z;
  if (threads == 0 || threads > 1024 || b.z > 64) refuse("a block of " + show(b) + " threads");
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffff || g.y > 65535 || g.z > 65535) {
    refuse("a grid of " + show(g) + " blocks");
  }
  if (launch.dynamic_shared > launch.dynamic_shared_limit) {
    refuse(std::to_string(launch.dynamic_shared) + " bytes of dynamic shared memory, at most " +
           std::to_string(launch.dynamic_shared_limit) +
           " unless cudaFuncSetAttribute asked for more");
  }
}

Schedule schedule() { return current_schedule(); }

void set_schedule(Schedule schedule) { current_schedule() = schedule; }

Schedule parse_schedule(const std::string& text) {
  const size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  Schedule schedule;
  if (colon != text.npos) schedule.seed = static_cast<unsigned>(std::stoul(text.substr(colon + 1)));
  if (kind == "in-order") return schedule;
  schedule.kind = kind == "reverse"  ? Schedule::kReverse
                  : kind == "greedy" ? Schedule::kGreedyWarp
                                     : Schedule::kRandom;
  if (schedule.kind == Schedule::kRandom && kind != "random") {
    throw std::invalid_argument("no schedule is called " + text);
  }
  return schedule;
}

std::string show(Schedule schedule) {
  const char* const names[] = {"in-order", "reverse", "greedy", "random"};
  return names[schedule.kind] + (":" + std::to_string(schedule.seed));
}

void for_each_schedule(const std::function<void(Schedule)>& run_once) {
  const Schedule before = current_schedule();
  for (const Schedule schedule :
       {Schedule{Schedule::kInOrder}, Schedule{Schedule::kReverse},
        Schedule{Schedule::kGreedyWarp, 1}, Schedule{Schedule::kGreedyWarp, 2},
        Schedule{Schedule::kRandom, 1}, Schedule{Schedule::kRandom, 2}}) {
    set_schedule(schedule);
    try {
      run_once(schedule);
    } catch (...) {
      set_schedule(before);
      throw;
    }
  }
  set_schedule(before);
}

size_t shared_bytes() {
  const char* const given = std::getenv("TRINE_SIMT_SHARED");
  return given == nullptr ? 227 << 10 : std::strtoul(given, nullptr, 10);
}

void set_dynamic_shared_limit(const void* kernel, size_t bytes) { limits()[kernel] = bytes; }

size_t dynamic_shared_limit(const void* kernel) {
  const auto found = limits().find(kernel);
  return found == limits().end() ? kSharedBytesUnasked : found->second;
}

}  // namespace trine::simt
