// SPDX-License-Identifier: Apache-2.0
// What attention-inl.h multiplies, in the layout that its tiles read, for each Format of
// linear-inl.h: lines of 16 keys (or 16 columns of V), 64 bytes each, which hold one element of the
// depth in float32 and a pair of them in bf16; and rows that are broadcast, in strips.

constexpr int64_t kStripLength = 256;
constexpr int64_t kStripStride = kStripLength + 16;  // a power of two would share cache sets

static TRINE_INLINE int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Lines that so many elements take; the last one is filled up with zeros.
template <class Format>
static TRINE_INLINE int64_t lines_of(int64_t elements) {
  return ceil_div(elements, Format::kElements);
}

// Rows of q, k or v: row i is i * ld further.
struct HeadRows {
  const float* data;
  int64_t ld, dim;
};

// Asks for a head's columns of rows [begin, end). They were just written, half of them by other
// threads, and lie too far apart for the processor to look ahead by itself.
static TRINE_INLINE void prefetch_rows(const HeadRows& x, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t c = 0; c < x.dim; c += kPanel) TRINE_PREFETCH(x.data + i * x.ld + c);
  }
}

// Keys [j, j + kLanes), as far as there are `keys`, into their places of a panel; zeros for those
// that lack: their scores count for nothing, but may be no denormals.
template <class Format>
static TRINE_INLINE void pack_keys_of_vector(const HeadRows& k, int64_t j, int64_t keys,
                                             float* panel) {
  constexpr int kLanes = Vec::kLanes;
  constexpr int kElements = static_cast<int>(Format::kElements);
  for (int64_t c = 0; c < k.dim; c += kLanes) {
    const int64_t n = at_most(k.dim - c, kLanes);
    Vec block[kLanes];
    TRINE_UNROLL for (int r = 0; r < kLanes; ++r) {
      block[r] = j + r < keys ? LoadUpTo(k.data + (j + r) * k.ld + c, n) : Zero();
    }
    Transpose(block);
    float* to = panel + c / kElements * kPanel;
    TRINE_UNROLL for (int r = 0; r < kLanes; r += kElements, to += kPanel) {
      if (r >= n) continue;
      if constexpr (kElements == 1) {
        StoreU(block[r], to);
      } else {
        StoreU(Format::join(block[r], block[r + 1]), to);
      }
    }
  }
}

// Keys [0, keys) into panels [ceil(keys / 16)][lines][16]; v is only asked for.
template <class Format>
static void pack_keys(const HeadRows& k, const HeadRows& v, int64_t keys, float* panels) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const int64_t panel = lines_of<Format>(k.dim) * kPanel;
  prefetch_rows(k, 0, at_most(keys, kLanes));
  for (int64_t j = 0; j < round_up(keys, kPanel); j += kLanes) {
    prefetch_rows(k, j + kLanes, at_most(keys, j + 2 * kLanes));
    prefetch_rows(v, j, at_most(keys, j + kLanes));
    pack_keys_of_vector<Format>(k, j, keys, panels + j / kPanel * panel + j % kPanel);
  }
}

// Lines of V end to end, `stride` floats each, padded with zeros to whole vectors.
template <class Format>
static void pack_values(const HeadRows& v, int64_t keys, float* to, int64_t stride) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  for (int64_t j = 0; j < keys; j += Format::kElements, to += stride) {
    for (int64_t c = 0; c < v.dim; c += kLanes) {
      const float* from = v.data + j * v.ld + c;
      const int64_t n = at_most(v.dim - c, kLanes);
      if constexpr (Format::kElements == 1) {
        StoreU(LoadUpTo(from, n), to + c);
      } else {
        const Vec next = j + 1 < keys ? LoadUpTo(from + v.ld, n) : Zero();
        StoreU(Format::join(LoadUpTo(from, n), next), to + c);
      }
    }
  }
}

// Key j alone into its column of a panel, `panel` being where it starts.
template <class Format>
static TRINE_INLINE void pack_key(const HeadRows& k, int64_t j, float* panel) {
  if constexpr (Format::kElements == 1) {
    for (int64_t c = 0; c < k.dim; ++c) panel[c * kPanel] = k.data[j * k.ld + c];
  } else {
    constexpr int64_t kLanes = Vec::kLanes;
    for (int64_t c = 0; c < k.dim; c += kLanes) {
      const int64_t n = at_most(k.dim - c, kLanes);
      uint32_t bits[kLanes];
      float row[kLanes];
      StoreU(RoundBF16(LoadUpTo(k.data + j * k.ld + c, n)), row);
      memcpy(bits, row, sizeof bits);
      for (int64_t i = 0; i < n; i += 2, panel += kPanel) {
        const uint32_t pair = bits[i] >> 16 | (bits[i + 1] & 0xffff0000u);
        memcpy(panel, &pair, sizeof pair);
      }
    }
  }
}

// Row j of V into line j / kElements of panels of 16 columns, `panel` floats apart. The first of a
// pair puts zeros in the place of the second.
template <class Format>
static TRINE_INLINE void pack_value(const HeadRows& v, int64_t row, int64_t j, float* values,
                                    int64_t panel) {
  constexpr int64_t kLanes = Vec::kLanes;
  float* line = values + j / Format::kElements * kPanel;
  for (int64_t c = 0; c < v.dim; c += kLanes) {
    const Vec value = LoadUpTo(v.data + row * v.ld + c, at_most(v.dim - c, kLanes));
    float* to = line + c / kPanel * panel + c % kPanel;
    if constexpr (Format::kElements == 1) {
      StoreU(value, to);
    } else if (j % 2 == 0) {
      StoreU(Format::join(value, Zero()), to);
    } else {
      StoreU(Format::join(WidenLowBF16(LoadU(to)), value), to);
    }
  }
}
