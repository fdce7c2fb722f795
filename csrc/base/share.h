// SPDX-License-Identifier: Apache-2.0
// Work at load that is shared out to the processor's threads without a pool.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace trine {

// work(begin, end) over parts of [0, items), each of `least` items or more: starting a thread takes
// time, too. `work` doesn't throw.
template <class Work>
void share(int64_t items, int64_t least, const Work& work) {
  const int64_t most = std::max(1U, std::thread::hardware_concurrency());
  const int64_t parts = std::clamp<int64_t>(items / least, 1, most);
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(parts));
  int64_t begin = 0;
  for (int64_t i = 1; i < parts; ++i) {
    const int64_t end = items * i / parts;
    try {
      threads.emplace_back(work, begin, end);
    } catch (const std::exception&) {
      break;  // no more of them: the rest is done here
    }
    begin = end;
  }
  work(begin, items);
  for (std::thread& t : threads) t.join();
}

}  // namespace trine
