// SPDX-License-Identifier: Apache-2.0
// linear on int8 weights by an instruction for dot products of 4 bytes: DotBytes(x, w, sum), which
// the instruction set's own file defines, with kDotOffset, what it wants added to x.
//
// Tile, loads and cycles are those of fp32, each doing four times the work.

struct DotInt8Format : Int8Base {
  static constexpr int kSteps = 1;
  static constexpr int kOffset = kDotOffset;
  static TRINE_INLINE Vec weights(Vec line, int) { return line; }
  static TRINE_INLINE Vec multiply_add(Vec x, Vec w, Vec sum) { return DotBytes(x, w, sum); }
};
