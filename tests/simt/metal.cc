// SPDX-License-Identifier: Apache-2.0
// Compiled without sanitizers, see fiber.cc: that a lane reads another's operands is no race.
#include "metal.h"

#include <map>

#undef kernel
#undef device
#undef constant
#undef threadgroup
#undef thread

namespace trine::simt {

namespace {

// Apple's GPUs from family 7 on.
constexpr size_t kThreadgroupMemory = 32 << 10;

std::map<std::string_view, MetalKernel>& registry() {
  static std::map<std::string_view, MetalKernel> kernels;
  return kernels;
}

}  // namespace

MetalRegistration::MetalRegistration(const MetalKernel& kernel) {
  if (!registry().emplace(kernel.name, kernel).second)
    throw Error("two kernels are called " + std::string(kernel.name));
}

const MetalKernel* find_metal_kernel(std::string_view name) {
  const auto found = registry().find(name);
  return found == registry().end() ? nullptr : &found->second;
}

std::vector<std::string_view> metal_kernels() {
  std::vector<std::string_view> names;
  for (const auto& [name, kernel] : registry()) names.push_back(name);
  return names;
}

void* metal_binding(std::span<const MetalBinding> bindings, size_t index, size_t bytes,
                    size_t alignment) {
  const MetalBinding& binding = bindings[index];
  if (reinterpret_cast<uintptr_t>(binding.data) % alignment != 0 || binding.bytes < bytes)
    throw Error("binding " + std::to_string(index) + " is short or misaligned");
  return binding.data;
}

void run_metal_kernel(const MetalKernel& kernel, std::span<const MetalBinding> bindings,
                      Index3 threadgroups, Index3 threads) {
  const std::string name(kernel.name);
  if (bindings.size() < kernel.bindings)
    throw Error(name + ": " + std::to_string(bindings.size()) + " of " +
                std::to_string(kernel.bindings) + " bindings");
  for (size_t i = 0; i < kernel.bindings; ++i) {
    if (bindings[i].data == nullptr)
      throw Error(name + ": nothing is bound at " + std::to_string(i));
  }
  if (threads.y != 1 || threads.z != 1 || threads.x % 32 != 0)
    throw Error(name + ": threadgroups are rows of whole simdgroups, not of " + show(threads));
  Launch launch{name.c_str(), threadgroups, threads};
  launch.shared_limit = kThreadgroupMemory;
  run(launch, [&] { kernel.call(bindings); });
}

}  // namespace trine::simt

namespace metal {

using trine::simt::Slot;

namespace {

void combine_same(Slot* const (&lanes)[32], uint32_t, Site site) {
  for (const Slot* lane : lanes) {
    if (lane == nullptr || std::memcmp(lane->in, lanes[0]->in, sizeof(void*)) != 0)
      trine::simt::fail("lanes of a simdgroup give different addresses", site);
  }
}

struct Operands {
  float a[2], b[2], c[2];
};

// Sums in ascending k, by fused multiply-add: what the hardware does is not documented.
void combine_multiply(Slot* const (&lanes)[32], uint32_t, Site) {
  float a[8][8], b[8][8], c[8][8];
  for (int l = 0; l < 32; ++l) {
    Operands in;
    std::memcpy(&in, lanes[l]->in, sizeof in);
    const auto [row, col] = place_of_lane(l);
    for (int i = 0; i < 2; ++i)
      a[row][col + i] = in.a[i], b[row][col + i] = in.b[i], c[row][col + i] = in.c[i];
  }
  for (int i = 0; i < 8; ++i) {
    for (int j = 0; j < 8; ++j) {
      for (int k = 0; k < 8; ++k) c[i][j] = std::fma(a[i][k], b[k][j], c[i][j]);
    }
  }
  for (int l = 0; l < 32; ++l) {
    const auto [row, col] = place_of_lane(l);
    std::memcpy(lanes[l]->out, &c[row][col], 2 * sizeof(float));
  }
}

}  // namespace

void same_in_all_lanes(const char* name, const void* address, Site site) {
  std::memcpy(trine::simt::slot().in, &address, sizeof address);
  trine::simt::collective(name, 0xffffffffu, combine_same, site);
}

void simdgroup_multiply_accumulate(simdgroup_float8x8& d, const simdgroup_float8x8& a,
                                   const simdgroup_float8x8& b, const simdgroup_float8x8& c,
                                   Site site) {
  const Operands in = {{a.elements[0], a.elements[1]},
                       {b.elements[0], b.elements[1]},
                       {c.elements[0], c.elements[1]}};
  Slot& own = trine::simt::slot();
  std::memcpy(own.in, &in, sizeof in);
  trine::simt::collective("simdgroup_multiply_accumulate", 0xffffffffu, combine_multiply, site);
  std::memcpy(d.elements, own.out, sizeof d.elements);
}

}  // namespace metal
