// SPDX-License-Identifier: Apache-2.0
// Rows of any stride, one vector at a time; in place is fine. Bound: arithmetic (math-inl.h), for
// ReLU memory.

template <Activation A>
static void activate_rows(const ActivationArgs& args, int64_t begin, int64_t end) noexcept {
  constexpr int64_t kLanes = Vec::kLanes;
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.ldx;
    float* y = args.y + i * args.ldy;
    int64_t j = 0;
    for (; j + kLanes <= args.cols; j += kLanes) StoreU(Activate(LoadU(x + j), A), y + j);
    if (j < args.cols) StoreN(Activate(LoadN(x + j, args.cols - j), A), y + j, args.cols - j);
  }
}

static void activation(const ActivationArgs& args, int64_t begin, int64_t end) noexcept {
  switch (args.activation) {
    case Activation::kNone:
      return activate_rows<Activation::kNone>(args, begin, end);
    case Activation::kGelu:
      return activate_rows<Activation::kGelu>(args, begin, end);
    case Activation::kGeluTanh:
      return activate_rows<Activation::kGeluTanh>(args, begin, end);
    case Activation::kRelu:
      return activate_rows<Activation::kRelu>(args, begin, end);
    case Activation::kTanh:
      return activate_rows<Activation::kTanh>(args, begin, end);
    case Activation::kSigmoid:
      return activate_rows<Activation::kSigmoid>(args, begin, end);
    case Activation::kSilu:
      return activate_rows<Activation::kSilu>(args, begin, end);
    case Activation::kQuickGelu:
      return activate_rows<Activation::kQuickGelu>(args, begin, end);
  }
}
