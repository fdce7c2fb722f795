// SPDX-License-Identifier: Apache-2.0
// linear in bf16 for many rows on Hopper: wgmma on tiles that TMA brings, for sm_90a alone.
//
// Tile 128 x 192, a block of three warpgroups for each multiprocessor: one thread of the first
// issues copies, the others have 64 rows each. 96 registers of a thread take a chunk's sums (see
// linear_mma.cuh), 96 what was added of earlier chunks; 192 columns are as many as that leaves room
// for, and divide the widths of most models. Narrower tiles are for products that would leave
// multiprocessors without work. wgmma reads 8 KB of shared memory for 96 clocks of
// work: 85 of 128 bytes a clock. From L2 a tile needs 53 bytes a clock, more than comes: so two
// blocks of a cluster have rows below each other and share the rows of w, of which each fetches
// half for both (37 bytes a clock).
// Blocks stay and take tile after tile, so that copies for the next one run while sums of this one
// are finished and stored; the ring lets one warpgroup run ahead of the other, whose products then
// fill the time.
//
// wgmma adds 16 products at a time to a sum, as mma.m16n8k16 does, with the same bits: tested, not
// promised by the manual (test_linear.cc).
#pragma once

#include <cuda.h>

#include "kernels/linear_epilogue.cuh"
#include "kernels/linear_mma.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900 && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#error "wgmma needs -gencode arch=compute_90a,code=sm_90a"
#endif

namespace trine::cuda::hopper {

inline constexpr int kRows = 128;
inline constexpr int kWarpgroup = 128, kThreads = 3 * kWarpgroup;
inline constexpr int kDepth = Operand<bf16>::kPerStage;  // of K in a stage

template <int cols, int stages, int cluster>
struct HopperTile {
  static constexpr int kCols = cols, kStages = stages, kCluster = cluster;
  static constexpr int kXBytes = kRows * kStageBytes;
  static constexpr int kTileBytes = kXBytes + cols * kStageBytes;
  // Stages begin at multiples of 1024 bytes, where the swizzle's pattern does.
  static constexpr int kSharedBytes = stages * kTileBytes + 1024;
};

TRINE_DEV void barrier_init(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(count));
}

TRINE_DEV void barrier_expect(uint64_t* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

// Until the phase of this parity is over.
TRINE_DEV void barrier_wait(uint64_t* barrier, int parity) {
  asm volatile(
      "{.reg .pred done;\n"
      "wait:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra wait;}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

TRINE_DEV void barrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

// At the same barrier in block `rank` of the cluster. No .release.cluster: that is a fence of the
// whole GPU, and what is told here, that reads by wgmma are over, needs none.
TRINE_DEV void barrier_arrive(uint64_t* barrier, int rank) {
  asm volatile(
      "{.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];}" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}

TRINE_DEV void copy_tile(void* to, const CUtensorMap* map, uint64_t* barrier, int k, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(k), "r"(row)
      : "memory");
}

// To the same place of both blocks of a cluster, whose own barriers are told.
TRINE_DEV void copy_tile_to_both(void* to, const CUtensorMap* map, uint64_t* barrier, int k,
                                 int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(k), "r"(row), "h"(uint16_t{3})
      : "memory");
}

TRINE_DEV void cluster_sync() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

// A K-major operand with rows of 128 swizzled bytes; eight rows are 1024 bytes.
TRINE_DEV uint64_t descriptor(const void* p) {
  return (shared_address(p) & 0x3ffff) >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}

// c = a b^T, or c += a b^T, asynchronously: 64 rows, 16 of K, and two columns for each of c.
TRINE_DEV void wgmma_k16(float (&c)[32], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %34, 0; "
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, p, 1, 1, 0, 0;}"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),
        "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),
        "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]),
        "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]),
        "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
      : "l"(a), "l"(b), "r"(add));
}

TRINE_DEV void wgmma_k16(float (&c)[64], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %66, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, p, 1, 1, 0, 0;}"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),
        "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),
        "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]),
        "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]),
        "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]),
        "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]),
        "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), "+f"(c[48]),
        "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]),
        "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]),
        "+f"(c[63])
      : "l"(a), "l"(b), "r"(add));
}

TRINE_DEV void wgmma_k16(float (&c)[96], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %98, 0; "
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
      "%96, %97, p, 1, 1, 0, 0;}"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),
        "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),
        "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]),
        "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]),
        "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]),
        "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]),
        "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), "+f"(c[48]),
        "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]),
        "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]),
        "+f"(c[63]), "+f"(c[64]), "+f"(c[65]), "+f"(c[66]), "+f"(c[67]), "+f"(c[68]), "+f"(c[69]),
        "+f"(c[70]), "+f"(c[71]), "+f"(c[72]), "+f"(c[73]), "+f"(c[74]), "+f"(c[75]), "+f"(c[76]),
        "+f"(c[77]), "+f"(c[78]), "+f"(c[79]), "+f"(c[80]), "+f"(c[81]), "+f"(c[82]), "+f"(c[83]),
        "+f"(c[84]), "+f"(c[85]), "+f"(c[86]), "+f"(c[87]), "+f"(c[88]), "+f"(c[89]), "+f"(c[90]),
        "+f"(c[91]), "+f"(c[92]), "+f"(c[93]), "+f"(c[94]), "+f"(c[95])
      : "l"(a), "l"(b), "r"(add));
}

TRINE_DEV void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
TRINE_DEV void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending>
TRINE_DEV void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// What is kept between iterations: the next slot, and the parity of its barriers' phase.
template <class Tile>
struct Turn {
  int slot = 0, parity = 0;
  TRINE_DEV void next() {
    if (++slot == Tile::kStages) slot = 0, parity ^= 1;
  }
};

// The tiles of a cluster's blocks are below each other; clusters take every `step`-th such group.
template <class Tile>
struct Schedule {
  int rows, cols, first, step, rank, stages;

  TRINE_DEV explicit Schedule(const LinearParams& p) {
    constexpr int kHeight = kRows * Tile::kCluster;
    rows = (p.m + kHeight - 1) / kHeight, cols = (p.n + Tile::kCols - 1) / Tile::kCols;
    first = static_cast<int>(blockIdx.x) / Tile::kCluster;
    step = static_cast<int>(gridDim.x) / Tile::kCluster;
    rank = static_cast<int>(blockIdx.x) % Tile::kCluster;
    stages = (p.k + kDepth - 1) / kDepth;
  }
  TRINE_DEV bool has(int t) const { return t < rows * cols; }
  // Its first row and column.
  TRINE_DEV TilePlace place(int t) const {
    const TilePlace at = tile_place(t, rows, cols);
    return {(at.row * Tile::kCluster + rank) * kRows, at.col * Tile::kCols};
  }
};

// One thread fills the ring.
template <class Tile>
TRINE_DEV void produce(const Schedule<Tile>& schedule, unsigned char* ring, uint64_t* full,
                       uint64_t* empty, const CUtensorMap* x_map, const CUtensorMap* w_map) {
  constexpr int kShare = Tile::kCols / Tile::kCluster;
  Turn<Tile> turn;
  for (int t = schedule.first; schedule.has(t); t += schedule.step) {
    const TilePlace at = schedule.place(t);
    for (int s = 0; s < schedule.stages; ++s, turn.next()) {
      uint64_t* barrier = full + turn.slot;
      unsigned char* stage = ring + turn.slot * Tile::kTileBytes;
      barrier_wait(empty + turn.slot, turn.parity ^ 1);
      barrier_expect(barrier, Tile::kTileBytes);
      copy_tile(stage, x_map, barrier, s * kDepth, at.row);
      unsigned char* w = stage + Tile::kXBytes;
      if constexpr (Tile::kCluster == 1) {
        copy_tile(w, w_map, barrier, s * kDepth, at.col);
      } else {
        copy_tile_to_both(w + schedule.rank * kShare * kStageBytes, w_map, barrier, s * kDepth,
                          at.col + schedule.rank * kShare);
      }
    }
  }
}

// Bias for each of a thread's columns, two of every 8: what sums start from.
template <int sums>
TRINE_DEV void start_from_bias(float (&sum)[sums], const LinearParams& p, int col0, int lane) {
#pragma unroll
  for (int j = 0; j < sums / 4; ++j) {
    const int col = col0 + j * 8 + lane % 4 * 2;
    float2 bias = make_float2(0.0f, 0.0f);
    if (p.bias != nullptr && col < p.n) bias = *reinterpret_cast<const float2*>(p.bias + col);
    sum[j * 4] = sum[j * 4 + 2] = bias.x, sum[j * 4 + 1] = sum[j * 4 + 3] = bias.y;
  }
}

// The second warpgroup starts its first tile when the first is a few stages ahead, and stays that
// far behind: while one finishes a tile, the other has products for the tensor cores.
TRINE_DEV void lead_wait() { asm volatile("bar.sync 1, 256;" ::: "memory"); }
TRINE_DEV void lead_arrive() { asm volatile("bar.arrive 1, 256;" ::: "memory"); }

// Adds a warpgroup's products of one tile to `sum`, from `x_offset` bytes into its stages. Arrives
// at the other's barrier when stage `lead` was issued.
template <class Tile>
TRINE_DEV void consume(const LinearParams& p, int stages, const unsigned char* ring, uint64_t* full,
                       uint64_t* empty, int x_offset, int lead, Turn<Tile>& turn,
                       float (&sum)[Tile::kCols / 2]) {
  float c[Tile::kCols / 2];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto release = [&](int slot) {
    if constexpr (Tile::kCluster == 1) {
      if (lane == 0) barrier_arrive(empty + slot);
    } else {
      if (lane < Tile::kCluster) barrier_arrive(empty + slot, lane);
    }
  };
  for (int first = 0; first < stages; first += p.chunk) {
    const int last = first + p.chunk < stages ? first + p.chunk : stages;
    int before = 0;
    for (int s = first; s < last; ++s, turn.next()) {
      barrier_wait(full + turn.slot, turn.parity);
      const unsigned char* stage = ring + turn.slot * Tile::kTileBytes;
      const uint64_t a = descriptor(stage + x_offset), b = descriptor(stage + Tile::kXBytes);
      wgmma_fence();
#pragma unroll
      for (int step = 0; step < kStageBytes / 32; ++step) {
        wgmma_k16(c, a + step * 2, b + step * 2, s > first || step > 0);
      }
      wgmma_commit();
      if (s == lead) lead_arrive();
      if (s > first) {
        wgmma_wait<1>();
        release(before);
      }
      before = turn.slot;
    }
    wgmma_wait<0>();
    release(before);
#pragma unroll
    for (float& value : c) asm volatile("" : "+f"(value)::"memory");
#pragma unroll
    for (int i = 0; i < Tile::kCols / 2; ++i) sum[i] += c[i];
  }
}

// Two sums of a row in each of two neighbouring groups of 8 columns become four sums of one: lanes
// trade with their neighbours, the even ones keep the first group. So stores are of 8 or 16 bytes,
// and what a row of lanes writes fills sectors.
TRINE_DEV void trade(float& low, float& high, bool odd) {
  const float other = __shfl_xor_sync(0xffffffffu, odd ? low : high, 1);
  low = odd ? other : low;
  high = odd ? high : other;
}

TRINE_DEV void load_raw(float (&v)[4], const bf16* p) {
  const uint2 r = *reinterpret_cast<const uint2*>(p);
  v[0] = low_bf16(r.x), v[1] = high_bf16(r.x), v[2] = low_bf16(r.y), v[3] = high_bf16(r.y);
}
TRINE_DEV void load_raw(float (&v)[4], const float* p) {
  const float4 r = *reinterpret_cast<const float4*>(p);
  v[0] = r.x, v[1] = r.y, v[2] = r.z, v[3] = r.w;
}
TRINE_DEV void store_raw(const float (&v)[4], bf16* p) {
  *reinterpret_cast<uint2*>(p) = make_uint2(pack2_bf16(v[0], v[1]), pack2_bf16(v[2], v[3]));
}
TRINE_DEV void store_raw(const float (&v)[4], float* p) {
  *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
}

// No branches but predicates of loads and stores, so that all of them can be under way at once.
template <class Y, bool kResidual, int sums>
TRINE_DEV void store_tile(const LinearParams& p, const float (&sum)[sums], int row0, int col0,
                          int lane) {
  const bool odd = lane & 1;
  const int row = row0 + lane / 4, col = col0 + (lane & 1) * 8 + (lane & 2) * 2;
  Y* y = static_cast<Y*>(p.y) + row * p.ldy + col;
  const Y* residual = static_cast<const Y*>(p.residual) + row * p.ldr + col;
#pragma unroll
  for (int j = 0; j < sums / 4; j += 2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool inside = row + half * 8 < p.m && col + j * 8 < p.n;
      const int i = j * 4 + half * 2;
      float r[4] = {}, v[4] = {sum[i], sum[i + 1], sum[i + 4], sum[i + 5]};
      if (kResidual && inside) load_raw(r, residual + half * 8 * p.ldr + j * 8);
      trade(v[0], v[2], odd);
      trade(v[1], v[3], odd);
      if (kResidual) {
#pragma unroll
        for (int e = 0; e < 4; ++e) v[e] += r[e];
      }
      if (inside) store_raw(v, y + half * 8 * p.ldy + j * 8);
    }
  }
}

// kAny: the activation is p's.
template <Activation activation, bool kAny, int sums>
TRINE_DEV void finish(const LinearParams& p, float (&sum)[sums], int row0, int col0, int lane) {
#pragma unroll
  for (int i = 0; i < sums; i += 4) {
    float v[4] = {sum[i], sum[i + 1], sum[i + 2], sum[i + 3]};
    activate<true>(v, kAny ? p.activation : activation);
    sum[i] = v[0], sum[i + 1] = v[1], sum[i + 2] = v[2], sum[i + 3] = v[3];
  }
  const bool residual = p.residual != nullptr;
  if (p.y_is_bf16) {
    residual ? store_tile<bf16, true>(p, sum, row0, col0, lane)
             : store_tile<bf16, false>(p, sum, row0, col0, lane);
  } else {
    residual ? store_tile<float, true>(p, sum, row0, col0, lane)
             : store_tile<float, false>(p, sum, row0, col0, lane);
  }
}

// All threads of the cluster.
template <class Tile>
TRINE_DEV void sync_all() {
  if constexpr (Tile::kCluster == 1) {
    __syncthreads();
  } else {
    cluster_sync();
  }
}

// nvcc refuses clusters where there are none.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define TRINE_CLUSTER(blocks) __cluster_dims__(blocks, 1, 1)
#else
#define TRINE_CLUSTER(blocks)
#endif

template <class Tile, Activation activation, bool kAny>
__global__ void TRINE_CLUSTER(Tile::kCluster) __launch_bounds__(kThreads, 1)
    linear_hopper(const LinearParams p, const __grid_constant__ CUtensorMap x_map,
                  const __grid_constant__ CUtensorMap w_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  TRINE_DYNAMIC_SHARED(unsigned char, shared);
  __shared__ uint64_t full[Tile::kStages], empty[Tile::kStages];
  unsigned char* ring = shared + (1024 - shared_address(shared) % 1024) % 1024;
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  const Schedule<Tile> schedule(p);

  if (threadIdx.x == 0) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&x_map) : "memory");
    asm volatile("prefetch.tensormap [%0];" ::"l"(&w_map) : "memory");
    for (int s = 0; s < Tile::kStages; ++s) {
      barrier_init(full + s, 1);
      barrier_init(empty + s, 8 * Tile::kCluster);  // a lane of each consuming warp
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  sync_all<Tile>();

  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 0) produce(schedule, ring, full, empty, &x_map, &w_map);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup, row = (warpgroup - 1) * 64;
    const bool several = schedule.has(schedule.first + schedule.step);
    const int ahead = schedule.stages < Tile::kStages - 1 ? schedule.stages : Tile::kStages - 1;
    int lead = several && warpgroup == 1 ? ahead - 1 : -1;
    if (several && warpgroup == 2) lead_wait();
    Turn<Tile> turn;
    for (int t = schedule.first; schedule.has(t); t += schedule.step, lead = -1) {
      const TilePlace at = schedule.place(t);
      float sum[Tile::kCols / 2];
      start_from_bias(sum, p, at.col, thread % 32);
      consume(p, schedule.stages, ring, full, empty, row * kStageBytes, lead, turn, sum);
      finish<activation, kAny>(p, sum, at.row + row + thread / 32 * 16, at.col, thread % 32);
    }
  }
  sync_all<Tile>();  // no block leaves while the other may write to it
#else
  __trap();  // linear_runs() says no on other chips
#endif
}

}  // namespace trine::cuda::hopper
