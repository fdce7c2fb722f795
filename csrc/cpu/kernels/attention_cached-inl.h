// SPDX-License-Identifier: Apache-2.0
// attention-inl.h over a sequence's cache, which holds K's panels as that file packs them and V
// in panels of 16 columns, all keys of a panel end to end, so that a tile reads memory in order:
// nothing is packed or copied again. The tiles, and so the order of
// every sum, are the same ones: a token gets the same bits in whatever pieces its sequence arrives,
// and with no cache at all.
//
// One new token: the query heads that share a key head are the rows of a tile, so that K and V are
// read once for all of them. Bound: memory, 8 bytes a key and column; more tokens: FMA, as there.

template <class Format>
static TRINE_INLINE float* cached_keys(const AttentionArgs& args, const KvView& cache,
                                       int64_t kv_head) {
  return cache.data +
         cache.capacity * (cache.begin[args.cache] + kv_head * lines_of<Format>(args.head_dim));
}
template <class Format>
static TRINE_INLINE float* cached_values(const AttentionArgs& args, const KvView& cache,
                                         int64_t kv_head) {
  const int64_t before = kv_head * round_up(args.head_dim, kPanel) / Format::kElements;
  return cached_keys<Format>(args, cache, args.kv_heads) + cache.capacity * before;
}

// The sequence's new rows of one key head into its cache.
template <class Format>
static void append_kv(const AttentionArgs& args, int32_t sequence, int32_t kv_head) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  const KvView& cache = args.caches[sequence];
  const int64_t first = args.batch.offsets[sequence], dim = args.head_dim;
  const int64_t length = args.batch.offsets[sequence + 1] - first, past = cache.past;
  const HeadRows k = {args.k + first * args.ldk + kv_head * dim, args.ldk, dim};
  const HeadRows v = {args.v + first * args.ldv + kv_head * dim, args.ldv, dim};
  float* keys = cached_keys<Format>(args, cache, kv_head);
  float* values = cached_values<Format>(args, cache, kv_head);
  const int64_t panel = cache.capacity / Format::kElements * kPanel;
  for (int64_t i = 0; i < length; ++i) pack_value<Format>(v, i, past + i, values, panel);
  for (int64_t i = 0; i < length;) {
    const int64_t j = past + i;
    float* to = keys + j / kPanel * kPanel * lines_of<Format>(dim) + j % kPanel;
    if (j % kLanes != 0 || i + kLanes > length) {
      pack_key<Format>(k, i, to);
      ++i;
    } else {
      pack_keys_of_vector<Format>(k, i, length, to);
      i += kLanes;
    }
  }
}

// Rows that see the same keys, in as few blocks as hold them: K and V come from memory for each
// block, which takes longer than rows that nobody asked for.
template <class Format, int R>
static TRINE_INLINE void attend_together(const Head& head, int64_t i, int64_t end) {
  if constexpr (kIsTiled<Format>) {
    attend<Format, R>(head, 0, i, end);
  } else {
    for (; i + R <= end; i += R) attend_block<Format, R>(head, 0, i, R);
    constexpr int kSmaller = smaller_block(R);
    if (i == end) return;
    if constexpr (R > 1) {
      if (end - i <= kSmaller) return attend_together<Format, kSmaller>(head, i, end);
    }
    attend_block<Format, R>(head, 0, i, end - i);
  }
}

template <class Format>
static void attention_cached(const AttentionArgs& args, int32_t sequence, int32_t kv_head,
                             int64_t q0, int64_t q1, std::byte* scratch) noexcept {
  const KvView& cache = args.caches[sequence];
  const int64_t first = args.batch.offsets[sequence], past = cache.past, dim = args.head_dim;
  const int64_t group = args.heads / args.kv_heads;
  Head head = {};
  head.dim = dim, head.lines = lines_of<Format>(dim);
  head.scale = args.scale * kLog2OfE;
  head.panels = cached_keys<Format>(args, cache, kv_head);
  head.v = cached_values<Format>(args, cache, kv_head);
  head.ldv = kPanel;
  head.v_panel = cache.capacity / Format::kElements * kPanel;
  head.queries = reinterpret_cast<float*>(scratch);
  head.scores = head.queries + strip_floats<Format>(dim);
  const float* q = args.q + first * args.ldq + kv_head * group * dim;
  float* y = args.y + first * args.ldy + kv_head * group * dim;
  if (q1 - q0 < group) {
    // The group's heads in place of neighbouring queries: all of them see the same keys.
    head.ldy = dim;
    for (int64_t i = q0; i < q1; ++i) {
      head.q = {q + i * args.ldq, dim, dim};
      head.y = y + i * args.ldy;
      head.length = past + i + 1;
      attend_together<Format, kBlockQueries>(head, 0, group);
    }
    return;
  }
  head.causal = true;
  head.ldy = args.ldy;
  head.length = past + q1;
  for (int64_t h = 0; h < group; ++h) {
    // Rows are counted from the sequence's first token, which is `past` rows ahead of these.
    head.q = {q + h * dim - past * args.ldq, args.ldq, dim};
    head.y = y + h * dim - past * args.ldy;
    attend<Format, kBlockQueries>(head, past + q0, past + q0, past + q1);
  }
}

template <class Format>
static constexpr AttentionKernel attention_kernel() {
  return {attention<Format>, attention_scratch_bytes<Format>, append_kv<Format>,
          attention_cached<Format>};
}
