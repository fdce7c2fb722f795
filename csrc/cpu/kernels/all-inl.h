// SPDX-License-Identifier: Apache-2.0
// Every kernel of one instruction set: included by csrc/cpu/isa/<isa>.cc inside the namespace of
// its Vec.

#include "cpu/kernels/math-inl.h"
#include "cpu/kernels/rows-inl.h"

#include "cpu/kernels/linear-inl.h"
#include "cpu/kernels/linear_bf16-inl.h"
#include "cpu/kernels/linear_int4-inl.h"
#include "cpu/kernels/linear_int8-inl.h"

#include "cpu/kernels/attention_pack-inl.h"
#include "cpu/kernels/embedding-inl.h"

#include "cpu/kernels/attention_layout-inl.h"

#include "cpu/kernels/activation-inl.h"
#include "cpu/kernels/add-inl.h"
#include "cpu/kernels/attention-inl.h"
#include "cpu/kernels/attention_cached-inl.h"
#include "cpu/kernels/gated-inl.h"
#include "cpu/kernels/l2_normalize-inl.h"
#include "cpu/kernels/layer_norm-inl.h"
#include "cpu/kernels/pool-inl.h"
#include "cpu/kernels/rms_norm-inl.h"
#include "cpu/kernels/rope-inl.h"
#include "cpu/kernels/rotary-inl.h"
#include "cpu/kernels/scale-inl.h"

static constexpr KernelTable all_kernels(Isa isa, const char* name) {
  return {
      isa,
      name,
      kLinear,
      kLinearBF16,
      int8_kernel<WidenedInt8Format>(),
      group_kernels<Dots>(),
      attention_kernel<Float32Format>(),
      attention_kernel<WidenedFormat>(),
      layer_norm,
      embedding,
      activation,
      add,
      pool,
      l2_normalize,
      rms_norm,
      rotary,
      rope,
      gated,
      scale,
  };
}
