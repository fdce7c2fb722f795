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
namespace avx_vnni {
extern const LinearKernel kLinearInt8;
}
namespace avx512 {
extern const KernelTable kTable;
}
namespace avx512_vnni {
extern const LinearKernel kLinearInt8;
extern const GroupKernels kLinearGroups;
}  // namespace avx512_vnni
namespace avx512_bf16 {
extern const LinearKernel kLinearBF16;
extern const AttentionKernel kAttentionBF16;
}  // namespace avx512_bf16
namespace amx {
extern const LinearKernel kLinearBF16;
extern const LinearKernel kLinearInt8;
extern const AttentionKernel kAttentionBF16;
}  // namespace amx
#elif defined(TRINE_ARM64)
namespace neon {
extern const KernelTable kTable;
}
namespace neon_dotprod {
extern const LinearKernel kLinearInt8;
}
#endif

namespace {

// Where dot products of bf16 are slow they have to be asked for.
bool is_chosen_unasked(Isa isa) { return isa != Isa::kAvx512Bf16 || features().fast_avx512_bf16; }

KernelTable named(const KernelTable& from, Isa isa, const char* name) noexcept {
  KernelTable table = from;
  table.isa = isa;
  table.name = name;
  return table;
}

#if defined(TRINE_X86)
KernelTable with_vnni(KernelTable table) noexcept {
  table.linear_int8 = avx512_vnni::kLinearInt8;
  table.linear_groups = avx512_vnni::kLinearGroups;
  return table;
}

// Every processor with dot products of bf16 has those of int8, but a virtual machine may hide them.
KernelTable with_bf16(Isa isa, const char* name) noexcept {
  KernelTable table = named(avx512::kTable, isa, name);
  if (features().avx512_vnni) table = with_vnni(table);
  table.linear_bf16 = avx512_bf16::kLinearBF16;
  table.attention_bf16 = avx512_bf16::kAttentionBF16;
  return table;
}

KernelTable with_avx_vnni() noexcept {
  KernelTable table = named(avx2::kTable, Isa::kAvxVnni, "avx_vnni");
  table.linear_int8 = avx_vnni::kLinearInt8;
  return table;
}

KernelTable with_amx() noexcept {
  KernelTable table = with_bf16(Isa::kAmx, "amx");
  table.linear_bf16 = amx::kLinearBF16;
  table.attention_bf16.run = amx::kAttentionBF16.run;
  table.attention_bf16.scratch_bytes = amx::kAttentionBF16.scratch_bytes;
  if (features().amx_int8) table.linear_int8 = amx::kLinearInt8;
  return table;
}
#elif defined(TRINE_ARM64)
KernelTable with_dotprod() noexcept {
  KernelTable table = named(neon::kTable, Isa::kNeonDot, "neon_dotprod");
  table.linear_int8 = neon_dotprod::kLinearInt8;
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
    case Isa::kAvxVnni: {
      static const KernelTable table = with_avx_vnni();
      return features().avx_vnni ? &table : nullptr;
    }
    case Isa::kAvx512:
      return features().avx512 ? &avx512::kTable : nullptr;
    case Isa::kAvx512Vnni: {
      static const KernelTable table = with_vnni(named(avx512::kTable, isa, "avx512_vnni"));
      return features().avx512_vnni ? &table : nullptr;
    }
    case Isa::kAvx512Bf16: {
      static const KernelTable table = with_bf16(isa, "avx512_bf16");
      return features().avx512_bf16 ? &table : nullptr;
    }
    case Isa::kAmx: {
      static const KernelTable table = with_amx();
      return features().avx512_bf16 && features().amx_bf16 && amx_is_permitted() ? &table : nullptr;
    }
#elif defined(TRINE_ARM64)
    case Isa::kNeon:
      return &neon::kTable;
    case Isa::kNeonDot: {
      static const KernelTable table = with_dotprod();
      return features().neon_dotprod ? &table : nullptr;
    }
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
