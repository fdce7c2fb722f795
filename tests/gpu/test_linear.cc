// SPDX-License-Identifier: Apache-2.0
// linear on a GPU, or on the emulator with TRINE_SIMT: every tile against a sum in double, and bit
// for bit against each other, whatever the number of rows and a row's place among them.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "gpu/buffers.h"
#include "kernels/linear.h"
#include "ref/ref.h"
#include "weights/convert.h"

namespace trine::test {
namespace {

using cuda::LinearTile;

constexpr int kActivations = static_cast<int>(Activation::kQuickGelu) + 1;
constexpr const char* kTileNames[] = {"16x8",           "16x32",         "32x32",
                                      "64x64",          "128x128",       "hopper 128x64",
                                      "hopper 128x128", "hopper 128x192"};
static_assert(std::size(kTileNames) == cuda::kLinearTiles);

// Those of Hopper can be left out: racecheck ends with an error of its own in them.
bool runs(LinearTile tile, const cuda::LinearArgs& args) {
  static const bool has_hopper = std::getenv("TRINE_TEST_WITHOUT_HOPPER") == nullptr;
  return cuda::linear_runs(tile, args) &&
         (has_hopper || *kTileNames[static_cast<int>(tile)] != 'h');
}

// Bytes on the device between guards that a later `get` looks at.
class Buffer {
 public:
  Buffer(const void* data, size_t bytes, size_t misalign) : bytes_(bytes), misalign_(misalign) {
    std::vector<unsigned char> all(bytes + misalign + 2 * kGuard, kMark);
    if (bytes > 0) std::memcpy(all.data() + kGuard + misalign, data, bytes);
#ifdef TRINE_SIMT
    base_ = static_cast<unsigned char*>(std::aligned_alloc(kGuard, (all.size() + 255) / 256 * 256));
    std::memcpy(base_, all.data(), all.size());
#else
    void* base = nullptr;
    CHECK_EQ(cudaMalloc(&base, all.size()), cudaSuccess);
    base_ = static_cast<unsigned char*>(base);
    CHECK_EQ(cudaMemcpy(base_, all.data(), all.size(), cudaMemcpyHostToDevice), cudaSuccess);
#endif
  }
  ~Buffer() {
#ifdef TRINE_SIMT
    std::free(base_);
#else
    cudaFree(base_);
#endif
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return base_ + kGuard + misalign_; }

  std::vector<unsigned char> get() const {
    std::vector<unsigned char> all(bytes_ + misalign_ + 2 * kGuard);
#ifdef TRINE_SIMT
    std::memcpy(all.data(), base_, all.size());
#else
    CHECK_EQ(cudaMemcpy(all.data(), base_, all.size(), cudaMemcpyDeviceToHost), cudaSuccess);
#endif
    const auto marked = [](unsigned char byte) { return byte == kMark; };
    CHECK(std::all_of(all.begin(), all.begin() + long(kGuard + misalign_), marked));
    CHECK(std::all_of(all.end() - long{kGuard}, all.end(), marked));
    return {all.begin() + long(kGuard + misalign_), all.end() - long{kGuard}};
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr unsigned char kMark = 0xff;  // NaN in every type
  size_t bytes_, misalign_;
  unsigned char* base_;
};

// A matrix of floats, on the host in double as the device has it.
struct HostMatrix {
  int64_t rows, cols, ld;
  DType dtype;
  std::vector<unsigned char> bytes;

  HostMatrix(int64_t rows_, int64_t cols_, int64_t ld_, DType dtype_)
      : rows(rows_),
        cols(cols_),
        ld(ld_),
        dtype(dtype_),
        bytes(static_cast<size_t>(rows_ * ld_) * size_of(dtype_), 0xff) {}

  double at(int64_t row, int64_t col) const {
    const size_t i = static_cast<size_t>(row * ld + col);
    if (dtype != DType::kF32) {
      uint16_t value;
      std::memcpy(&value, bytes.data() + 2 * i, 2);
      return double{half_to_f32(dtype, value)};
    }
    float value;
    std::memcpy(&value, bytes.data() + 4 * i, 4);
    return double{value};
  }
  void set(int64_t row, int64_t col, float value) {
    const size_t i = static_cast<size_t>(row * ld + col);
    if (dtype != DType::kF32) {
      const uint16_t bits = f32_to_half(dtype, value);
      std::memcpy(bytes.data() + 2 * i, &bits, 2);
    } else {
      std::memcpy(bytes.data() + 4 * i, &value, 4);
    }
  }
  void fill(std::mt19937& random, float scale) {
    std::normal_distribution<float> normal(0.0f, scale);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) set(i, j, normal(random));
    }
  }
};

struct Case {
  int64_t m, n, k;
  DType x = DType::kBF16, w = DType::kBF16, y = DType::kBF16;
  bool bias = true;
  std::optional<DType> residual = {};
  bool residual_is_y = false;
  Activation activation = Activation::kNone;
  int64_t gap = 0;      // columns between the rows of x, residual and y
  size_t misalign = 0;  // elements before the first
};

std::string name_of(const Case& c, LinearTile tile) {
  return cat("linear ", kTileNames[static_cast<int>(tile)], ", ", c.m, " x ", c.n, " x ", c.k, ", ",
             trine::name_of(c.x), " ", trine::name_of(c.w), " ", trine::name_of(c.y),
             c.bias ? ", bias" : "",
             c.residual ? cat(", residual ", trine::name_of(*c.residual)) : "",
             c.residual_is_y ? ", in place" : "", ", activation ", static_cast<int>(c.activation),
             ", gap ", c.gap, ", off by ", c.misalign);
}

// Inputs of a case, and its result: one set of values for all tiles and all parts of the rows.
struct Problem {
  Case c;
  HostMatrix x, w, residual, y;
  std::vector<float> bias;
  Buffer x_device, w_device, bias_device;

  static HostMatrix filled(int64_t rows, int64_t cols, int64_t ld, DType dtype, float scale,
                           unsigned seed) {
    HostMatrix matrix(rows, cols, ld, dtype);
    std::mt19937 random(seed);
    matrix.fill(random, scale);
    return matrix;
  }
  static HostMatrix weights(const Case& c) {
    HostMatrix w = filled(c.n, c.k, cuda::linear_ldw(c.w, c.k), c.w,
                          1.0f / std::sqrt(static_cast<float>(c.k)), 2);
    for (int64_t i = 0; i < c.n; ++i) {
      for (int64_t j = c.k; j < w.ld; ++j) w.set(i, j, 0.0f);
    }
    return w;
  }
  static std::vector<float> biases(int64_t n) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal;
    std::vector<float> bias(static_cast<size_t>(n));
    for (float& b : bias) b = normal(random);
    return bias;
  }

  explicit Problem(const Case& c_)
      : c(c_),
        x(filled(c.m, c.k, c.k + c.gap, c.x, 1.0f, 1)),
        w(weights(c)),
        residual(filled(c.m, c.n, c.n + c.gap, c.residual.value_or(c.y), 1.0f, 3)),
        y(c.m, c.n, c.n + c.gap, c.y),
        bias(biases(c.n)),
        x_device(x.bytes.data(), x.bytes.size(), c.misalign * size_of(c.x)),
        w_device(w.bytes.data(), w.bytes.size(), 0),
        bias_device(bias.data(), bias.size() * 4, c.misalign * 4) {}

  // Rows first .. first + m of y, as bytes; of what lies between them nothing may have changed.
  // Nothing if this tile doesn't run here.
  std::optional<HostMatrix> run(LinearTile tile, int64_t first, int64_t m) const {
    HostMatrix part(m, c.n, y.ld, c.y);
    HostMatrix r(m, c.n, residual.ld, residual.dtype);
    const size_t row_bytes = static_cast<size_t>(r.ld) * size_of(r.dtype);
    std::memcpy(r.bytes.data(), residual.bytes.data() + static_cast<size_t>(first) * row_bytes,
                r.bytes.size());
    if (c.residual_is_y) part.bytes = r.bytes;
    const Buffer y_device(part.bytes.data(), part.bytes.size(), c.misalign * size_of(c.y));
    const Buffer r_device(r.bytes.data(), r.bytes.size(), c.misalign * size_of(r.dtype));
    cuda::LinearArgs args = arguments(first, m);
    args.y = {y_device.data(), y.ld, c.y};
    if (c.residual) args.residual = {r_device.data(), r.ld, r.dtype};
    if (c.residual_is_y) args.residual = args.y;
    if (!runs(tile, args)) return std::nullopt;
    CHECK_EQ(cuda::linear(tile, args, nullptr), cudaSuccess);
#ifndef TRINE_SIMT
    CHECK_EQ(cudaDeviceSynchronize(), cudaSuccess);
#endif
    const std::vector<unsigned char> before = part.bytes;
    part.bytes = y_device.get();
    const size_t size = size_of(c.y);
    for (int64_t i = 0; i < m; ++i) {
      const size_t begin = static_cast<size_t>(i * y.ld + c.n) * size;
      CHECK(std::equal(before.begin() + long(begin),
                       before.begin() + long(begin + size_t(c.gap) * size),
                       part.bytes.begin() + long(begin)));
    }
    return part;
  }

  cuda::LinearArgs arguments(int64_t first, int64_t m) const {
    cuda::LinearArgs args;
    args.x = {static_cast<unsigned char*>(x_device.data()) +
                  static_cast<size_t>(first * x.ld) * size_of(c.x),
              x.ld, c.x};
    args.w = w_device.data(), args.ldw = w.ld, args.w_dtype = c.w;
    args.bias = c.bias ? static_cast<const float*>(bias_device.data()) : nullptr;
    args.y = {nullptr, y.ld, c.y};
    args.m = m, args.n = c.n, args.k = c.k;
    args.activation = c.activation;
    return args;
  }

  double operand(double x_value) const {
    return c.w == DType::kBF16 ? double{bf16_to_f32(f32_to_bf16(static_cast<float>(x_value)))}
                               : x_value;
  }
};

// What is left of products and sums, in units of `magnitude`, the sum of |x w|.
double product_error(const Case& c) {
#ifdef TRINE_METAL
  // Fused multiply-adds one after the other, in chunks of 256, then the chunks and the bias.
  return gamma(std::min<int64_t>(c.k, 256) + (c.k + 255) / 256 + 1);
#else
  // bf16: products are exact. Each mma of 16 products, and each sum of chunks, may cut off 2 units
  // in the 24th bit of what it has so far, which is at most `magnitude`. float: 3xTF32 drops 3
  // parts of 2^-22 of each product, and takes 3 mma for 8 of them.
  return c.w == DType::kBF16 ? (double(c.k) / 16 + 2) * 0x1p-23
                             : (3 * double(c.k) / 8 + 2) * 0x1p-23 + 3.0 * 0x1p-22;
#endif
}

// How far from the sum in double a result may be.
double tolerance(const Case& c, double magnitude, double sum, double y) {
  const double slope = 1.2;  // none of the activations is steeper
  // Of the activation itself.
  const double exact = c.w == DType::kBF16 ? 0x1p-19 : 8.0 * 0x1p-24;
  const double own = c.activation == Activation::kNone ? 0.0 : exact * (std::fabs(sum) + 1);
  const double rounding = (rounding_of(c.y) - kUnit) * 1.01;
  return slope * (magnitude * product_error(c) + std::fabs(sum) * 0x1p-23) + own +
         std::fabs(y) * rounding + 0x1p-23 * (std::fabs(y) + 1);
}

void check_values(const Problem& problem, LinearTile tile) {
  const Case& c = problem.c;
  const std::optional<HostMatrix> result = problem.run(tile, 0, c.m);
  if (!result) return;
  const HostMatrix& y = *result;
  double worst = 0.0;
  std::string where;
  for (int64_t i = 0; i < c.m; ++i) {
    // Of large products a sample, with the first and the last row.
    if (c.m * c.n * c.k > 300'000'000 && i % 37 != 0 && i != c.m - 1) continue;
    for (int64_t j = 0; j < c.n; ++j) {
      double sum = 0.0, magnitude = 0.0;
      for (int64_t k = 0; k < c.k; ++k) {
        const double product = problem.operand(problem.x.at(i, k)) * problem.w.at(j, k);
        sum += product, magnitude += std::fabs(product);
      }
      if (c.bias) sum += double{problem.bias[static_cast<size_t>(j)]};
      double want = ref::activate(sum, c.activation);
      if (c.residual || c.residual_is_y) want += problem.residual.at(i, j);
      const double error = std::fabs(y.at(i, j) - want) / tolerance(c, magnitude, sum, want);
      if (!(error <= worst))
        worst = error, where = cat(" at ", i, ", ", j, ": ", y.at(i, j), " for ", want);
    }
  }
  if (!(worst <= 1.0)) {
    report_failure(__FILE__, __LINE__,
                   cat(name_of(c, tile), ": ", worst, " of what is allowed", where));
  }
}

void check_everywhere(const Case& c) {
  const Problem problem(c);
  for (int t = 0; t < cuda::kLinearTiles; ++t) {
    check_values(problem, static_cast<LinearTile>(t));
  }
}

// All tiles at all m give these rows the same bits.
void check_bits(const Case& c, const std::vector<std::pair<int64_t, int64_t>>& parts) {
  const Problem problem(c);
  const HostMatrix all = problem.run(LinearTile::k64x64, 0, c.m).value();
  for (int t = 0; t < cuda::kLinearTiles; ++t) {
    const LinearTile tile = static_cast<LinearTile>(t);
    for (const auto& [first, m] : parts) {
      const std::optional<HostMatrix> result = problem.run(tile, first, m);
      if (!result) continue;
      const HostMatrix& part = *result;
      const size_t row = static_cast<size_t>(part.ld) * size_of(c.y);
      for (int64_t i = 0; i < m; ++i) {
        const size_t bytes = static_cast<size_t>(c.n) * size_of(c.y);
        if (std::memcmp(part.bytes.data() + static_cast<size_t>(i) * row,
                        all.bytes.data() + static_cast<size_t>(first + i) * row, bytes) != 0) {
          report_failure(
              __FILE__, __LINE__,
              cat(name_of(c, tile), ": row ", first + i, " has other bits as row ", i, " of ", m));
          return;
        }
      }
    }
  }
}

constexpr DType kF = DType::kF32, kB = DType::kBF16;

}  // namespace

TEST(linear_shapes) {
  constexpr int64_t kShapes[][3] = {{1, 8, 16},    {1, 1, 1},      {3, 5, 7},      {2, 16, 64},
                                    {17, 33, 40},  {16, 40, 520},  {5, 24, 96},    {70, 72, 200},
                                    {9, 20, 1100}, {33, 40, 1544}, {130, 136, 72}, {1, 12, 4200}};
  for (const auto& [m, n, k] : kShapes) {
    for (const DType dtype : kGpuTypes) {
      check_everywhere({.m = m, .n = n, .k = k, .x = dtype, .w = dtype, .y = dtype});
    }
  }
}

TEST(linear_activations) {
  for (int a = 0; a < kActivations; ++a) {
    for (const DType dtype : kGpuTypes) {
      for (const int64_t n : {36, 33}) {
        check_everywhere({.m = 18,
                          .n = n,
                          .k = 32,
                          .x = dtype,
                          .w = dtype,
                          .y = kF,
                          .residual = dtype,
                          .activation = static_cast<Activation>(a)});
      }
    }
  }
}

TEST(linear_types_and_strides) {
  for (const DType x : kGpuTypes) {
    for (const DType w : kGpuTypes) {
      for (const DType y : kGpuTypes) {
        for (const int64_t gap : {0, 3, 8}) {
          check_everywhere({.m = 19, .n = 40, .k = 48, .x = x, .w = w, .y = y, .gap = gap});
          check_everywhere({.m = 19,
                            .n = 40,
                            .k = 48,
                            .x = x,
                            .w = w,
                            .y = y,
                            .bias = false,
                            .residual = kF,
                            .gap = gap,
                            .misalign = 1});
          check_everywhere({.m = 19,
                            .n = 40,
                            .k = 48,
                            .x = x,
                            .w = w,
                            .y = y,
                            .residual_is_y = true,
                            .activation = Activation::kSilu,
                            .gap = gap});
        }
      }
    }
  }
}

// Values that no sum may swallow or make up: each row has its own.
TEST(linear_keeps_nan_and_infinity_in_their_row) {
  for (const DType dtype : kGpuTypes) {
    Problem problem({.m = 20,
                     .n = 24,
                     .k = 64,
                     .x = dtype,
                     .w = dtype,
                     .y = kF,
                     .activation = Activation::kGelu});
    HostMatrix x = problem.x;
    x.set(7, 5, std::numeric_limits<float>::quiet_NaN());
    const Buffer poisoned(x.bytes.data(), x.bytes.size(), 0);
    for (int t = 0; t < cuda::kLinearTiles; ++t) {
      cuda::LinearArgs args = problem.arguments(0, 20);
      args.x.data = poisoned.data();
      if (!runs(static_cast<LinearTile>(t), args)) continue;
      HostMatrix y(20, 24, 24, kF);
      const Buffer y_device(y.bytes.data(), y.bytes.size(), 0);
      args.y.data = y_device.data();
      CHECK_EQ(cuda::linear(static_cast<LinearTile>(t), args, nullptr), cudaSuccess);
      y.bytes = y_device.get();
      for (int64_t i = 0; i < 20; ++i) {
        for (int64_t j = 0; j < 24; ++j) CHECK_EQ(std::isnan(y.at(i, j)), i == 7);
      }
    }
  }
}

TEST(linear_bits_depend_on_the_row_alone) {
#ifdef TRINE_SIMT
  constexpr int64_t kRows = 140;
  constexpr int64_t kShapes[][2] = {{40, 200}, {24, 1096}};
#else
  constexpr int64_t kRows = 300;
  constexpr int64_t kShapes[][2] = {{768, 768},   {2304, 768}, {768, 3072}, {576, 1536},
                                    {2048, 2048}, {256, 8192}, {1000, 584}, {24, 40}};
#endif
  std::vector<std::pair<int64_t, int64_t>> parts = {
      {0, kRows}, {0, 1},           {17, 1},  {5, 2},   {40, 7},
      {3, 16},    {kRows - 31, 31}, {20, 64}, {1, 100}, {2, kRows - 2}};
  for (const auto& [n, k] : kShapes) {
    check_bits({.m = kRows, .n = n, .k = k, .activation = Activation::kGelu}, parts);
    check_bits({.m = kRows, .n = n, .k = k, .x = kF, .w = kF, .y = kF, .residual = kF}, parts);
    check_bits({.m = kRows, .n = n, .k = k, .y = kF, .residual = kB}, parts);
  }
  check_bits({.m = kRows, .n = 24, .k = 75, .x = kF, .y = kF}, parts);
}

TEST(linear_of_no_rows) {
  cuda::LinearArgs args;
  args.n = 8, args.k = 8;
  CHECK_EQ(cuda::linear(args, nullptr), cudaSuccess);
}

TEST(linear_chooses_a_tile_that_runs) {
  for (const DType dtype : kGpuTypes) {
    for (const int64_t m : {1, 16, 17, 64, 300, 5000}) {
      for (const int64_t k : {8, 7, 768, 8192, 60000}) {
        cuda::LinearArgs args;
        args.x = {nullptr, k, dtype}, args.y = {nullptr, 768, dtype};
        args.w_dtype = dtype, args.ldw = cuda::linear_ldw(dtype, k);
        args.m = m, args.n = 768, args.k = k;
        CHECK(cuda::linear_runs(cuda::linear_tile(args), args));
      }
    }
  }
}

#ifndef TRINE_METAL  // there the host packs

TEST(pack_linear) {
  constexpr int64_t n = 5, k = 75;
  for (const DType from : {kF, kB, DType::kF16}) {
    for (const DType to : {kF, kB}) {
      std::vector<unsigned char> source(static_cast<size_t>(n * k) * size_of(from));
      std::vector<float> values(static_cast<size_t>(n * k));
      std::mt19937 random(5);
      std::normal_distribution<float> normal;
      for (size_t i = 0; i < values.size(); ++i) {
        const uint16_t half = static_cast<uint16_t>(i * 193 % 0x7c00 | (i % 2 << 15));
        if (from == DType::kF16) {
          std::memcpy(source.data() + 2 * i, &half, 2);
          values[i] = f16_to_f32(half);
        } else if (from == kB) {
          const uint16_t bits = f32_to_bf16(normal(random));
          std::memcpy(source.data() + 2 * i, &bits, 2);
          values[i] = bf16_to_f32(bits);
        } else {
          values[i] = normal(random);
          std::memcpy(source.data() + 4 * i, &values[i], 4);
        }
      }
      const Buffer source_device(source.data(), source.size(), 0);
      HostMatrix w(n, k, cuda::linear_ldw(to, k), to);
      const Buffer w_device(w.bytes.data(), w.bytes.size(), 0);
      CHECK_EQ(cuda::pack_linear({source_device.data(), from, w_device.data(), to, n, k}, nullptr),
               cudaSuccess);
      w.bytes = w_device.get();
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < w.ld; ++j) {
          const float value = j < k ? values[static_cast<size_t>(i * k + j)] : 0.0f;
          CHECK_EQ(w.at(i, j), double{to == kB ? bf16_to_f32(f32_to_bf16(value)) : value});
        }
      }
    }
  }
}

#endif

}  // namespace trine::test
