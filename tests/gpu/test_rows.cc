// SPDX-License-Identifier: Apache-2.0
// The ops that work row by row, on a GPU or on the emulator (TRINE_SIMT), against ref/. Outputs are
// full of NaN before. Tolerances: one rounding to the output's type, and the error bound of the
// float operations behind it.
#include <cmath>
#include <limits>
#include <memory>

#include "exec/lower.h"
#include "gpu/buffers.h"
#include "kernels/rows.h"
#include "ref/ref.h"

namespace trine::test {
namespace {

struct Shape {
  int64_t rows, cols, gap;
  size_t misalign;
};
// Columns around the widths where kernels change: a chunk, a warp's chunks, what registers hold.
constexpr Shape kShapes[] = {{0, 8, 0, 0},    {1, 1, 0, 0},    {3, 7, 1, 1},    {5, 8, 0, 0},
                             {9, 24, 8, 0},   {2, 129, 3, 1},  {6, 768, 0, 0},  {3, 1024, 0, 0},
                             {2, 1030, 2, 0}, {2, 2048, 0, 0}, {1, 4100, 0, 0}, {1, 17000, 0, 0}};

std::string name_of(const char* op, const Shape& s, DType in, DType out) {
  return cat(op, " ", s.rows, " x ", s.cols, ", gap ", s.gap, ", off by ", s.misalign, ", ",
             trine::name_of(in), " to ", trine::name_of(out));
}

// The same numbers on the host and on the device.
struct Input {
  Matrix<float> host;
  std::unique_ptr<DeviceMatrix> device;

  Input(int64_t rows, int64_t cols, DType dtype, uint64_t seed, const Shape& s, float low = -2,
        float high = 2)
      : host(rows, cols) {
    Random random(seed);
    host.fill(random, low, high);
    round_to(dtype, host);
    device = std::make_unique<DeviceMatrix>(host, dtype, s.gap, s.misalign);
  }
  cuda::Matrix view() { return device->view(); }
};

struct Output {
  Matrix<float> host;
  DeviceMatrix device;

  Output(int64_t rows, int64_t cols, DType dtype, const Shape& s)
      : host(rows, cols), device(filled(host), dtype, s.gap, s.misalign) {}
  cuda::Matrix view() { return device.view(); }
  Matrix<float>& get() {
    wait_for_device();
    device.get(host);
    return host;
  }

 private:
  static Matrix<float>& filled(Matrix<float>& m) {
    m.fill(std::numeric_limits<float>::quiet_NaN());
    return m;
  }
};

std::vector<float> numbers(int64_t count, uint64_t seed, float low = -2, float high = 2) {
  Random random(seed);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& x : out) x = random.uniform(low, high);
  return out;
}

// Relative to the result, plus what is left where the result is small.
auto within(const Matrix<float>& want, DType out, double relative, double absolute = 0) {
  return [&want, out, relative, absolute](int64_t i, int64_t j) {
    return std::fabs(double(want.at(i, j))) * (rounding_of(out) + relative) + absolute +
           smallest_of(out);
  };
}

template <class F>
void for_types(F&& f) {
  for (const DType in : kGpuTypes) {
    for (const DType out : kGpuTypes) f(in, out);
  }
}

struct Batch {
  std::vector<int32_t> offsets{0};
  std::unique_ptr<DeviceArray<int32_t>> device;
  int32_t longest = 0;

  explicit Batch(const std::vector<int32_t>& lengths) {
    for (const int32_t length : lengths) {
      offsets.push_back(offsets.back() + length);
      longest = std::max(longest, length);
    }
    device = std::make_unique<DeviceArray<int32_t>>(offsets);
  }
  int32_t sequences() const { return int32_t(offsets.size()) - 1; }
  int32_t tokens() const { return offsets.back(); }
  Ragged on_host() const { return {offsets.data(), sequences()}; }
  cuda::Ragged on_device() { return {device->data(), sequences(), tokens(), longest}; }
};

// A chain of additions in a row of so many columns: in a thread, and up to nine steps beyond.
int64_t chain_of(int64_t cols) { return std::max<int64_t>(32, (cols + 31) / 32 + 8) + 24; }

TEST(layer_norm) {
  for (const Shape& s : kShapes) {
    for_types([&](DType in, DType out) {
      for (const bool affine : {true, false}) {
        Input x(s.rows, s.cols, in, 1, s, 1.0f, 3.0f);
        Output y(s.rows, s.cols, out, s);
        const auto weight = numbers(s.cols, 2), bias = numbers(s.cols, 3);
        DeviceArray<float> w(weight, s.misalign), b(bias, s.misalign);
        CHECK_CUDA(cuda::layer_norm({x.view(), affine ? w.data() : nullptr,
                                     affine ? b.data() : nullptr, y.view(), s.rows, s.cols, 1e-5f},
                                    nullptr));
        Matrix<float> want(s.rows, s.cols);
        ref::layer_norm({x.host.data(), s.cols, affine ? weight.data() : nullptr,
                         affine ? bias.data() : nullptr, want.data(), s.cols, s.rows, s.cols,
                         1e-5f});
        // The mean of numbers up to 3 is off by m = gamma(chain) * 3, which the deviation (at least
        // sqrt(eps)) divides; the rest is relative to a normalised value of at most sqrt(cols).
        const double m = gamma(chain_of(s.cols)) * 3;
        const auto deviation = [&](int64_t i) {
          double sum = 0, squares = 0;
          for (int64_t j = 0; j < s.cols; ++j) sum += double(x.host.at(i, j));
          for (int64_t j = 0; j < s.cols; ++j)
            squares += std::pow(double(x.host.at(i, j)) - sum / double(s.cols), 2);
          return std::sqrt(squares / double(s.cols) + 1e-5);
        };
        const auto tolerance = [&](int64_t i, int64_t j) {
          const double d = deviation(i), relative = gamma(chain_of(s.cols) + 8) + m * m / (d * d);
          const double weighted = affine ? std::fabs(double(weight[size_t(j)])) : 1;
          const double shift = affine ? std::fabs(double(bias[size_t(j)])) : 0;
          const double value = std::fabs(double(want.at(i, j)));
          return value * rounding_of(out) + (value + shift) * relative + m / d * weighted +
                 smallest_of(out);
        };
        CHECK_CLOSE(name_of("layer_norm", s, in, out), y.get(), want, tolerance);
      }
    });
  }
}

TEST(rms_norm_and_l2_normalize) {
  for (const Shape& s : kShapes) {
    for_types([&](DType in, DType out) {
      Input x(s.rows, s.cols, in, 1, s);
      const auto weight = numbers(s.cols, 2);
      DeviceArray<float> w(weight, s.misalign);
      Output rms(s.rows, s.cols, out, s), l2(s.rows, s.cols, out, s);
      CHECK_CUDA(cuda::rms_norm({x.view(), w.data(), rms.view(), s.rows, s.cols, 1e-6f}, nullptr));
      CHECK_CUDA(cuda::l2_normalize({x.view(), l2.view(), s.rows, s.cols, 1e-12f}, nullptr));
      Matrix<float> want(s.rows, s.cols);
      ref::rms_norm(
          {x.host.data(), s.cols, weight.data(), want.data(), s.cols, s.rows, s.cols, 1e-6f});
      const double relative = gamma(chain_of(s.cols) / 2 + 8);
      CHECK_CLOSE(name_of("rms_norm", s, in, out), rms.get(), want, within(want, out, relative));
      ref::l2_normalize({x.host.data(), s.cols, want.data(), s.cols, s.rows, s.cols, 1e-12f});
      CHECK_CLOSE(name_of("l2_normalize", s, in, out), l2.get(), want, within(want, out, relative));
    });
  }
}

TEST(norms_in_place_and_rows_apart) {
  const Shape s = {5, 768, 0, 0};
  for (const DType dtype : kGpuTypes) {
    Input x(s.rows, s.cols, dtype, 7, s);
    const auto weight = numbers(s.cols, 2);
    DeviceArray<float> w(weight);
    Output all(s.rows, s.cols, dtype, s), one(1, s.cols, dtype, s);
    CHECK_CUDA(cuda::layer_norm({x.view(), w.data(), nullptr, all.view(), s.rows, s.cols, 1e-5f},
                                nullptr));
    cuda::Matrix last = x.view();
    last.data = static_cast<char*>(last.data) + 4 * last.ld * int64_t(size_of(dtype));
    CHECK_CUDA(cuda::layer_norm({last, w.data(), nullptr, one.view(), 1, s.cols, 1e-5f}, nullptr));
    CHECK(std::memcmp(all.get().row(4), one.get().row(0), size_t(s.cols) * sizeof(float)) == 0);
    CHECK_CUDA(
        cuda::layer_norm({x.view(), w.data(), nullptr, x.view(), s.rows, s.cols, 1e-5f}, nullptr));
    Matrix<float> in_place(s.rows, s.cols);
    wait_for_device();
    x.device->get(in_place);
    CHECK(identical(in_place, all.host));
  }
}

constexpr Activation kActivations[] = {
    Activation::kNone, Activation::kGelu,    Activation::kGeluTanh, Activation::kRelu,
    Activation::kTanh, Activation::kSigmoid, Activation::kSilu,     Activation::kQuickGelu};

TEST(activation_and_gated) {
  for (const Shape& s : {Shape{4, 40, 0, 0}, Shape{3, 19, 1, 1}}) {
    for_types([&](DType in, DType out) {
      for (const Activation activation : kActivations) {
        Input x(s.rows, s.cols, in, 1, s, -12, 12), up(s.rows, s.cols, in, 2, s);
        Output y(s.rows, s.cols, out, s), z(s.rows, s.cols, out, s);
        CHECK_CUDA(cuda::activation({x.view(), y.view(), s.rows, s.cols, activation}, nullptr));
        CHECK_CUDA(
            cuda::gated({x.view(), up.view(), z.view(), s.rows, s.cols, activation}, nullptr));
        Matrix<float> want(s.rows, s.cols), product(s.rows, s.cols);
        ref::activation({x.host.data(), s.cols, want.data(), s.cols, s.rows, s.cols, activation});
        ref::gated({x.host.data(), up.host.data(), s.cols, s.cols, product.data(), s.cols, s.rows,
                    s.cols, activation});
        // The largest argument of an exponential is 142, seven roundings off (gelu of tanh), which
        // is the relative error of the function behind it.
        const double relative = gamma(7 * 142 + 8);
        const std::string name = cat(name_of("activation", s, in, out), ", ", int(activation));
        const double tail = activation == Activation::kGelu ? kGeluTail : 1e-37;
        CHECK_CLOSE(name, y.get(), want, within(want, out, relative, tail));
        CHECK_CLOSE(cat(name, ", gated"), z.get(), product,
                    within(product, out, relative, 2 * tail));
      }
    });
  }
  // Where the gate is 0, infinity is gone.
  const Shape s = {1, 1, 0, 0};
  Matrix<float> x(1, 1);
  x.at(0, 0) = -std::numeric_limits<float>::infinity();
  DeviceMatrix from(x, DType::kF32);
  for (const Activation activation : {Activation::kGelu, Activation::kSilu}) {
    Output y(1, 1, DType::kF32, s);
    CHECK_CUDA(cuda::activation({from.view(), y.view(), 1, 1, activation}, nullptr));
    CHECK_EQ(y.get().at(0, 0), 0.0f);
  }
}

TEST(add_scale_and_copy) {
  for (const Shape& s : kShapes) {
    for_types([&](DType in, DType out) {
      Input a(s.rows, s.cols, in, 1, s), b(s.rows, s.cols, in, 2, s);
      Output sum(s.rows, s.cols, out, s), scaled(s.rows, s.cols, out, s),
          copy(s.rows, s.cols, out, s);
      CHECK_CUDA(cuda::add({a.view(), b.view(), sum.view(), s.rows, s.cols}, nullptr));
      CHECK_CUDA(cuda::scale({a.view(), scaled.view(), s.rows, s.cols, 0.125f}, nullptr));
      CHECK_CUDA(cuda::copy_columns({a.view(), copy.view(), s.rows, s.cols}, nullptr));
      Matrix<float> want(s.rows, s.cols);
      ref::add({a.host.data(), b.host.data(), s.cols, s.cols, want.data(), s.cols, s.rows, s.cols});
      CHECK_CLOSE(name_of("add", s, in, out), sum.get(), want, within(want, out, kUnit));
      ref::scale({a.host.data(), s.cols, want.data(), s.cols, s.rows, s.cols, 0.125f});
      CHECK_CLOSE(name_of("scale", s, in, out), scaled.get(), want, within(want, out, kUnit));
      want.copy_from(a.host);
      round_to(out, want);
      CHECK_CLOSE(name_of("copy", s, in, out), copy.get(), want,
                  [](int64_t, int64_t) { return 0; });
    });
  }
}

TEST(embedding) {
  constexpr DType kTables[] = {DType::kF32, DType::kF16, DType::kBF16};
  for (const Shape& s : {Shape{5, 24, 0, 0}, Shape{3, 9, 1, 1}, Shape{1, 768, 0, 0}}) {
    for (int count = 1; count <= 3; ++count) {
      for (int first = 0; first < 3; ++first) {
        for (const DType out : kGpuTypes) {
          constexpr int64_t kRows = 11;
          EmbeddingArgs ref = {};
          cuda::EmbeddingArgs args = {};
          std::vector<std::vector<uint8_t>> tables(3);
          std::vector<std::vector<int32_t>> ids(3);
          std::vector<std::unique_ptr<DeviceArray<uint8_t>>> device_tables;
          std::vector<std::unique_ptr<DeviceArray<int32_t>>> device_ids;
          Random random(uint64_t(count * 3 + first));
          for (int t = 0; t < count; ++t) {
            const DType dtype = kTables[(first + t) % 3];
            for (const float x : numbers(kRows * s.cols, uint64_t(t) + 5)) {
              const uint16_t bits = dtype == DType::kF16 ? f32_to_f16(x * 1e-4f) : f32_to_bf16(x);
              const auto* bytes = dtype == DType::kF32 ? reinterpret_cast<const uint8_t*>(&x)
                                                       : reinterpret_cast<const uint8_t*>(&bits);
              tables[size_t(t)].insert(tables[size_t(t)].end(), bytes, bytes + size_of(dtype));
            }
            for (int64_t i = 0; i < s.rows; ++i)
              ids[size_t(t)].push_back(int32_t(random.below(kRows)));
            device_tables.push_back(std::make_unique<DeviceArray<uint8_t>>(
                tables[size_t(t)], s.misalign * size_of(dtype)));
            device_ids.push_back(std::make_unique<DeviceArray<int32_t>>(ids[size_t(t)]));
            ref.ids[t] = ids[size_t(t)].data();
            ref.tables[t] = tables[size_t(t)].data();
            args.ids[t] = device_ids.back()->data();
            args.tables[t] = device_tables.back()->data();
            args.dtypes[t] = ref.dtypes[t] = dtype;
          }
          Matrix<float> want(s.rows, s.cols);
          Output y(s.rows, s.cols, out, s);
          args.count = ref.count = count;
          args.rows = ref.rows = s.rows;
          args.cols = ref.cols = s.cols;
          args.y = y.view();
          ref.y = want.data();
          ref.ldy = s.cols;
          CHECK_CUDA(cuda::embedding(args, nullptr));
          ref::embedding(ref);
          // Terms are at most 2, whatever their sum is.
          CHECK_CLOSE(name_of(cat("embedding of ", count, " from ", first).c_str(), s, out, out),
                      y.get(), want, within(want, out, kUnit, 6 * 2 * kUnit));
        }
      }
    }
  }
}

TEST(positions) {
  for (const int32_t padding : {-1, 0, 1}) {
    for (const bool cached : {false, true}) {
      Batch batch({3, 0, 1, 70, 32});
      Random random(3);
      std::vector<int32_t> ids, past = {4, 9, 0, 7, 100}, want(size_t(batch.tokens()));
      for (int32_t t = 0; t < batch.tokens(); ++t) ids.push_back(int32_t(random.below(4)));
      std::vector<KvView> caches(5);
      for (size_t b = 0; b < 5; ++b) caches[b].past = past[b];
      positions(ids.data(), batch.on_host(), cached ? caches.data() : nullptr, padding,
                want.data());
      DeviceArray<int32_t> on_device(ids), before(past), y(std::vector<int32_t>(want.size(), -7));
      CHECK_CUDA(cuda::positions({on_device.data(), batch.on_device(),
                                  cached ? before.data() : nullptr, padding, y.data()},
                                 nullptr));
      wait_for_device();
      CHECK_EQ(y.get(), want);
    }
  }
}

TEST(spread_and_windows) {
  for (const Shape& s : {Shape{0, 16, 0, 0}, Shape{0, 7, 2, 1}}) {
    for_types([&](DType in, DType out) {
      Batch batch({3, 0, 1, 17, 2});
      Input of_sequences(5, s.cols, in, 1, s), x(batch.tokens(), s.cols, in, 2, s);
      Output y(batch.tokens(), s.cols, out, s);
      CHECK_CUDA(cuda::spread({of_sequences.view(), y.view(), s.cols, batch.on_device()}, nullptr));
      Matrix<float> want(batch.tokens(), s.cols);
      spread(of_sequences.host.data(), s.cols, batch.on_host(), want.data(), s.cols, s.cols);
      round_to(out, want);
      const auto exact = [](int64_t, int64_t) { return 0; };
      CHECK_CLOSE(name_of("spread", s, in, out), y.get(), want, exact);
      for (const int32_t size : {1, 2, 3, 4}) {
        Output wide(batch.tokens(), s.cols * size, out, s);
        CHECK_CUDA(
            cuda::windows({x.view(), wide.view(), s.cols, size, batch.on_device()}, nullptr));
        Matrix<float> windowed(batch.tokens(), s.cols * size);
        windows(
            {x.host.data(), s.cols, windowed.data(), s.cols * size, s.cols, size, batch.on_host()});
        round_to(out, windowed);
        CHECK_CLOSE(name_of("windows", s, in, out), wide.get(), windowed, exact);
      }
    });
  }
}

TEST(rotary) {
  const int64_t pairs = 5;
  const Shape s = {0, 2 * pairs, 1, 1};
  const std::vector<float> inv = {1.0f, 0.31f, 0.1f, 0.031f, 0.0005f};
  const std::vector<float> far = {0.9f, 0.2f, 0.05f, 0.01f, 0.0001f};
  Batch batch({3, 0, 40});
  std::vector<int32_t> at, lengths = {30, 0, 90000};
  Random random(4);
  for (int32_t t = 0; t < batch.tokens(); ++t) at.push_back(int32_t(random.below(131072)));
  DeviceArray<int32_t> positions(at), whole(lengths);
  DeviceArray<float> short_inv(inv), long_inv(far);
  for (const DType out : kGpuTypes) {
    for (int kind = 0; kind < 4; ++kind) {  // plain, long, dynamic, dynamic by rows
      const int32_t original = kind == 0 ? 0 : kind == 3 ? 20 : 64;
      Output y(batch.tokens(), 2 * pairs, out, s);
      Matrix<float> want(batch.tokens(), 2 * pairs);
      CHECK_CUDA(
          cuda::rotary({positions.data(), short_inv.data(), kind == 1 ? long_inv.data() : nullptr,
                        y.view(), pairs, batch.on_device(), kind == 3 ? nullptr : whole.data(),
                        1.25f, original, 10000.0f, 2.0f},
                       nullptr));
      RotaryArgs args = {};
      args.positions = at.data(), args.inv_freq = inv.data();
      args.long_inv_freq = kind == 1 ? far.data() : nullptr;
      args.y = want.data(), args.ldy = 2 * pairs, args.rows = batch.tokens(), args.pairs = pairs;
      args.batch = batch.on_host(), args.lengths = kind == 3 ? nullptr : lengths.data();
      args.scaling = 1.25f, args.original_length = original, args.base = 10000.0f;
      args.factor = 2.0f;
      ref::rotary(args);
      // What the sine is worth; where frequencies are powers, one may round the other way, which
      // moves an angle by a unit in its last place.
      const double angle = kind >= 2 ? 131072 * 0x1p-23 : 0;
      CHECK_CLOSE(cat("rotary ", kind, " to ", trine::name_of(out)), y.get(), want,
                  within(want, out, 0, 1.25 * (kSine + angle)));
    }
  }
}

TEST(rope) {
  struct Heads {
    int64_t heads, dim, turned;
  };
  for (const Heads& h : {Heads{3, 64, 64}, Heads{2, 32, 16}, Heads{2, 10, 6}, Heads{1, 24, 8}}) {
    for (const size_t misalign : {size_t{0}, size_t{1}}) {
      for_types([&](DType in, DType out) {
        const Shape s = {4, h.heads * h.dim, int64_t(misalign), misalign};
        Input x(s.rows, s.cols, in, 1, s), table(s.rows, h.turned, DType::kF32, 2, s, -1, 1);
        Output y(s.rows, s.cols, out, s);
        CHECK_CUDA(cuda::rope({x.view(), table.view(), y.view(), s.rows, h.heads, h.dim, h.turned},
                              nullptr));
        Matrix<float> want(s.rows, s.cols);
        ref::rope({x.host.data(), s.cols, table.host.data(), h.turned, want.data(), s.cols, s.rows,
                   h.heads, h.dim, h.turned});
        // Products of at most 2, however far they cancel.
        CHECK_CLOSE(name_of("rope", s, in, out), y.get(), want,
                    within(want, out, kUnit, 2 * 2 * 2 * kUnit));
        if (in != out) return;
        CHECK_CUDA(cuda::rope({x.view(), table.view(), x.view(), s.rows, h.heads, h.dim, h.turned},
                              nullptr));
        Matrix<float> in_place(s.rows, s.cols);
        wait_for_device();
        x.device->get(in_place);
        CHECK(identical(in_place, y.host));
      });
    }
  }
}

TEST(pool) {
  for (const Shape& s : {Shape{0, 16, 0, 0}, Shape{0, 77, 2, 1}}) {
    for_types([&](DType in, DType out) {
      Batch batch({3, 0, 1, 70, 33});
      const std::vector<int32_t> skipped = {1, 0, 1, 5, 40};
      DeviceArray<int32_t> skip(skipped);
      Input x(batch.tokens(), s.cols, in, 1, s);
      for (int mode = 0; mode <= int(PoolMode::kLastToken); ++mode) {
        for (const bool skips : {false, true}) {
          Output y(5, s.cols, out, s);
          CHECK_CUDA(cuda::pool({x.view(), skips ? skip.data() : nullptr, y.view(), s.cols,
                                 batch.on_device(), PoolMode(mode)},
                                nullptr));
          Matrix<float> want(5, s.cols);
          ref::pool({x.host.data(), s.cols, skips ? skipped.data() : nullptr, want.data(), s.cols,
                     s.cols, batch.on_host(), PoolMode(mode)});
          // Sums of up to 70 terms of at most 2, in chains of at most 34 additions; weights are
          // at most twice their mean.
          CHECK_CLOSE(cat(name_of("pool", s, in, out), ", mode ", mode, skips ? ", skips" : ""),
                      y.get(), want,
                      within(want, out, gamma(3),
                             gamma(38) * 2 * (PoolMode(mode) == PoolMode::kMeanSqrtLen ? 9 : 1)));
        }
      }
    });
  }
  // Alone and in a batch: the same bits.
  const Shape s = {0, 64, 0, 0};
  Batch many({5, 50, 3}), one({50});
  Input x(58, 64, DType::kBF16, 9, s);
  Output a(3, 64, DType::kF32, s), b(1, 64, DType::kF32, s);
  cuda::Matrix second = x.view();
  second.data = static_cast<char*>(second.data) + 5 * 64 * 2;
  CHECK_CUDA(
      cuda::pool({x.view(), nullptr, a.view(), 64, many.on_device(), PoolMode::kMean}, nullptr));
  CHECK_CUDA(
      cuda::pool({second, nullptr, b.view(), 64, one.on_device(), PoolMode::kMean}, nullptr));
  CHECK(std::memcmp(a.get().row(1), b.get().row(0), 64 * sizeof(float)) == 0);
}

}  // namespace
}  // namespace trine::test
