// SPDX-License-Identifier: Apache-2.0
// One plain loop per op, in double, rounded to float once at the end: the specification of every
// op. No SIMD, no threads, no blocking, no cleverness. Kernels are tested against these.
#pragma once

#include <vector>

#include "exec/args.h"

namespace trine::ref {

// Here `w` is row-major [n][k], as in the checkpoint.
void linear(const LinearArgs& args) noexcept;
void linear_bf16(const LinearArgs& args) noexcept;
// Rows of w are int8::row_bytes(k) apart; the scale is behind the integers.
void linear_int8(const LinearArgs& args) noexcept;
// Here `w` is row-major [n][groups_of(k)] of Group, of 4 bits or 8.
void linear_groups(const LinearArgs& args) noexcept;
void attention(const AttentionArgs& args);
void attention_bf16(const AttentionArgs& args);
// What attention_bf16 rounds and multiplies values with: exp(score - largest of the row) for each
// key that a token of sequence b sees with head h.
std::vector<double> attention_weights_bf16(const AttentionArgs& args, int32_t b, int64_t h,
                                           int64_t token);
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
