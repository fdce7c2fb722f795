// SPDX-License-Identifier: Apache-2.0
// attention_bench [part of a name]...: time, rate and share of the limit of attention as models
// have it. Each case is captured in a graph of 16 launches (of decoding: of as many layers, so that
// no key is in a cache); times are medians of 15 replays. attention_torch.py has the same cases for
// PyTorch.
//
// FLOP are 4 * head_dim a (query, key) pair and head, half of them with a causal mask, twice as
// many with position tables, padding and tiles' edges not counted. The limits are the data sheet's:
// 989 TFLOP/s of bfloat16, 165 of float as three products of tf32, 3.35 TB/s.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "exec/distances.h"
#include "kernels/attention.h"

namespace trine::cuda {
namespace {

void check(cudaError_t error, const char* text) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", text, cudaGetErrorString(error));
  std::exit(1);
}
#define CHECK(call) check((call), #call)

// Device memory, with numbers in it that are no zeros.
class Memory {
 public:
  Memory(int64_t elements, DType dtype) {
    const int64_t bytes = elements * static_cast<int64_t>(size_of(dtype));
    CHECK(cudaMalloc(&data_, static_cast<size_t>(bytes)));
    constexpr int64_t kPiece = 1 << 20;
    std::vector<unsigned char> piece(static_cast<size_t>(kPiece * 4));
    uint32_t state = 1;
    for (int64_t i = 0; i < kPiece; ++i) {
      state = state * 1664525 + 1013904223;
      const float value = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      if (dtype == DType::kBF16) bits >>= 16;
      std::memcpy(piece.data() + i * static_cast<int64_t>(size_of(dtype)), &bits, size_of(dtype));
    }
    const int64_t piece_bytes = kPiece * static_cast<int64_t>(size_of(dtype));
    for (int64_t at = 0; at < bytes; at += piece_bytes)
      CHECK(cudaMemcpy(static_cast<char*>(data_) + at, piece.data(),
                       static_cast<size_t>(std::min(piece_bytes, bytes - at)),
                       cudaMemcpyHostToDevice));
  }
  template <class T>
  explicit Memory(const std::vector<T>& host) {
    CHECK(cudaMalloc(&data_, host.size() * sizeof(T)));
    CHECK(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <class T = void>
  T* get() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

struct Case {
  const char* name;
  int heads, kv_heads, head_dim, batch, length;
  enum Mode { kPlain, kBias, kPositions, kCausal, kDecode } mode;
  DType dtype = DType::kBF16;
};

constexpr DType kF32 = DType::kF32;

const Case kCases[] = {
    {"plain 64 x 128", 12, 12, 64, 64, 128, Case::kPlain},
    {"plain 32 x 512", 12, 12, 64, 32, 512, Case::kPlain},
    {"plain 4 x 4096", 12, 12, 64, 4, 4096, Case::kPlain},
    {"plain f32 32 x 512", 12, 12, 64, 32, 512, Case::kPlain, kF32},
    {"mpnet 1 x 32", 12, 12, 64, 1, 32, Case::kBias},
    {"mpnet 64 x 128", 12, 12, 64, 64, 128, Case::kBias},
    {"mpnet 32 x 512", 12, 12, 64, 32, 512, Case::kBias},
    {"mpnet f32 32 x 512", 12, 12, 64, 32, 512, Case::kBias, kF32},
    {"deberta 1 x 32", 12, 12, 64, 1, 32, Case::kPositions},
    {"deberta 64 x 128", 12, 12, 64, 64, 128, Case::kPositions},
    {"deberta 32 x 512", 12, 12, 64, 32, 512, Case::kPositions},
    {"deberta 8 x 2048", 12, 12, 64, 8, 2048, Case::kPositions},
    {"deberta f32 32 x 512", 12, 12, 64, 32, 512, Case::kPositions, kF32},
    {"llama prefill 1 x 512", 32, 8, 64, 1, 512, Case::kCausal},
    {"llama prefill 1 x 2048", 32, 8, 64, 1, 2048, Case::kCausal},
    {"llama prefill 8 x 2048", 32, 8, 64, 8, 2048, Case::kCausal},
    {"llama prefill d128 4 x 2048", 32, 8, 128, 4, 2048, Case::kCausal},
    {"llama prefill f32 1 x 2048", 32, 8, 64, 1, 2048, Case::kCausal, kF32},
    {"llama decode 1 x 512", 32, 8, 64, 1, 512, Case::kDecode},
    {"llama decode 8 x 512", 32, 8, 64, 8, 512, Case::kDecode},
    {"llama decode 64 x 512", 32, 8, 64, 64, 512, Case::kDecode},
    {"llama decode 1 x 4096", 32, 8, 64, 1, 4096, Case::kDecode},
    {"llama decode 8 x 4096", 32, 8, 64, 8, 4096, Case::kDecode},
    {"llama decode 64 x 4096", 32, 8, 64, 64, 4096, Case::kDecode},
    {"llama decode f32 8 x 4096", 32, 8, 64, 8, 4096, Case::kDecode, kF32},
};

constexpr int kLaunches = 16;

// The median of replays, in microseconds a launch.
template <class Launch>
double time_of(const Launch& launch) {
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  launch(0, stream);
  CHECK(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kLaunches; ++i) launch(i, stream);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  std::vector<double> times;
  for (int i = 0; i < 18; ++i) {
    CHECK(cudaEventRecord(begin, stream));
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaEventRecord(end, stream));
    CHECK(cudaEventSynchronize(end));
    float ms;
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 3) times.push_back(1e3 * static_cast<double>(ms) / kLaunches);
  }
  CHECK(cudaGraphExecDestroy(exec));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
  CHECK(cudaStreamDestroy(stream));
  std::nth_element(times.begin(), times.begin() + long(times.size() / 2), times.end());
  return times[times.size() / 2];
}

void run(const Case& c) {
  const bool decode = c.mode == Case::kDecode, cached = decode || c.mode == Case::kCausal;
  const int fresh = decode ? 1 : c.length;
  const int64_t tokens = int64_t{c.batch} * fresh, width = int64_t{c.heads} * c.head_dim;
  const int64_t kv_width = int64_t{c.kv_heads} * c.head_dim, all = width + 2 * kv_width;
  Memory qkv(tokens * all, c.dtype), y(tokens * width, c.dtype);
  AttentionArgs a;
  a.q = {qkv.get(), all, c.dtype};
  const auto part = [&](int64_t column) {
    return Matrix{qkv.get<char>() + column * static_cast<int64_t>(size_of(c.dtype)), all, c.dtype};
  };
  a.k = part(width), a.v = part(width + kv_width);
  a.y = {y.get(), width, c.dtype};
  std::vector<int32_t> offsets;
  for (int b = 0; b <= c.batch; ++b) offsets.push_back(b * fresh);
  Memory device_offsets(offsets);
  a.batch = {device_offsets.get<int32_t>(), c.batch, static_cast<int32_t>(tokens), fresh};
  a.heads = c.heads, a.kv_heads = c.kv_heads, a.head_dim = c.head_dim;
  a.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  a.causal = cached;

  a.span = 512;
  Memory bias(int64_t{c.heads} * (2 * a.span - 1), kF32);
  if (c.mode == Case::kBias) a.bias = bias.get<float>();

  AttentionAttrs attrs;
  attrs.heads = attrs.kv_heads = c.heads;
  attrs.position_buckets = 256, attrs.max_relative_positions = 512;
  const Distances distances = position_rows(attrs);
  Memory tables(2 * 512 * width, c.dtype), position_at(distances.values);
  if (c.mode == Case::kPositions) {
    a.position_keys = {tables.get(), width, c.dtype};
    a.position_queries = {tables.get<char>() + 512 * width * int64_t(size_of(c.dtype)), width,
                          c.dtype};
    a.position_at = position_at.get<int32_t>() + (distances.center() - distances.values.data());
    a.reach = distances.reach;
    a.scale /= std::sqrt(3.0f);
  }

  const int pages = (c.length + KvPages::kTokens - 1) / KvPages::kTokens;
  const int64_t part_size = KvPages::kTokens * kv_width;
  const int layers = decode ? kLaunches : 1;
  Memory pool(cached ? c.batch * pages * layers * 2 * part_size : 1, c.dtype);
  std::vector<int32_t> table;
  for (int i = 0; i < c.batch * pages; ++i) table.push_back(i);
  uint32_t state = 7;
  for (size_t i = table.size(); i > 1; --i) {
    state = state * 1664525 + 1013904223;
    std::swap(table[i - 1], table[(state >> 8) % i]);
  }
  Memory device_table(table), past(std::vector<int32_t>(size_t(c.batch), c.length - fresh));
  if (cached) {
    a.cache.data = pool.get();
    a.cache.page_stride = layers * 2 * part_size;
    a.cache.table = device_table.get<int32_t>();
    a.cache.table_ld = pages;
    a.cache.past = past.get<int32_t>();
    a.cache.max_keys = c.length;
  }
  Memory workspace(attention_workspace(a) / 4 + 1, kF32);
  a.workspace = workspace.get();
  Memory counters(std::vector<int32_t>(size_t(attention_counters(a)) + 1, 0));
  a.counters = counters.get<int32_t>();

  const double us = time_of([&](int i, cudaStream_t stream) {
    a.cache.keys = i % layers * 2 * part_size;
    a.cache.values = a.cache.keys + part_size;
    CHECK(attention(a, stream));
  });
  if (decode) {
    const double bytes = 2.0 * c.batch * c.length * double(kv_width) * double(size_of(c.dtype));
    std::printf("%-30s %9.1f us %8.2f TB/s %5.1f %% of 3.35 TB/s\n", c.name, us, bytes / us * 1e-6,
                100 * bytes / us * 1e-6 / 3.35);
  } else {
    double flop = 4.0 * c.batch * double(width) * c.length * c.length;
    if (c.mode == Case::kCausal) flop *= 0.5 * (c.length + 1) / c.length;
    if (c.mode == Case::kPositions) flop *= 2;
    const double limit = c.dtype == kF32 ? 165 : 989, rate = flop / us * 1e-6;
    std::printf("%-30s %9.1f us %8.1f TFLOP/s %5.1f %% of %.0f\n", c.name, us, rate,
                100 * rate / limit, limit);
  }
  std::fflush(stdout);
}

}  // namespace
}  // namespace trine::cuda

int main(int argc, char** argv) {
  for (const trine::cuda::Case& c : trine::cuda::kCases) {
    bool wanted = argc == 1;
    for (int i = 1; i < argc; ++i) wanted |= std::string(c.name).find(argv[i]) != std::string::npos;
    if (wanted) trine::cuda::run(c);
  }
}
