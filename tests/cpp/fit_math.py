# SPDX-License-Identifier: Apache-2.0
"""Where the coefficients of csrc/cpu/kernels/math-inl.h come from; needs numpy only.

Each function is fitted in the minimax sense (Lawson's iteration: least squares whose weights grow
where the error is large). Coefficients are rounded to float one at a time, lowest power first, and
the others fitted again, so that the rounding of one is made good by the next.
"""

import math

import numpy as np


def lawson(x, f, weight, powers, iterations=150):
    """Minimise max |weight * (sum_p c_p x^p - f)|; returns the error and the c_p."""
    a = np.stack([x**p for p in powers], 1)
    scale = np.abs(a).max(0)
    importance = np.ones_like(x)
    best_error, best = math.inf, None
    for _ in range(iterations):
        w = np.sqrt(importance) * weight
        c = np.linalg.lstsq(a / scale * w[:, None], f * w, rcond=None)[0] / scale
        error = np.abs(weight * (a @ c - f))
        if error.max() < best_error:
            best_error, best = error.max(), c
        importance *= error / error.max() + 1e-12
        importance /= importance.sum()
    return best_error, best


def fit(name, x, f, *, weight, powers, fixed=()):
    """Fit sum c_p x^p to f, with the first coefficients fixed; print floats, lowest power first."""
    powers, coefficients = list(powers), list(fixed)
    while len(coefficients) < len(powers):
        done = len(coefficients)
        rest = f - sum(
            (c * x**p for c, p in zip(coefficients, powers, strict=False)), np.zeros_like(x)
        )
        c = lawson(x, rest, weight, powers[done:])[1]
        coefficients.append(float(np.float32(c[0])))
    total = sum(c * x**p for c, p in zip(coefficients, powers, strict=False))
    print(f"{name}: weighted error {np.abs(weight * (total - f)).max():.3g}")
    print("   ", ", ".join(c_float(c) for c in coefficients))


def c_float(c):
    """The shortest decimal that reads back as this float."""
    text = str(np.float32(c))
    return (text if "." in text or "e" in text else text + ".0") + "f"


def nodes(low, high, count=1500):
    """Chebyshev nodes: dense at the ends, where minimax errors peak."""
    return (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(count) + 0.5) / count)


def main():
    """Print every polynomial."""
    half_ulp = 2.0**-24

    x = nodes(-0.5, 0.5)
    name = "Exp2Fast: 2^x, relative, over [-1/2, 1/2]"
    fit(name, x, 2**x, weight=2**-x / half_ulp, powers=range(6), fixed=[1.0])

    x = nodes(-0.3470, 0.3470)
    fit(
        "Exp: e^x, relative, over +-ln(2)/2",
        x,
        np.exp(x),
        weight=np.exp(-x) / half_ulp,
        powers=range(7),
        fixed=[1.0, 1.0],
    )

    x = nodes(1e-3, 0.65)
    f = (np.tanh(x) / x - 1) / x**2
    fit(
        "Tanh: (tanh(x) / x - 1) / x^2, |x| < 0.65",
        x,
        f,
        weight=x**3 / np.tanh(x) / half_ulp,
        powers=range(0, 12, 2),
    )

    # log2(2 Phi(-a)) / a, where Phi is the normal distribution function. What counts is
    # a * Phi(-a), gelu's distance from max(x, 0): an error of 2^-25 of its value or of 5e-10 is
    # worth 1.
    a = nodes(1e-9, 10.0, 3000)
    tail = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in a])
    weight = a * tail * math.log(2) * a / np.maximum(half_ulp / 2 * a * tail, 5e-10)
    fit("Log2Tail over [0, 10]", a, np.log2(2 * tail) / a, weight=weight, powers=range(9))


if __name__ == "__main__":
    main()
