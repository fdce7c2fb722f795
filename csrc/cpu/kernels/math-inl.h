// SPDX-License-Identifier: Apache-2.0
// Elementary functions and activations on Vec. Branch-free: NaN passes through, infinities give the
// limit, and nothing depends on neighbouring lanes. The bounds, which tests/cpp/test_math.cc holds
// every instruction set to, are in units in the last place of the float nearest to the true value;
// "abs" is added to them. Coefficients: tests/cpp/fit_math.py. No include guard: included once per
// instruction set, inside its namespace.

// Highest power first, so that each step is one fused multiply-add.
template <int N>
static TRINE_INLINE Vec Horner(Vec x, const float (&c)[N]) {
  Vec r = Set(c[0]);
  for (int i = 1; i < N; ++i) r = MulAdd(r, x, Set(c[i]));
  return r;
}

// e^x. 2 ulp, denormal results included.
static TRINE_INLINE Vec Exp(Vec x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;  // 9 bits: times an exponent it is exact, FMA or not
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kTaylor[] = {0.001381949f, 0.0083686905f, 0.04166828f, 0.16666521f,
                               0.49999994f,  1.0f,          1.0f};
  x = Max(Set(-104.0f), Min(Set(89.0f), x));  // beyond these e^x is 0 and infinity
  const Vec n = Round(Mul(x, Set(kLog2E)));
  const Vec f = NegMulAdd(n, Set(kLn2Low), NegMulAdd(n, Set(kLn2High), x));
  return MulPow2(Horner(f, kTaylor), n);
}

// scale * 2^t for -126 <= t <= 127 and a power of two `scale`, where the result is normal;
// elsewhere it is not defined, but for NaN. 2 ulp.
static TRINE_INLINE Vec Exp2Fast(Vec t, float scale) {
  const float c[] = {0.0013269535f * scale, 0.009671292f * scale, 0.05550711f * scale,
                     0.24022247f * scale,   0.693147f * scale,    scale};
  const Vec n = Round(t);
  return MulPow2Fast(Horner(Sub(t, n), c), n);
}

// log2(2 Phi(-a)) for 0 <= a <= 10, Phi the normal distribution function.
static TRINE_INLINE Vec Log2Tail(Vec a) {
  constexpr float kTail[] = {3.2038204e-07f,  -6.660087e-06f, 5.7072564e-05f,
                             -0.00022579102f, -9.459086e-05f, 0.0070490544f,
                             -0.05250411f,    -0.45920196f,   -1.1511061f};
  return Mul(a, Horner(a, kTail));
}

// 2 ulp. Near 0 a polynomial, elsewhere 1 - 2 / (e^2|x| + 1).
static TRINE_INLINE Vec Tanh(Vec x) {
  constexpr float kNearZero[] = {0.0020106686f, -0.008028398f, 0.02163869f,
                                 -0.053935144f, 0.13333112f,   -0.33333328f};
  const Vec a = Abs(x);
  const Vec x2 = Mul(x, x);
  const Vec near = MulAdd(Mul(x, x2), Horner(x2, kNearZero), x);
  const Vec far = Sub(Set(1.0f), Div(Set(2.0f), Add(Exp(Add(a, a)), Set(1.0f))));
  return IfThenElse(Lt(a, Set(0.65f)), near, CopySign(far, x));
}

// 1 / (1 + e^-x), from e^-|x| so that the lower tail keeps its digits. 3 ulp.
static TRINE_INLINE Vec Sigmoid(Vec x) {
  const Vec e = Exp(Neg(Abs(x)));
  const Vec one = Set(1.0f);
  return Div(IfThenElse(Lt(x, Zero()), e, one), Add(one, e));
}

// x Phi(x) = max(x, 0) - |x| Phi(-|x|): the tail is computed as a tail, so negative x lose no
// digits to 1 + erf. 12 ulp (8 with FMA) + 1e-9 abs. About 22 instructions a vector.
static TRINE_INLINE Vec Gelu(Vec x) {
  const Vec a = Min(Set(10.0f), Abs(x));
  return NegMulAdd(a, Exp2Fast(Log2Tail(a), 0.5f), Max(Zero(), x));
}

// x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3), which is 0.5 x (1 + tanh u). 3 ulp + 3e-8
// |x| abs.
static TRINE_INLINE Vec GeluTanh(Vec x) {
  const Vec a = Max(Set(-11.0f), x);  // e^-2u overflows there; keeps -inf * 0 away
  const Vec u2 = Mul(a, MulAdd(Mul(a, a), Set(0.07135481627f), Set(1.595769122f)));
  return Mul(a, Sigmoid(u2));
}

// 4 ulp + 1e-40 abs: denormal results lose what the sigmoid lost.
static TRINE_INLINE Vec Silu(Vec x) { return Mul(Max(Set(-104.0f), x), Sigmoid(x)); }

// x / (1 + e^-1.702x). 3 ulp + 1e-8 |x| abs.
static TRINE_INLINE Vec QuickGelu(Vec x) {
  const Vec a = Max(Set(-64.0f), x);
  return Mul(a, Sigmoid(Mul(a, Set(1.702f))));
}

// With a constant `activation` the switch is gone: callers branch once, outside their loops.
static TRINE_INLINE Vec Activate(Vec x, Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return Gelu(x);
    case Activation::kGeluTanh:
      return GeluTanh(x);
    case Activation::kRelu:
      return Max(Zero(), x);
    case Activation::kTanh:
      return Tanh(x);
    case Activation::kSigmoid:
      return Sigmoid(x);
    case Activation::kSilu:
      return Silu(x);
    case Activation::kQuickGelu:
      return QuickGelu(x);
  }
  return x;
}
