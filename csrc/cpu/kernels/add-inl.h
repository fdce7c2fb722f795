// SPDX-License-Identifier: Apache-2.0
// Rows of any stride, one vector at a time; in place is fine. Bound: memory.

static void add(const AddArgs& args, int64_t begin, int64_t end) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  for (int64_t i = begin; i < end; ++i) {
    const float* a = args.a + i * args.lda;
    const float* b = args.b + i * args.ldb;
    float* y = args.y + i * args.ldy;
    int64_t j = 0;
    for (; j + kLanes <= args.cols; j += kLanes) StoreU(Add(LoadU(a + j), LoadU(b + j)), y + j);
    const int64_t rest = args.cols - j;
    if (rest > 0) StoreN(Add(LoadN(a + j, rest), LoadN(b + j, rest)), y + j, rest);
  }
}
