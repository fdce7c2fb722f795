// SPDX-License-Identifier: Apache-2.0
// Rows of any stride, one vector at a time; in place is fine. Bound: arithmetic (math-inl.h), as
// for activation.

template <Activation A>
static void gate_rows(const GatedArgs& args, int64_t begin, int64_t end) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  for (int64_t i = begin; i < end; ++i) {
    const float* gate = args.gate + i * args.ldg;
    const float* up = args.up + i * args.ldu;
    float* y = args.y + i * args.ldy;
    int64_t j = 0;
    for (; j + kLanes <= args.cols; j += kLanes)
      StoreU(Mul(Activate(LoadU(gate + j), A), LoadU(up + j)), y + j);
    const int64_t n = args.cols - j;
    if (n > 0) StoreN(Mul(Activate(LoadN(gate + j, n), A), LoadN(up + j, n)), y + j, n);
  }
}

static void gated(const GatedArgs& args, int64_t begin, int64_t end) noexcept {
  switch (args.activation) {
    case Activation::kNone:
      return gate_rows<Activation::kNone>(args, begin, end);
    case Activation::kGelu:
      return gate_rows<Activation::kGelu>(args, begin, end);
    case Activation::kGeluTanh:
      return gate_rows<Activation::kGeluTanh>(args, begin, end);
    case Activation::kRelu:
      return gate_rows<Activation::kRelu>(args, begin, end);
    case Activation::kTanh:
      return gate_rows<Activation::kTanh>(args, begin, end);
    case Activation::kSigmoid:
      return gate_rows<Activation::kSigmoid>(args, begin, end);
    case Activation::kSilu:
      return gate_rows<Activation::kSilu>(args, begin, end);
    case Activation::kQuickGelu:
      return gate_rows<Activation::kQuickGelu>(args, begin, end);
  }
}
