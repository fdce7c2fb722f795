// SPDX-License-Identifier: Apache-2.0
// attention-inl.h over a sequence's cache, which holds K's panels as that file packs them and V
// in panels of 16 columns, all keys of a panel end to end, so that a tile reads memory in order:
// nothing is packed or copied again. The tiles, and so the order of
// every sum, are the same ones: a token gets the same bits in whatever pieces its sequence arrives,
// and with no cache at all.
//
// One new token: the query heads that share a key head are the rows of a tile, so that K and V are
// read once for all of them. Bound: memory, 8 bytes a key and column; more tokens: FMA, as there.

static TRINE_INLINE float* cached_keys(const AttentionArgs& args, const KvView& cache,
                                       int64_t kv_head) {
  return cache.data + cache.capacity * (cache.begin[args.cache] + kv_head * args.head_dim);
}
static TRINE_INLINE float* cached_values(const AttentionArgs& args, const KvView& cache,
                                         int64_t kv_head) {
  return cache.data + cache.capacity * (cache.begin[args.cache] + args.kv_heads * args.head_dim +
                                        kv_head * round_up(args.head_dim, kPanel));
}

// The sequence's new rows of one key head into its cache.
static void append_kv(const AttentionArgs& args, int32_t sequence, int32_t kv_head) noexcept {
  constexpr int kLanes = Vec::kLanes;
  const KvView& cache = args.caches[sequence];
  const int64_t first = args.batch.offsets[sequence], dim = args.head_dim;
  const int64_t length = args.batch.offsets[sequence + 1] - first;
  const float* k = args.k + first * args.ldk + kv_head * dim;
  const float* v = args.v + first * args.ldv + kv_head * dim;
  float* keys = cached_keys(args, cache, kv_head);
  float* values = cached_values(args, cache, kv_head) + cache.past * kPanel;
  for (int64_t i = 0; i < length; ++i, values += kPanel) {
    for (int64_t c = 0; c < dim; c += kLanes) {
      StoreU(LoadUpTo(v + i * args.ldv + c, smaller(dim - c, kLanes)),
             values + c / kPanel * cache.capacity * kPanel + c % kPanel);
    }
  }
  for (int64_t i = 0; i < length;) {
    const int64_t j = cache.past + i;
    float* panel = keys + j / kPanel * kPanel * dim + j % kPanel;
    if (j % kLanes != 0 || i + kLanes > length) {
      for (int64_t c = 0; c < dim; ++c) panel[c * kPanel] = k[i * args.ldk + c];
      ++i;
      continue;
    }
    for (int64_t c = 0; c < dim; c += kLanes) {
      const int64_t n = smaller(dim - c, kLanes);
      Vec block[kLanes];
      TRINE_UNROLL for (int r = 0; r < kLanes; ++r) {
        block[r] = LoadUpTo(k + (i + r) * args.ldk + c, n);
      }
      Transpose(block);
      TRINE_UNROLL for (int r = 0; r < kLanes; ++r) {
        if (r < n) StoreU(block[r], panel + (c + r) * kPanel);
      }
    }
    i += kLanes;
  }
}

static void attention_cached(const AttentionArgs& args, int32_t sequence, int32_t kv_head,
                             int64_t q0, int64_t q1, std::byte* scratch) noexcept {
  const KvView& cache = args.caches[sequence];
  const int64_t first = args.batch.offsets[sequence], past = cache.past, dim = args.head_dim;
  const int64_t group = args.heads / args.kv_heads;
  Head head = {};
  head.dim = dim;
  head.scale = args.scale * kLog2OfE;
  head.panels = cached_keys(args, cache, kv_head);
  head.v = cached_values(args, cache, kv_head);
  head.ldv = kPanel;
  head.v_panel = cache.capacity * kPanel;
  head.queries = reinterpret_cast<float*>(scratch);
  head.scores = head.queries + strip_floats(dim);
  const float* q = args.q + first * args.ldq + kv_head * group * dim;
  float* y = args.y + first * args.ldy + kv_head * group * dim;
  if (q1 - q0 < group) {
    // The group's heads in place of neighbouring queries: all of them see the same keys.
    head.ldq = head.ldy = dim;
    for (int64_t i = q0; i < q1; ++i) {
      head.q = q + i * args.ldq;
      head.y = y + i * args.ldy;
      head.length = head.keys = past + i + 1;
      attend<kBlockQueries>(head, 0, 0, group);
    }
    return;
  }
  head.causal = true;
  head.ldq = args.ldq, head.ldy = args.ldy;
  head.length = head.keys = past + q1;
  for (int64_t h = 0; h < group; ++h) {
    // Rows are counted from the sequence's first token, which is `past` rows ahead of these.
    head.q = q + h * dim - past * args.ldq;
    head.y = y + h * dim - past * args.ldy;
    attend<kBlockQueries>(head, past + q0, past + q0, past + q1);
  }
}
