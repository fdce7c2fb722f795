// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernel_table.h"

#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/platform.h"
#include "cpu/features.h"

namespace trine::cpu {

namespace scalar {
extern const KernelTable kTable;
}
#if defined(TRINE_X86)
namespace avx2 {
extern const KernelTable kTable;
}
namespace avx512 {
extern const KernelTable kTable;
}
#elif defined(TRINE_ARM64)
namespace neon {
extern const KernelTable kTable;
}
#endif

namespace {

// The widest first.
constexpr Isa kPreference[] = {Isa::kAvx512, Isa::kAvx2, Isa::kNeon, Isa::kScalar};

std::string available() {
  std::string names;
  for (const Isa isa : kPreference) {
    if (const KernelTable* table = kernel_table(isa))
      names += cat(names.empty() ? "" : ", ", table->name);
  }
  return names;
}

}  // namespace

const KernelTable* kernel_table(Isa isa) noexcept {
  switch (isa) {
    case Isa::kScalar:
      return &scalar::kTable;
#if defined(TRINE_X86)
    case Isa::kAvx2:
      return features().avx2 ? &avx2::kTable : nullptr;
    case Isa::kAvx512:
      return features().avx512 ? &avx512::kTable : nullptr;
#elif defined(TRINE_ARM64)
    case Isa::kNeon:
      return &neon::kTable;
#endif
    default:
      return nullptr;
  }
}

const KernelTable& select_kernel_table() {
  const char* variable = std::getenv("TRINE_ISA");
  const std::string_view wanted = variable == nullptr ? "" : variable;
  for (const Isa isa : kPreference) {
    const KernelTable* table = kernel_table(isa);
    if (table != nullptr && (wanted.empty() || wanted == table->name)) return *table;
  }
  throw DeviceError(
      cat("TRINE_ISA=", quoted(wanted), " is not available: this machine has ", available()));
}

}  // namespace trine::cpu
