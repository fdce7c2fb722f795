// SPDX-License-Identifier: Apache-2.0
#include "fragments.h"

#include <bit>
#include <cmath>

namespace trine::simt {

namespace {

int group_id(int lane) { return lane >> 2; }
int thread_id_in_group(int lane) { return lane % 4; }

}  // namespace

Element m16n8k16_a(int lane, int i) {
  const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
  return {upper ? group_id(lane) : group_id(lane) + 8,
          thread_id_in_group(lane) * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}

Element m16n8k16_b(int lane, int i) {
  return {thread_id_in_group(lane) * 2 + (i & 1) + (i < 2 ? 0 : 8), group_id(lane)};
}

Element m16n8k16_c(int lane, int i) {
  return {i < 2 ? group_id(lane) : group_id(lane) + 8, thread_id_in_group(lane) * 2 + (i & 1)};
}

Element m16n8k8_a(int lane, int i) {
  return {i == 0 || i == 2 ? group_id(lane) : group_id(lane) + 8,
          i == 0 || i == 1 ? thread_id_in_group(lane) : thread_id_in_group(lane) + 4};
}

Element m16n8k8_b(int lane, int i) {
  return {i == 0 ? thread_id_in_group(lane) : thread_id_in_group(lane) + 4, group_id(lane)};
}

Element m16n8k8_c(int lane, int i) {
  return {i == 0 || i == 1 ? group_id(lane) : group_id(lane) + 8,
          thread_id_in_group(lane) * 2 + (i & 1)};
}

Element m16n8k32_a(int lane, int i) {
  const bool upper = (0 <= i && i < 4) || (8 <= i && i < 12);
  return {upper ? group_id(lane) : group_id(lane) + 8,
          thread_id_in_group(lane) * 4 + (i & 3) + (i < 8 ? 0 : 16)};
}

Element m16n8k32_b(int lane, int i) {
  return {thread_id_in_group(lane) * 4 + (i & 3) + (i < 4 ? 0 : 16), group_id(lane)};
}

Element m8n8k16_a(int lane, int i) {
  return {group_id(lane), thread_id_in_group(lane) * 4 + (i & 3)};
}

Element m8n8k16_b(int lane, int i) {
  return {thread_id_in_group(lane) * 4 + (i & 3), group_id(lane)};
}

Element m8n8k16_c(int lane, int i) {
  return {group_id(lane), thread_id_in_group(lane) * 2 + (i & 1)};
}

// A row is held by four lanes, two elements each. With .trans the matrix is loaded in column-major
// order: what a lane would hold of the transposed matrix.
Element ldmatrix_element(int lane, int i, bool trans) {
  const int major = lane / 4, minor = lane % 4 * 2 + i;
  return trans ? Element{minor, major} : Element{major, minor};
}

int ldmatrix_address_lane(int matrix, int row) { return matrix * 8 + row; }

namespace {

// A kernel's products, by the layouts alone. Elements of an operand are read with `value`.
template <int K, class Value>
void multiply(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], float (&c)[32][4],
              Element (*layout_a)(int, int), Element (*layout_b)(int, int),
              Element (*layout_c)(int, int), int in_register, Value value) {
  double left[16][K], right[K][8], sums[16][8] = {};
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4 * in_register; ++i) {
      const Element e = layout_a(lane, i);
      left[e.row][e.col] = value(a[lane][i / in_register], i % in_register);
    }
    for (int i = 0; i < 2 * in_register; ++i) {
      const Element e = layout_b(lane, i);
      right[e.row][e.col] = value(b[lane][i / in_register], i % in_register);
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < K; ++k) {
      for (int col = 0; col < 8; ++col) sums[row][col] += left[row][k] * right[k][col];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Element e = layout_c(lane, i);
      c[lane][i] = static_cast<float>(static_cast<double>(c[lane][i]) + sums[e.row][e.col]);
    }
  }
}

// Likewise of bytes, A's signed.
template <int rows, int K, bool unsigned_b, int in_a, int in_b, int in_c>
void multiply_bytes(const uint32_t (&a)[32][in_a], const uint32_t (&b)[32][in_b],
                    int32_t (&c)[32][in_c], Element (*layout_a)(int, int),
                    Element (*layout_b)(int, int), Element (*layout_c)(int, int)) {
  int left[rows][K], right[K][8];
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4 * in_a; ++i) {
      const Element e = layout_a(lane, i);
      left[e.row][e.col] = static_cast<int8_t>(a[lane][i / 4] >> (i % 4 * 8));
    }
    for (int i = 0; i < 4 * in_b; ++i) {
      const Element e = layout_b(lane, i);
      const auto byte = static_cast<uint8_t>(b[lane][i / 4] >> (i % 4 * 8));
      right[e.row][e.col] = unsigned_b ? int{byte} : int{static_cast<int8_t>(byte)};
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < in_c; ++i) {
      const Element e = layout_c(lane, i);
      auto sum = static_cast<uint32_t>(c[lane][i]);
      for (int k = 0; k < K; ++k) sum += static_cast<uint32_t>(left[e.row][k] * right[k][e.col]);
      c[lane][i] = static_cast<int32_t>(sum);
    }
  }
}

}  // namespace

void mma_m16n8k32_s8s8(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2],
                       int32_t (&c)[32][4]) {
  multiply_bytes<16, 32, false>(a, b, c, m16n8k32_a, m16n8k32_b, m16n8k16_c);
}

void mma_m16n8k32_s8u8(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2],
                       int32_t (&c)[32][4]) {
  multiply_bytes<16, 32, true>(a, b, c, m16n8k32_a, m16n8k32_b, m16n8k16_c);
}

void mma_m8n8k16_s8s8(const uint32_t (&a)[32][1], const uint32_t (&b)[32][1], int32_t (&c)[32][2]) {
  multiply_bytes<8, 16, false>(a, b, c, m8n8k16_a, m8n8k16_b, m8n8k16_c);
}

void mma_m8n8k16_s8u8(const uint32_t (&a)[32][1], const uint32_t (&b)[32][1], int32_t (&c)[32][2]) {
  multiply_bytes<8, 16, true>(a, b, c, m8n8k16_a, m8n8k16_b, m8n8k16_c);
}

void mma_m16n8k16_bf16(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], float (&c)[32][4]) {
  multiply<16>(a, b, c, m16n8k16_a, m16n8k16_b, m16n8k16_c, 2, [](uint32_t pair, int i) {
    return bf16_to_float(static_cast<uint16_t>(i == 0 ? pair : pair >> 16));
  });
}

void mma_m16n8k8_tf32(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], float (&c)[32][4]) {
  multiply<8>(a, b, c, m16n8k8_a, m16n8k8_b, m16n8k8_c, 1,
              [](uint32_t bits, int) { return std::bit_cast<float>(bits & ~0x1fffu); });
}

void ldmatrix(const uint16_t (&rows)[32][8], int matrices, bool trans, uint32_t (&r)[32][4]) {
  for (int matrix = 0; matrix < matrices; ++matrix) {
    for (int lane = 0; lane < 32; ++lane) {
      uint32_t pair = 0;
      for (int i = 0; i < 2; ++i) {
        const Element e = ldmatrix_element(lane, i, trans);
        pair |= uint32_t{rows[ldmatrix_address_lane(matrix, e.row)][e.col]} << (16 * i);
      }
      r[lane][matrix] = pair;
    }
  }
}

float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

uint16_t float_to_bf16(float value) {
  if (std::isnan(value)) return 0x7fff;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t kept = bits >> 16, rest = bits & 0xffff;
  const bool up = rest > 0x8000 || (rest == 0x8000 && (kept & 1) != 0);
  return static_cast<uint16_t>(kept + (up ? 1 : 0));
}

uint32_t float_to_tf32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (!std::isfinite(value)) return bits;
  const uint32_t kept = bits & ~0x1fffu, rest = bits & 0x1fff;
  return rest >= 0x1000 ? kept + 0x2000 : kept;
}

}  // namespace trine::simt
