// SPDX-License-Identifier: Apache-2.0
#include "trine.h"

namespace trine {

const char* version() noexcept { return TRINE_VERSION; }

}  // namespace trine
