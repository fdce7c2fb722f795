// SPDX-License-Identifier: Apache-2.0
#include "cuda/probe_dialect.h"

#include "kernels/dialect.h"

namespace trine::cuda {
namespace {

TRINE_GLOBAL void multiply_bf16(MmaOperands* p, bool by_shuffles) {
  const int l = static_cast<int>(threadIdx.x);
  float c[4];
  uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) c[i] = p->c[l][i], a[i] = p->a[l][i];
  for (int i = 0; i < 2; ++i) b[i] = p->b[l][i];
  if (by_shuffles) {
    mma_m16n8k16_bf16_by_shuffles(c, a, b);
  } else {
    mma_m16n8k16_bf16(c, a, b);
  }
  for (int i = 0; i < 4; ++i) p->c[l][i] = c[i];
}

TRINE_GLOBAL void multiply_tf32(MmaOperands* p, bool by_shuffles) {
  const int l = static_cast<int>(threadIdx.x);
  float c[4];
  uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) c[i] = p->c[l][i], a[i] = p->a[l][i];
  for (int i = 0; i < 2; ++i) b[i] = p->b[l][i];
  if (by_shuffles) {
    mma_m16n8k8_tf32_by_shuffles(c, a, b);
  } else {
    mma_m16n8k8_tf32(c, a, b);
  }
  for (int i = 0; i < 4; ++i) p->c[l][i] = c[i];
}

template <bool kUnsignedB>
TRINE_GLOBAL void multiply_bytes(ByteMmaOperands* p, bool by_quarters) {
  const int l = static_cast<int>(threadIdx.x);
  int32_t c[4];
  uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) c[i] = p->c[l][i], a[i] = p->a[l][i];
  for (int i = 0; i < 2; ++i) b[i] = p->b[l][i];
  if (by_quarters) {
    mma_m16n8k32_by_quarters<kUnsignedB>(c, a, b);
  } else {
    mma_m16n8k32<kUnsignedB>(c, a, b);
  }
  for (int i = 0; i < 4; ++i) p->c[l][i] = c[i];
}

template <int matrices, bool trans>
TRINE_GLOBAL void load(LoadedMatrices* p) {
  // Rows lie apart and out of order, as kernels' do.
  TRINE_SHARED(uint16_t, rows, 32 * 24);
  const int l = static_cast<int>(threadIdx.x), place = (l * 11 + 5) % 32 * 24;
  for (int i = 0; i < 8; ++i) rows[place + i] = p->rows[l][i];
  __syncthreads();
  uint32_t r[matrices];
  if constexpr (matrices == 1) {
    trans ? ldmatrix_x1_trans(r, rows + place) : ldmatrix_x1(r, rows + place);
  } else if constexpr (matrices == 2) {
    trans ? ldmatrix_x2_trans(r, rows + place) : ldmatrix_x2(r, rows + place);
  } else {
    trans ? ldmatrix_x4_trans(r, rows + place) : ldmatrix_x4(r, rows + place);
  }
  for (int i = 0; i < matrices; ++i) p->registers[l][i] = r[i];
}

TRINE_GLOBAL void copy(Copied* p) {
  TRINE_DYNAMIC_SHARED(uint4, rows);
  const int l = static_cast<int>(threadIdx.x);
  cp_async16(rows + l, p->from[l]);
  cp_async_commit();
  cp_async16_zfill(rows + 32 + l, p->from[32 + l], p->valid[32 + l] != 0);
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  const int other = 31 - l;
  *reinterpret_cast<uint4*>(p->to[other]) = rows[other];
  cp_async_wait<0>();
  __syncthreads();
  *reinterpret_cast<uint4*>(p->to[32 + other]) = rows[32 + other];
}

TRINE_GLOBAL void convert(Converted p) {
  for (int i = static_cast<int>(threadIdx.x); i < p.n; i += 32) {
    const float x = p.x[i];
    p.tf32[i] = to_tf32(x);
    p.tf32_twin[i] = tf32_bits(x);
    p.pair[i] = pack2_bf16(x, -x);
    p.pair_twin[i] = bf16_bits(-x) << 16 | bf16_bits(x);
    p.exp[i] = fast_exp(x);
    p.exp2[i] = fast_exp2(x);
    p.tanh[i] = fast_tanh(x);
  }
}

TRINE_GLOBAL void warp_operations(int* out) {
  const int t = static_cast<int>(threadIdx.x);
  out[t] = __shfl_xor_sync(0xffffffffu, t, 5);
  out[32 + t] = __shfl_down_sync(0xffffffffu, t, 3, 8);
  out[64 + t] = __shfl_sync(0xffffffffu, t, 9, 8);
  out[96 + t] = static_cast<int>(__ballot_sync(0xffffffffu, t % 3 == 0));
  out[128 + t] = __any_sync(0xffffffffu, t == 7) + 2 * __all_sync(0xffffffffu, t < 31);
  const double wide = __shfl_sync(0xffffffffu, t + 0.5, 30);
  out[160 + t] = static_cast<int>(wide * 2);
  // The halves of a warp may go their own ways.
  out[192 + t] = t < 16 ? __shfl_sync(0xffffu, t, 3) : __shfl_sync(0xffff0000u, t, 20);
}

}  // namespace

void probe_mma_bf16(MmaOperands* operands, bool by_shuffles) {
  TRINE_LAUNCH(multiply_bf16, dim3(1), dim3(32), 0, nullptr, operands, by_shuffles);
}

void probe_mma_tf32(MmaOperands* operands, bool by_shuffles) {
  TRINE_LAUNCH(multiply_tf32, dim3(1), dim3(32), 0, nullptr, operands, by_shuffles);
}

void probe_mma_bytes(ByteMmaOperands* operands, bool unsigned_b, bool by_quarters) {
  if (unsigned_b) {
    TRINE_LAUNCH(multiply_bytes<true>, dim3(1), dim3(32), 0, nullptr, operands, by_quarters);
  } else {
    TRINE_LAUNCH(multiply_bytes<false>, dim3(1), dim3(32), 0, nullptr, operands, by_quarters);
  }
}

void probe_ldmatrix(LoadedMatrices* loaded, int matrices, bool trans) {
  switch (matrices * 2 + (trans ? 1 : 0)) {
    case 2:
      TRINE_LAUNCH((load<1, false>), dim3(1), dim3(32), 0, nullptr, loaded);
      break;
    case 3:
      TRINE_LAUNCH((load<1, true>), dim3(1), dim3(32), 0, nullptr, loaded);
      break;
    case 4:
      TRINE_LAUNCH((load<2, false>), dim3(1), dim3(32), 0, nullptr, loaded);
      break;
    case 5:
      TRINE_LAUNCH((load<2, true>), dim3(1), dim3(32), 0, nullptr, loaded);
      break;
    case 8:
      TRINE_LAUNCH((load<4, false>), dim3(1), dim3(32), 0, nullptr, loaded);
      break;
    case 9:
      TRINE_LAUNCH((load<4, true>), dim3(1), dim3(32), 0, nullptr, loaded);
      break;
  }
}

void probe_copies(Copied* copied) {
  TRINE_LAUNCH(copy, dim3(1), dim3(32), 64 * 16, nullptr, copied);
}

void probe_conversions(const Converted& converted) {
  TRINE_LAUNCH(convert, dim3(1), dim3(32), 0, nullptr, converted);
}

void probe_warp(int* out) { TRINE_LAUNCH(warp_operations, dim3(1), dim3(32), 0, nullptr, out); }

}  // namespace trine::cuda
