// SPDX-License-Identifier: Apache-2.0
// AMX's tile instructions as Intel's manual (SDM volume 2, TDPBF16PS, TILELOADD) describes them, in
// plain C++: same names as cpu/simd/tiles.h. A tile that is used without a configuration is NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace trine::test {

struct Tiles {
  bool configured = false;
  float tile[8][16][16];  // rows of 64 bytes
};
inline thread_local Tiles tiles;

inline float flushed(float x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? 0.0f : x;
}

// Element 0 or 1 of a pair of bf16 that is stored in a float.
inline float half_of(float pair, int which) {
  const auto bits = std::bit_cast<uint32_t>(pair);
  return flushed(std::bit_cast<float>(which == 0 ? bits << 16 : bits & 0xffff0000u));
}

inline void TileConfigure() {
  tiles.configured = true;
  std::memset(tiles.tile, 0, sizeof tiles.tile);
}
inline void TileRelease() { tiles.configured = false; }
inline void TileZero(int t) { std::memset(tiles.tile[t], 0, sizeof tiles.tile[t]); }
inline void TileLoad(int t, const void* from, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(tiles.tile[t][row], static_cast<const char*>(from) + row * stride, 64);
}
inline void TileLoadStream(int t, const void* from, int64_t stride) { TileLoad(t, from, stride); }
inline void TileStore(int t, void* to, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(static_cast<char*>(to) + row * stride, tiles.tile[t][row], 64);
}
inline void TileMultiply(int sums, int x, int w) {
  float xs[2][16][16], ws[2][16][16];  // the halves apart
  for (int i = 0; i < 2; ++i) {
    for (int row = 0; row < 16; ++row) {
      for (int col = 0; col < 16; ++col) {
        xs[i][row][col] = half_of(tiles.tile[x][row][col], i);
        ws[i][row][col] = half_of(tiles.tile[w][row][col], i);
      }
    }
  }
  for (int m = 0; m < 16; ++m) {
    float part[2][16] = {};
    for (int k = 0; k < 16; ++k) {
      for (int i = 0; i < 2; ++i) {
        // Products of bf16 are exact in float: this rounds once, as the processor does.
        for (int n = 0; n < 16; ++n) part[i][n] = flushed(part[i][n] + xs[i][m][k] * ws[i][k][n]);
      }
    }
    for (int n = 0; n < 16; ++n) {
      float& sum = tiles.tile[sums][m][n];
      sum = flushed(flushed(sum) + flushed(part[0][n] + part[1][n]));
      if (!tiles.configured) sum = std::numeric_limits<float>::quiet_NaN();
    }
  }
}

// TDPBUSD: unsigned bytes of x, signed ones of w, sums that wrap.
inline void TileMultiplyBytes(int sums, int x, int w) {
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      auto sum = std::bit_cast<uint32_t>(tiles.tile[sums][m][n]);
      for (int k = 0; k < 16; ++k) {
        const auto xs = std::bit_cast<uint32_t>(tiles.tile[x][m][k]);
        const auto ws = std::bit_cast<uint32_t>(tiles.tile[w][k][n]);
        for (int i = 0; i < 32; i += 8)
          sum += (xs >> i & 255u) *
                 static_cast<uint32_t>(int32_t{static_cast<int8_t>(ws >> i & 255u)});
      }
      tiles.tile[sums][m][n] = std::bit_cast<float>(tiles.configured ? sum : ~sum);
    }
  }
}

}  // namespace trine::test
