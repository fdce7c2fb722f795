// SPDX-License-Identifier: Apache-2.0
#include "base/version.h"

namespace trine {

const char* core_version() noexcept { return TRINE_VERSION; }

}  // namespace trine
