// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace trine::cuda {

// Rows of float or bfloat16 in device memory; `ld` elements from one row to the next.
struct Matrix {
  void* data = nullptr;
  int64_t ld = 0;
  DType dtype = DType::kF32;  // kF32 or kBF16
};

}  // namespace trine::cuda
