// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/kernel_table.h"

namespace trine::cpu::amx_emulated {

// The scalar table with the kernels that AMX has.
const KernelTable& table();

}  // namespace trine::cpu::amx_emulated
