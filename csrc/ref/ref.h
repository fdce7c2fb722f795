// SPDX-License-Identifier: Apache-2.0
// One plain loop per op, in double, rounded to float once at the end: the specification of every
// op. No SIMD, no threads, no blocking, no cleverness. Kernels are tested against these.
#pragma once

#include "exec/args.h"

namespace trine::ref {

// Here `w` is row-major [n][k], as in the checkpoint.
void linear(const LinearArgs& args) noexcept;
void linear_bf16(const LinearArgs& args) noexcept;
void attention(const AttentionArgs& args);
void layer_norm(const LayerNormArgs& args) noexcept;
void rms_norm(const RmsNormArgs& args) noexcept;
void rotary(const RotaryArgs& args) noexcept;
void rope(const RopeArgs& args) noexcept;
void gated(const GatedArgs& args) noexcept;
void scale(const ScaleArgs& args) noexcept;
void embedding(const EmbeddingArgs& args) noexcept;
void activation(const ActivationArgs& args) noexcept;
void add(const AddArgs& args) noexcept;
void pool(const PoolArgs& args) noexcept;
void l2_normalize(const L2NormalizeArgs& args) noexcept;
void relative_bias(const RelativeBiasArgs& args);

// One number, for `linear` and `activation`.
double activate(double x, Activation activation) noexcept;

}  // namespace trine::ref
