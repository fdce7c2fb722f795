// SPDX-License-Identifier: Apache-2.0
// Compiled without sanitizers, see fiber.cc: that a lane reads another's operands is no race.
#include "warp.h"

#include <cstring>

#include "fragments.h"

namespace trine::simt {

namespace {

constexpr uint32_t kAllLanes = 0xffffffffu;

template <class T>
T read(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

using Lanes = Slot* const (&)[32];

void combine_shuffle(Lanes lanes, uint32_t mask, Site site) {
  for (Slot* lane : lanes) {
    if (lane == nullptr) continue;
    const int source = read<int>(lane->in + 8);
    if ((mask >> source & 1) == 0) {
      fail("a lane reads from lane " + std::to_string(source) + ", which isn't in the mask", site);
    }
    std::memcpy(lane->out, lanes[source]->in, 8);
  }
}

void combine_ballot(Lanes lanes, uint32_t, Site) {
  uint32_t votes = 0;
  for (int l = 0; l < 32; ++l) {
    if (lanes[l] != nullptr && lanes[l]->in[0] != 0) votes |= 1u << l;
  }
  for (Slot* lane : lanes) {
    if (lane != nullptr) std::memcpy(lane->out, &votes, 4);
  }
}

void need_all_lanes(Lanes lanes, Site site) {
  for (const Slot* lane : lanes) {
    if (lane == nullptr) fail("a warp of less than 32 lanes", site);
  }
}

template <int matrices, bool trans>
void combine_ldmatrix(Lanes lanes, uint32_t, Site site) {
  need_all_lanes(lanes, site);
  uint16_t rows[32][8];
  uint32_t registers[32][4];
  for (int l = 0; l < 32; ++l) std::memcpy(rows[l], lanes[l]->in, 16);
  ldmatrix(rows, matrices, trans, registers);
  for (int l = 0; l < 32; ++l) std::memcpy(lanes[l]->out, registers[l], 16);
}

template <class T, int in_c, int in_a, int in_b>
using WarpMma = void (*)(const uint32_t (&)[32][in_a], const uint32_t (&)[32][in_b],
                         T (&)[32][in_c]);

// c, a and b of a lane lie one behind the other.
template <class T, int in_c, int in_a, int in_b, WarpMma<T, in_c, in_a, in_b> multiply>
void combine_mma(Lanes lanes, uint32_t, Site site) {
  need_all_lanes(lanes, site);
  T c[32][in_c];
  uint32_t a[32][in_a], b[32][in_b];
  for (int l = 0; l < 32; ++l) {
    std::memcpy(c[l], lanes[l]->in, sizeof c[l]);
    std::memcpy(a[l], lanes[l]->in + sizeof c[l], sizeof a[l]);
    std::memcpy(b[l], lanes[l]->in + sizeof c[l] + sizeof a[l], sizeof b[l]);
  }
  multiply(a, b, c);
  for (int l = 0; l < 32; ++l) std::memcpy(lanes[l]->out, c[l], sizeof c[l]);
}

template <class T, int in_c, int in_a, int in_b>
void mma(const char* name, T (&c)[in_c], const uint32_t (&a)[in_a], const uint32_t (&b)[in_b],
         Combine combine, Site site) {
  Slot& own = slot();
  std::memcpy(own.in, c, sizeof c);
  std::memcpy(own.in + sizeof c, a, sizeof a);
  std::memcpy(own.in + sizeof c + sizeof a, b, sizeof b);
  collective(name, kAllLanes, combine, site);
  std::memcpy(c, own.out, sizeof c);
}

}  // namespace

uint64_t shuffle(const char* name, uint32_t mask, uint64_t value, int source, Site site) {
  Slot& own = slot();
  std::memcpy(own.in, &value, 8);
  std::memcpy(own.in + 8, &source, sizeof(int));
  collective(name, mask, combine_shuffle, site);
  return read<uint64_t>(own.out);
}

uint32_t ballot(const char* name, uint32_t mask, bool predicate, Site site) {
  Slot& own = slot();
  own.in[0] = predicate ? 1 : 0;
  collective(name, mask, combine_ballot, site);
  return read<uint32_t>(own.out);
}

void ldmatrix(const uint32_t (&row)[4], int matrices, bool trans, uint32_t* registers, Site site) {
  static constexpr Combine kCombine[2][3] = {
      {combine_ldmatrix<1, false>, combine_ldmatrix<2, false>, combine_ldmatrix<4, false>},
      {combine_ldmatrix<1, true>, combine_ldmatrix<2, true>, combine_ldmatrix<4, true>}};
  Slot& own = slot();
  std::memcpy(own.in, row, 16);
  collective("ldmatrix", kAllLanes, kCombine[trans ? 1 : 0][matrices / 2], site);
  for (int i = 0; i < matrices; ++i) registers[i] = read<uint32_t>(own.out + 4 * i);
}

void mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
  mma("mma_m16n8k16_bf16", c, a, b, combine_mma<float, 4, 4, 2, mma_m16n8k16_bf16>, site);
}

void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
  mma("mma_m16n8k8_tf32", c, a, b, combine_mma<float, 4, 4, 2, mma_m16n8k8_tf32>, site);
}

void mma_m16n8k32(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bool unsigned_b,
                  Site site) {
  mma("mma_m16n8k32", c, a, b,
      unsigned_b ? combine_mma<int32_t, 4, 4, 2, mma_m16n8k32_s8u8>
                 : combine_mma<int32_t, 4, 4, 2, mma_m16n8k32_s8s8>,
      site);
}

void mma_m8n8k16(int32_t (&c)[2], const uint32_t (&a)[1], const uint32_t (&b)[1], bool unsigned_b,
                 Site site) {
  mma("mma_m8n8k16", c, a, b,
      unsigned_b ? combine_mma<int32_t, 2, 1, 1, mma_m8n8k16_s8u8>
                 : combine_mma<int32_t, 2, 1, 1, mma_m8n8k16_s8s8>,
      site);
}

}  // namespace trine::simt
