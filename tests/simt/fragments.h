// SPDX-License-Identifier: Apache-2.0
// Which lane of a warp holds which element of the matrices of mma and ldmatrix, from the tables of
// the PTX ISA, and the operations on whole warps that follow from it. Written without a look at any
// kernel: a kernel that has the layout wrong gets wrong results here.
#pragma once

#include <cstdint>

namespace trine::simt {

struct Element {
  int row, col;
};

// PTX ISA 9.0, "Matrix Fragments for mma.m16n8k16 with floating point type", .bf16: element i of
// lane's vector of A (a0 .. a7, two to a register, the low half first), B (b0 .. b3) and C or D.
Element m16n8k16_a(int lane, int i);
Element m16n8k16_b(int lane, int i);
Element m16n8k16_c(int lane, int i);

// "Matrix Fragments for mma.m16n8k8", .tf32: a0 .. a3, b0 and b1, c0 .. c3, one to a register.
Element m16n8k8_a(int lane, int i);
Element m16n8k8_b(int lane, int i);
Element m16n8k8_c(int lane, int i);

// "Matrix Fragments for mma.m16n8k32", .s8 or .u8: a0 .. a15, b0 .. b7, four to a register, the
// first in the low byte; C and D as m16n8k16's.
Element m16n8k32_a(int lane, int i);
Element m16n8k32_b(int lane, int i);

// "Matrix Fragments for mma.m8n8k16", .s8 or .u8: a0 .. a3, b0 .. b3, c0 and c1.
Element m8n8k16_a(int lane, int i);
Element m8n8k16_b(int lane, int i);
Element m8n8k16_c(int lane, int i);

// "Warp-level matrix load instruction: ldmatrix", .m8n8, .b16: the two elements (i = 0 in the low
// half) of each matrix in lane's register for it; and the lane whose address is that of a row.
Element ldmatrix_element(int lane, int i, bool trans);
int ldmatrix_address_lane(int matrix, int row);

// Registers of the 32 lanes. Sums are taken in double and rounded once, near to what tensor cores
// do: exact products, sums wider than float, another order.
void mma_m16n8k16_bf16(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], float (&c)[32][4]);
// Of each operand the low 13 bits are ignored.
void mma_m16n8k8_tf32(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], float (&c)[32][4]);
// Signed bytes times signed or unsigned ones; sums wrap around.
void mma_m16n8k32_s8s8(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], int32_t (&c)[32][4]);
void mma_m16n8k32_s8u8(const uint32_t (&a)[32][4], const uint32_t (&b)[32][2], int32_t (&c)[32][4]);
void mma_m8n8k16_s8s8(const uint32_t (&a)[32][1], const uint32_t (&b)[32][1], int32_t (&c)[32][2]);
void mma_m8n8k16_s8u8(const uint32_t (&a)[32][1], const uint32_t (&b)[32][1], int32_t (&c)[32][2]);
// rows[l]: the 8 elements at the address that lane l gave.
void ldmatrix(const uint16_t (&rows)[32][8], int matrices, bool trans, uint32_t (&r)[32][4]);

float bf16_to_float(uint16_t bits);
uint16_t float_to_bf16(float value);  // to nearest, ties to even; NaN becomes 0x7fff
uint32_t float_to_tf32(float value);  // cvt.rna: to nearest, ties away from zero

}  // namespace trine::simt
