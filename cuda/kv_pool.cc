// SPDX-License-Identifier: Apache-2.0
#include "kv_pool.h"

#include "memory.h"
#include "runtime.h"

namespace trine::cuda {

int64_t KvPool::grow(int64_t count) {
  use(device_);
  const auto page = static_cast<int64_t>(page_bytes());
  // One page more: places are whole pages away from the base.
  std::shared_ptr<std::byte> chunk = device_alloc(static_cast<size_t>((count + 1) * page), device_);
  if (base_ == nullptr) base_ = chunk.get();
  const int64_t distance = chunk.get() - base_;
  chunks_.push_back(std::move(chunk));
  return distance >= 0 ? (distance + page - 1) / page : -(-distance / page);
}

void KvPool::copy(int32_t from, int32_t to) {
  use(device_);
  const auto page = static_cast<int64_t>(page_bytes());
  // The stream of the runs does not wait for this one: it must be done on return.
  check("copying keys and values",
        cudaMemcpy(base_ + to * page, base_ + from * page, page_bytes(), cudaMemcpyDeviceToDevice));
  check("copying keys and values", cudaStreamSynchronize(nullptr));
}

}  // namespace trine::cuda
