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
namespace avx512_bf16 {
extern const LinearKernel kLinearBF16;
extern const AttentionKernel kAttentionBF16;
}  // namespace avx512_bf16
namespace amx {
extern const LinearKernel kLinearBF16;
}
#elif defined(TRINE_ARM64)
namespace neon {
extern const KernelTable kTable;
}
#endif

namespace {

// Where dot products of bf16 are slow they have to be asked for.
bool is_chosen_unasked(Isa isa) { return isa != Isa::kAvx512Bf16 || features().fast_avx512_bf16; }

#if defined(TRINE_X86)
KernelTable with_bf16(Isa isa, const char* name, LinearKernel linear_bf16) noexcept {
  KernelTable table = avx512::kTable;
  table.isa = isa;
  table.name = name;
  table.linear_bf16 = linear_bf16;
  table.attention_bf16 = avx512_bf16::kAttentionBF16;
  return table;
}
#endif

std::string available() {
  std::string names;
  for (const Isa isa : kIsas) {
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
    case Isa::kAvx512Bf16: {
      static const KernelTable table = with_bf16(isa, "avx512_bf16", avx512_bf16::kLinearBF16);
      return features().avx512_bf16 ? &table : nullptr;
    }
    case Isa::kAmx: {
      static const KernelTable table = with_bf16(isa, "amx", amx::kLinearBF16);
      return features().avx512_bf16 && features().amx_bf16 && amx_is_permitted() ? &table : nullptr;
    }
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
  for (const Isa isa : kIsas) {
    const KernelTable* table = kernel_table(isa);
    if (table == nullptr) continue;
    if (wanted.empty() ? is_chosen_unasked(isa) : wanted == table->name) return *table;
  }
  throw DeviceError(
      cat("TRINE_ISA=", quoted(wanted), " is not available: this machine has ", available()));
}

}  // namespace trine::cpu
