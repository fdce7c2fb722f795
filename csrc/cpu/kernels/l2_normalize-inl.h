// SPDX-License-Identifier: Apache-2.0
// Two passes over a row that stays in L1; the order of the sum is row_sum's. A norm that is NaN
// makes the whole row NaN.

static void l2_normalize(const L2NormalizeArgs& args, int64_t begin, int64_t end) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.ldx;
    float* y = args.y + i * args.ldy;
    const float norm = sqrtf(row_sum<true>(x, args.cols, 0.0f));
    const Vec divisor = Set(norm < args.eps ? args.eps : norm);
    int64_t j = 0;
    for (; j + kLanes <= args.cols; j += kLanes) StoreU(Div(LoadU(x + j), divisor), y + j);
    if (j < args.cols) StoreN(Div(LoadN(x + j, args.cols - j), divisor), y + j, args.cols - j);
  }
}
