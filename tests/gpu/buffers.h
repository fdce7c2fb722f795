// SPDX-License-Identifier: Apache-2.0
// What tests of GPU kernels share: memory of the device, or of the emulator with TRINE_SIMT, with
// guards around it that hold NaN and are looked at again.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#ifdef TRINE_SIMT
#include "simt/cuda.h"
#else
#include <cuda_runtime_api.h>
#endif

#include "cpp/kernel_testing.h"
#include "kernels/matrix.h"
#include "weights/convert.h"

namespace trine::test {

inline void check_cuda(cudaError_t error, const char* text) {
  if (error != cudaSuccess) throw std::runtime_error(cat(text, ": error ", int(error)));
}
// What Metal's kernels do otherwise than CUDA's, as far as results are concerned.
#ifdef TRINE_METAL
inline constexpr DType kGpuTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
inline constexpr double kGeluTail = 1e-9;  // metal/kernels/activate.h: absolute
inline constexpr double kSine = 0x1p-23;   // two units in the last place of a number below 1
#else
inline constexpr DType kGpuTypes[] = {DType::kF32, DType::kBF16};
inline constexpr double kGeluTail = 1e-37;
inline constexpr double kSine = 1e-9;
#endif

#define CHECK_CUDA(call) ::trine::test::check_cuda((call), #call)

inline void wait_for_device() {
#ifndef TRINE_SIMT
  CHECK_CUDA(cudaDeviceSynchronize());
#endif
}

// `size` elements at an address `misalign` elements past a 256-byte boundary.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& host, size_t misalign = 0)
      : size_(host.size()), offset_(kGuard + misalign * sizeof(T)) {
    all_.assign(offset_ + size_ * sizeof(T) + kGuard, kMark);
    if (size_ > 0) std::memcpy(all_.data() + offset_, host.data(), size_ * sizeof(T));
#ifdef TRINE_SIMT
    base_ = static_cast<unsigned char*>(std::aligned_alloc(256, (all_.size() + 255) / 256 * 256));
    std::memcpy(base_, all_.data(), all_.size());
#else
    CHECK_CUDA(cudaMalloc(reinterpret_cast<void**>(&base_), all_.size()));
    CHECK_CUDA(cudaMemcpy(base_, all_.data(), all_.size(), cudaMemcpyHostToDevice));
#endif
  }
  ~DeviceArray() {
#ifdef TRINE_SIMT
    std::free(base_);
#else
    cudaFree(base_);
#endif
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return reinterpret_cast<T*>(base_ + offset_); }

  // What is there now; throws if a guard has changed.
  std::vector<T> get() {
#ifdef TRINE_SIMT
    std::memcpy(all_.data(), base_, all_.size());
#else
    CHECK_CUDA(cudaMemcpy(all_.data(), base_, all_.size(), cudaMemcpyDeviceToHost));
#endif
    for (size_t i = 0; i < all_.size(); ++i) {
      const bool guard = i < offset_ || i >= offset_ + size_ * sizeof(T);
      if (guard && all_[i] != kMark) throw std::runtime_error(cat("guard byte ", i, " changed"));
    }
    std::vector<T> out(size_);
    if (size_ > 0) std::memcpy(out.data(), all_.data() + offset_, size_ * sizeof(T));
    return out;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr unsigned char kMark = 0xff;  // NaN in every type
  size_t size_, offset_;
  std::vector<unsigned char> all_;
  unsigned char* base_ = nullptr;
};

// The types of 16 bits.
inline float half_to_f32(DType dtype, uint16_t bits) {
  return dtype == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}
inline uint16_t f32_to_half(DType dtype, float x) {
  return dtype == DType::kF16 ? f32_to_f16(x) : f32_to_bf16(x);
}

// A matrix on the device; between its rows is NaN. The host's side is float, with values that the
// type holds.
class DeviceMatrix {
 public:
  DeviceMatrix(const Matrix<float>& host, DType dtype, int64_t gap = 0, size_t misalign = 0)
      : rows_(host.rows()),
        cols_(host.cols()),
        ld_(host.cols() + gap),
        dtype_(dtype),
        array_(bits_of(host, dtype, ld_), misalign * size_of(dtype) / 2) {}

  cuda::Matrix view() { return {array_.data(), ld_, dtype_}; }
  cuda::Matrix columns(int64_t first) {
    return {array_.data() + first * int64_t(size_of(dtype_)) / 2, ld_, dtype_};
  }

  void get(Matrix<float>& host) {
    const std::vector<uint16_t> bits = array_.get();
    const size_t unit = size_of(dtype_) / 2;
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t j = 0; j < ld_; ++j) {
        const size_t at = size_t(i * ld_ + j) * unit;
        if (j >= cols_) {
          if (at < bits.size() && bits[at] != 0xffff)
            throw std::runtime_error(cat("written between rows, at ", i, ", ", j));
          continue;
        }
        if (unit == 1) {
          host.at(i, j) = half_to_f32(dtype_, bits[at]);
        } else {
          std::memcpy(&host.at(i, j), &bits[at], sizeof(float));
        }
      }
    }
  }

 private:
  static std::vector<uint16_t> bits_of(const Matrix<float>& host, DType dtype, int64_t ld) {
    const size_t unit = size_of(dtype) / 2;
    const int64_t elements = host.rows() > 0 ? (host.rows() - 1) * ld + host.cols() : 0;
    std::vector<uint16_t> bits(size_t(elements) * unit, 0xffff);
    for (int64_t i = 0; i < host.rows(); ++i) {
      for (int64_t j = 0; j < host.cols(); ++j) {
        const size_t at = size_t(i * ld + j) * unit;
        if (unit == 1) {
          bits[at] = f32_to_half(dtype, host.at(i, j));
        } else {
          std::memcpy(&bits[at], host.row(i) + j, sizeof(float));
        }
      }
    }
    return bits;
  }

  int64_t rows_, cols_, ld_;
  DType dtype_;
  DeviceArray<uint16_t> array_;
};

inline void round_to(DType dtype, Matrix<float>& m) {
  if (dtype == DType::kF32) return;
  for (int64_t i = 0; i < m.rows(); ++i) {
    for (int64_t j = 0; j < m.cols(); ++j)
      m.at(i, j) = half_to_f32(dtype, f32_to_half(dtype, m.at(i, j)));
  }
}

// One rounding to a type, and the one of the reference to float, relative to the result ...
inline double rounding_of(DType dtype) {
  return (dtype == DType::kBF16 ? 0x1p-8 : dtype == DType::kF16 ? 0x1p-11 : kUnit) + kUnit;
}
// ... and what it is where results are too small for half's exponent.
inline double smallest_of(DType dtype) { return dtype == DType::kF16 ? 0x1p-25 : 0; }

}  // namespace trine::test
