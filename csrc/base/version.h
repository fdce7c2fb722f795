// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace trine {

// The core's own; trine::version() of trine_text.h is the shared library's, by way of C.
const char* core_version() noexcept;

}  // namespace trine
