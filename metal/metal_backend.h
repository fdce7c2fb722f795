// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "backend.h"

namespace trine::metal {

// DeviceError when the GPU cannot be used. dtype: one of kModelDTypes.
std::unique_ptr<Backend> make_backend(int device, DType dtype);

}  // namespace trine::metal
