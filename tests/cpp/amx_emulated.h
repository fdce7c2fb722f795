// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/kernel_table.h"

namespace trine::cpu::amx_emulated {

// The scalar table with AMX's kernel for bf16.
const KernelTable& table();

}  // namespace trine::cpu::amx_emulated
