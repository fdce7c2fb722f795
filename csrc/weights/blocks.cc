// SPDX-License-Identifier: Apache-2.0
// The block formats of GGUF. Sub-blocks of 16 or 32 values; loops of fixed length over bytes, which
// the compiler vectorises.
#include "base/bytes.h"
#include "weights/convert.h"

namespace trine {
namespace {

constexpr int kSmall = 32;   // values in a block of Q4_0 ... Q8_0
constexpr int kSuper = 256;  // values in a block of the K types

float half_at(const uint8_t* p) noexcept { return f16_to_f32(load_le<uint16_t>(p)); }

// Sixteen bytes hold 32 values: the low nibbles are the first half, the high ones the second. Bit i
// of `high` is the fifth bit of value i.
template <int kOffset>
void nibbles(const uint8_t* q, uint32_t high, float d, float m, float* out) noexcept {
  for (int i = 0; i < 16; ++i) {
    const auto low = static_cast<int>((q[i] & 0x0Fu) | (((high >> i) & 1u) << 4));
    const auto up = static_cast<int>((q[i] >> 4u) | (((high >> (i + 16)) & 1u) << 4));
    out[i] = d * static_cast<float>(low - kOffset) + m;
    out[i + 16] = d * static_cast<float>(up - kOffset) + m;
  }
}

// Without m: adding +0 would turn a -0 into +0.
template <int kOffset>
void nibbles(const uint8_t* q, uint32_t high, float d, float* out) noexcept {
  for (int i = 0; i < 16; ++i) {
    const auto low = static_cast<int>((q[i] & 0x0Fu) | (((high >> i) & 1u) << 4));
    const auto up = static_cast<int>((q[i] >> 4u) | (((high >> (i + 16)) & 1u) << 4));
    out[i] = d * static_cast<float>(low - kOffset);
    out[i + 16] = d * static_cast<float>(up - kOffset);
  }
}

struct Q4_0 {  // d, 32 nibbles
  static constexpr int kElements = kSmall, kBytes = 18;
  static void read(const uint8_t* p, float* out) noexcept { nibbles<8>(p + 2, 0, half_at(p), out); }
};

struct Q4_1 {  // d, m, 32 nibbles
  static constexpr int kElements = kSmall, kBytes = 20;
  static void read(const uint8_t* p, float* out) noexcept {
    nibbles<0>(p + 4, 0, half_at(p), half_at(p + 2), out);
  }
};

struct Q5_0 {  // d, 32 fifth bits, 32 nibbles
  static constexpr int kElements = kSmall, kBytes = 22;
  static void read(const uint8_t* p, float* out) noexcept {
    nibbles<16>(p + 6, load_le<uint32_t>(p + 2), half_at(p), out);
  }
};

struct Q5_1 {  // d, m, 32 fifth bits, 32 nibbles
  static constexpr int kElements = kSmall, kBytes = 24;
  static void read(const uint8_t* p, float* out) noexcept {
    nibbles<0>(p + 8, load_le<uint32_t>(p + 4), half_at(p), half_at(p + 2), out);
  }
};

struct Q8_0 {  // d, 32 signed bytes
  static constexpr int kElements = kSmall, kBytes = 34;
  static void read(const uint8_t* p, float* out) noexcept {
    const float d = half_at(p);
    for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(p[2 + i]));
  }
};

// Sub-blocks of 32 values in pairs: the low nibbles of 32 bytes, then the high ones. Bit j of
// high[i], if there are any, is the fifth bit of value i in sub-block j.
template <bool kFive>
void k_nibbles(const uint8_t* p, const uint8_t* high, const uint8_t* q, float* out) noexcept {
  const float d = half_at(p), dmin = half_at(p + 2);
  for (int j = 0; j < 8; ++j) {
    const KScale s = k_scale(p + 4, j);
    const float scale = d * static_cast<float>(s.scale), min = dmin * static_cast<float>(s.min);
    const uint8_t* const from = q + j / 2 * 32;
    const int shift = j % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      int value = (from[i] >> shift) & 0x0F;
      if constexpr (kFive) value |= ((high[i] >> j) & 1) << 4;
      out[j * 32 + i] = scale * static_cast<float>(value) - min;
    }
  }
}

struct Q4K {  // d, dmin, 12 bytes of scales, 256 nibbles
  static constexpr int kElements = kSuper, kBytes = 144;
  static void read(const uint8_t* p, float* out) noexcept {
    k_nibbles<false>(p, nullptr, p + 16, out);
  }
};

struct Q5K {  // d, dmin, 12 bytes of scales, 256 fifth bits, 256 nibbles
  static constexpr int kElements = kSuper, kBytes = 176;
  static void read(const uint8_t* p, float* out) noexcept {
    k_nibbles<true>(p, p + 16, p + 48, out);
  }
};

struct Q6K {  // 256 nibbles, 256 pairs of upper bits, 16 signed scales, d
  static constexpr int kElements = kSuper, kBytes = 210;
  // Each half of 128 values: four rows of 32, two in the low and two in the high nibbles of 64
  // bytes; their upper bits in the four pairs of 32 bytes. A scale serves 16 values.
  static void read(const uint8_t* p, float* out) noexcept {
    const float d = half_at(p + 208);
    for (int row = 0; row < 8; ++row) {
      const int half = row / 4, r = row % 4;
      const uint8_t* const low = p + half * 64 + r % 2 * 32;
      const uint8_t* const high = p + 128 + half * 32;
      const int low_shift = r / 2 * 4, high_shift = 2 * r;
      for (int part = 0; part < 2; ++part) {
        const float scale = d * static_cast<float>(static_cast<int8_t>(p[192 + row * 2 + part]));
        for (int i = part * 16; i < part * 16 + 16; ++i) {
          const int q = ((low[i] >> low_shift) & 0x0F) | (((high[i] >> high_shift) & 3) << 4);
          out[row * 32 + i] = scale * static_cast<float>(q - 32);
        }
      }
    }
  }
};

template <class Block>
void read_all(const std::byte* src, float* dst, size_t n) noexcept {
  const auto* p = reinterpret_cast<const uint8_t*>(src);
  for (size_t i = 0; i < n; i += Block::kElements, p += Block::kBytes) Block::read(p, dst + i);
}

}  // namespace

void blocks_to_f32(DType dtype, const std::byte* src, float* dst, size_t n) noexcept {
  switch (dtype) {
    case DType::kQ4_0:
      return read_all<Q4_0>(src, dst, n);
    case DType::kQ4_1:
      return read_all<Q4_1>(src, dst, n);
    case DType::kQ5_0:
      return read_all<Q5_0>(src, dst, n);
    case DType::kQ5_1:
      return read_all<Q5_1>(src, dst, n);
    case DType::kQ8_0:
      return read_all<Q8_0>(src, dst, n);
    case DType::kQ4K:
      return read_all<Q4K>(src, dst, n);
    case DType::kQ5K:
      return read_all<Q5K>(src, dst, n);
    case DType::kQ6K:
      return read_all<Q6K>(src, dst, n);
    default:
      return;  // to_f32 lets no other type through
  }
}

}  // namespace trine
