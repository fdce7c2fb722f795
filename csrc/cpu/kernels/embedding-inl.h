// SPDX-License-Identifier: Apache-2.0
// Rows gathered from up to three tables, widened and added in registers. Bound: the latency of rows
// that are in no cache; the processor overlaps a few of them by itself.

static TRINE_INLINE Vec load_element(const char* row, DType dtype, int64_t j, int64_t n) {
  const bool whole = n == Vec::kLanes;
  switch (dtype) {
    case DType::kF16:
      return whole ? LoadF16(row + 2 * j) : LoadF16N(row + 2 * j, n);
    case DType::kBF16:
      return whole ? LoadBF16(row + 2 * j) : LoadBF16N(row + 2 * j, n);
    default:
      return whole ? LoadF32(row + 4 * j) : LoadF32N(row + 4 * j, n);
  }
}

// Rows of int8 panels: 4 bytes of each line, so four times the lines that a row of a table takes.
static void embedding_int8(const EmbeddingArgs& args, int64_t begin, int64_t end) {
  const int64_t lines = Int8Base::lines(args.cols);
  const int64_t panel = (lines + 2) * kPanel * 4;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t id = args.ids[0][i], lane = id % kPanel;
    const auto* const bytes = static_cast<const int8_t*>(args.tables[0]) + id / kPanel * panel;
    float scale;
    memcpy(&scale, bytes + (lines * kPanel + lane) * 4, sizeof scale);
    float* const y = args.y + i * args.ldy;
    for (int64_t j = 0; j < args.cols; ++j)
      y[j] = scale * static_cast<float>(bytes[(j / 4 * kPanel + lane) * 4 + j % 4]);
  }
}

// Rows of one table in groups: a column of the panels that linear reads (kernel_table.h). Scale * q
// is exact, so that no instruction set rounds otherwise.
template <GroupForm kForm>
static void embed_groups(const EmbeddingArgs& args, int64_t begin, int64_t end) {
  constexpr int64_t kLines = kGroupLines<kForm>, kBytes = kGroupBytes<kForm>;
  constexpr int64_t kPart = kGroup / kGroupParts<kForm>;
  const int64_t groups = (args.cols + kGroup - 1) / kGroup;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t id = args.ids[0][i], column = id % kPanel;
    const char* group = static_cast<const char*>(args.tables[0]) + id / kPanel * groups * kBytes;
    float* const y = args.y + i * args.ldy;
    for (int64_t k0 = 0; k0 < args.cols; k0 += kGroup, group += kBytes) {
      float q[kGroup];
      const auto* const bytes = reinterpret_cast<const uint8_t*>(group) + 4 * column;
      for (int64_t k = 0; k < kGroup; ++k) {
        const int64_t eighth = k / 4;
        const int byte = bytes[(group_bits(kForm) < 8 ? eighth / 2 : eighth) * 64 + k % 4];
        int level = group_bits(kForm) == 8 ? byte : eighth % 2 == 0 ? byte & 15 : byte >> 4;
        if constexpr (kForm == GroupForm::kQ6_K)
          level |= (bytes[(4 + k / 16) * 64 + k % 4] >> (2 * (eighth % 4)) & 3) << 4;
        q[k] = static_cast<float>(level);
      }
      const int64_t n = args.cols - k0 < kGroup ? args.cols - k0 : kGroup;
      const char* scales = group + 64 * kLines + 2 * column;
      for (int64_t part = 0; part < n; part += kPart, scales += 2 * kPanel) {
        const Vec scale = Set(ReduceSum(LoadF16N(scales, 1)));
        const Vec min = kHasMinima<kForm> ? Set(ReduceSum(LoadF16N(scales + 2 * kPanel, 1)))
                                          : Mul(scale, Set(kOffset<kForm>));
        for (int64_t k = part; k < part + kPart && k < n; k += Vec::kLanes) {
          const int64_t lanes = n - k < Vec::kLanes ? n - k : Vec::kLanes;
          StoreUpTo(MulAdd(scale, LoadU(q + k), min), y + k0 + k, lanes);
        }
      }
    }
  }
}

static void embedding(const EmbeddingArgs& args, int64_t begin, int64_t end) noexcept {
  if (args.dtypes[0] == DType::kI8) return embedding_int8(args, begin, end);
  if (const auto form = group_form_of(args.dtypes[0])) {
    switch (*form) {
      case GroupForm::kInt4:
        return embed_groups<GroupForm::kInt4>(args, begin, end);
      case GroupForm::kQ4_0:
        return embed_groups<GroupForm::kQ4_0>(args, begin, end);
      case GroupForm::kQ6_K:
        return embed_groups<GroupForm::kQ6_K>(args, begin, end);
      case GroupForm::kQ8_0:
        return embed_groups<GroupForm::kQ8_0>(args, begin, end);
      case GroupForm::kInt8:
        return embed_groups<GroupForm::kInt8>(args, begin, end);
    }
  }
  constexpr int64_t kLanes = Vec::kLanes;
  for (int64_t i = begin; i < end; ++i) {
    const char* row[EmbeddingArgs::kMaxTables] = {};
    for (int32_t t = 0; t < args.count; ++t) {
      const int64_t bytes = args.cols * (args.dtypes[t] == DType::kF32 ? 4 : 2);
      row[t] = static_cast<const char*>(args.tables[t]) + args.ids[t][i] * bytes;
    }
    float* y = args.y + i * args.ldy;
    for (int64_t j = 0; j < args.cols; j += kLanes) {
      const int64_t n = args.cols - j < kLanes ? args.cols - j : kLanes;
      Vec sum = load_element(row[0], args.dtypes[0], j, n);
      for (int32_t t = 1; t < args.count; ++t)
        sum = Add(sum, load_element(row[t], args.dtypes[t], j, n));
      StoreUpTo(sum, y + j, n);
    }
  }
}
