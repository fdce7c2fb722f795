// SPDX-License-Identifier: Apache-2.0
// The kernels' source, which is compiled on the machine that runs it.
#pragma once

#include <string>
#include <string_view>

namespace trine::metal {

// kernels/<name>.metal with what it includes of its own headers, each once. DeviceError when this
// build has no such file.
std::string kernel_source(std::string_view name);

}  // namespace trine::metal
