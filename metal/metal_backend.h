// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "backend.h"

namespace trine::metal {

// DeviceError when the GPU cannot be used. dtype: kF32, kF16 or kBF16.
std::unique_ptr<Backend> make_backend(int device, DType dtype);

}  // namespace trine::metal
