// SPDX-License-Identifier: Apache-2.0
// The tile registers of AMX, as few of their instructions as kernels need. A tile is 16 rows of 64
// bytes. Macros, because compilers take the number of a register as a literal only.
// tests/cpp/tiles_emulated.h has the same names in plain C++.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "base/platform.h"

namespace trine::cpu {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

}  // namespace trine::cpu

// gcc 12 takes 8 bytes of the configuration for all that is read and leaves out the stores of the
// others, and does not know that loading a tile reads memory: hence the barriers.
//
// Before the first tile instruction of a thread; TileRelease() when it is done, so that switching
// threads need not save 8 KiB.
#define TileConfigure()                         \
  do {                                          \
    const ::trine::cpu::TileConfig tile_config; \
    TRINE_COMPILER_BARRIER();                   \
    _tile_loadconfig(&tile_config);             \
  } while (false)
#define TileRelease() _tile_release()
#define TileZero(tile) _tile_zero(tile)
// Rows `stride` bytes apart.
#define TileLoad(tile, from, stride) \
  do {                               \
    TRINE_COMPILER_BARRIER();        \
    _tile_loadd(tile, from, stride); \
  } while (false)
// The same of what is not read again soon: it should not drive out of L1 what is.
#define TileLoadStream(tile, from, stride)  \
  do {                                      \
    TRINE_COMPILER_BARRIER();               \
    _tile_stream_loadd(tile, from, stride); \
  } while (false)
#define TileStore(tile, to, stride) _tile_stored(tile, to, stride)
// sums[16][16] += x[16][16 pairs] * w[16 pairs][16]
#define TileMultiply(sums, x, w) _tile_dpbf16ps(sums, x, w)
// Of integers: sums[16][16] += x[16][64 unsigned bytes] * w[16 quadruples of signed bytes][16]
#define TileMultiplyBytes(sums, x, w) _tile_dpbusd(sums, x, w)
