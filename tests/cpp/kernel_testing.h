// SPDX-License-Identifier: Apache-2.0
// What kernel tests share: matrices with guarded surroundings, reproducible random numbers,
// tolerances that come from rounding-error bounds, and a comparison that names the worst element.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#elif defined(_WIN32)
#include "base/windows.h"
#endif

#include "check.h"
#include "cpu/kernel_table.h"

namespace trine::test {

// Half the distance from 1 to the next float: the relative error of one rounding.
inline constexpr double kUnit = 0x1p-24;
// Higham's bound on the relative error of n roundings in a row.
inline double gamma(int64_t n) { return double(n) * kUnit / (1.0 - double(n) * kUnit); }
// What it amounts to when the roundings are as good as random: five standard deviations of their
// walk, which is less for n > 25. (Higham and Mary 2019 prove it for independent errors of mean
// zero.)
inline double likely_gamma(int64_t n) {
  return std::min(gamma(n), 5.0 * std::sqrt(double(n)) * kUnit);
}

// Every instruction set that this build and this processor have.
inline std::vector<const cpu::KernelTable*> kernel_tables() {
  std::vector<const cpu::KernelTable*> tables;
  for (const cpu::Isa isa : cpu::kIsas) {
    if (const cpu::KernelTable* table = cpu::kernel_table(isa)) tables.push_back(table);
  }
  return tables;
}

// The same numbers on every platform, which the standard's distributions do not promise.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}

  uint32_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    const uint32_t mixed = uint32_t((state_ ^ (state_ >> 18)) >> 27);
    const uint32_t turn = uint32_t(state_ >> 59);
    return mixed >> turn | mixed << ((32 - turn) & 31);
  }
  int64_t below(int64_t n) { return int64_t(uint64_t(bits()) * uint64_t(n) >> 32); }
  float uniform(float low, float high) {
    return low + (high - low) * float(bits() >> 8) * 0x1p-24f;
  }

 private:
  uint64_t state_;
};

// rows x cols numbers, `ld` apart, at an address that is `misalign` elements past a 64-byte
// boundary. Everything that is not an element, before, between and after the rows, holds a
// signalling pattern: for floats a NaN, so that a kernel which reads it shows in the result, and
// one which writes it fails intact().
template <class T = float>
class Matrix {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Matrix(int64_t rows, int64_t cols, int64_t ld, int64_t misalign = 0)
      : rows_(rows), cols_(cols), ld_(ld) {
    const size_t elements = size_t((rows > 0 ? rows - 1 : 0) * ld + cols);
    bytes_.assign(2 * kGuard + 128 + elements * sizeof(T), std::byte{0});
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = pattern(i);
    const uintptr_t start = reinterpret_cast<uintptr_t>(bytes_.data()) + kGuard;
    const uintptr_t aligned = (start + 63) / 64 * 64 + uintptr_t(misalign) * sizeof(T);
    data_ = reinterpret_cast<T*>(aligned);
    // The pattern is laid from the first element on, so that whole elements of it are NaN.
    const size_t first = size_t(aligned - reinterpret_cast<uintptr_t>(bytes_.data()));
    shift_ = first % 4;
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = pattern(i);
  }
  Matrix(int64_t rows, int64_t cols) : Matrix(rows, cols, cols) {}
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  T* row(int64_t i) { return data_ + i * ld_; }
  const T* row(int64_t i) const { return data_ + i * ld_; }
  T& at(int64_t i, int64_t j) { return data_[i * ld_ + j]; }
  T at(int64_t i, int64_t j) const { return data_[i * ld_ + j]; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t ld() const { return ld_; }

  void fill(T value) {
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t j = 0; j < cols_; ++j) at(i, j) = value;
    }
  }
  void fill(Random& random, float low = -1.0f, float high = 1.0f) {
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t j = 0; j < cols_; ++j) at(i, j) = T(random.uniform(low, high));
    }
  }
  void copy_from(const Matrix& other) {
    for (int64_t i = 0; i < rows_; ++i)
      std::memcpy(row(i), other.row(i), size_t(cols_) * sizeof(T));
  }

  // Whether everything but the elements is as it was.
  bool intact() const {
    std::vector<bool> element(bytes_.size(), false);
    for (int64_t i = 0; i < rows_; ++i) {
      const size_t begin = size_t(reinterpret_cast<const std::byte*>(row(i)) - bytes_.data());
      for (size_t b = begin; b < begin + size_t(cols_) * sizeof(T); ++b) element[b] = true;
    }
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (!element[i] && bytes_[i] != pattern(i)) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 256;
  // 0x7fa00000 | 0x000aa5: a NaN as float, as F16 (0x7faa) and as BF16, little-endian.
  std::byte pattern(size_t i) const {
    constexpr uint8_t kBytes[4] = {0xaa, 0x7f, 0xaa, 0x7f};
    return std::byte{kBytes[(i + 4 - shift_) % 4]};
  }

  int64_t rows_, cols_, ld_;
  size_t shift_ = 0;
  std::vector<std::byte> bytes_;
  T* data_;
};

// `size` numbers that end where an unmapped page begins: reading one byte more is a crash, not a
// result that happens to be masked away. (On other systems: plain memory.)
class PageEnd {
 public:
  explicit PageEnd(int64_t size) : size_(size) {
    const size_t bytes = size_t(size) * sizeof(float);
#if defined(_WIN32)
    const size_t page = 4096;
    mapped_ = (bytes + page - 1) / page * page + page;
    memory_ = VirtualAlloc(nullptr, mapped_, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    DWORD before;
    if (memory_ == nullptr || VirtualProtect(static_cast<char*>(memory_) + mapped_ - page, page,
                                             PAGE_NOACCESS, &before) == 0)
      std::abort();
    data_ = reinterpret_cast<float*>(static_cast<char*>(memory_) + mapped_ - page - bytes);
#elif defined(__unix__) || defined(__APPLE__)
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = (bytes + page - 1) / page * page + page;
    memory_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED ||
        mprotect(static_cast<char*>(memory_) + mapped_ - page, page, PROT_NONE) != 0)
      std::abort();
    data_ = reinterpret_cast<float*>(static_cast<char*>(memory_) + mapped_ - page - bytes);
#else
    memory_ = data_ = static_cast<float*>(std::malloc(bytes + 1));
#endif
  }
  ~PageEnd() {
#if defined(_WIN32)
    VirtualFree(memory_, 0, MEM_RELEASE);
#elif defined(__unix__) || defined(__APPLE__)
    munmap(memory_, mapped_);
#else
    std::free(memory_);
#endif
  }
  PageEnd(const PageEnd&) = delete;
  PageEnd& operator=(const PageEnd&) = delete;

  float* data() { return data_; }
  void fill(Random& random) {
    for (int64_t i = 0; i < size_; ++i) data_[i] = random.uniform(-1, 1);
  }

 private:
  int64_t size_;
  void* memory_ = nullptr;
  size_t mapped_ = 0;
  float* data_ = nullptr;
};

// Scratch for a kernel: 64-byte aligned, exactly `size` bytes, full of NaN, and guarded behind.
class Scratch {
 public:
  explicit Scratch(size_t size) : matrix_(1, int64_t((size + 3) / 4)) {
    matrix_.fill(std::numeric_limits<float>::quiet_NaN());
  }
  std::byte* data() { return reinterpret_cast<std::byte*>(matrix_.data()); }
  bool intact() const { return matrix_.intact(); }

 private:
  Matrix<float> matrix_;
};

// Fails unless |got - want| <= tolerance for every element, NaN failing too; `tolerance(i, j)` says
// how far off element (i, j) may be. Reports the element that is worst in units of its tolerance.
template <class Tolerance>
void check_close(const std::string& what, const Matrix<float>& got, const Matrix<float>& want,
                 Tolerance tolerance, const char* file, int line) {
  double worst = -1.0;
  int64_t worst_i = 0, worst_j = 0;
  for (int64_t i = 0; i < want.rows(); ++i) {
    for (int64_t j = 0; j < want.cols(); ++j) {
      if (got.at(i, j) == want.at(i, j)) continue;
      const double error = std::fabs(double(got.at(i, j)) - double(want.at(i, j)));
      const double allowed = tolerance(i, j);
      double ratio = allowed > 0.0 ? error / allowed : std::numeric_limits<double>::infinity();
      if (std::isnan(ratio)) ratio = std::numeric_limits<double>::infinity();
      if (ratio > worst) worst = ratio, worst_i = i, worst_j = j;
    }
  }
  if (worst > 1.0) {
    report_failure(file, line,
                   cat(what, ": element [", worst_i, ", ", worst_j, "] is ",
                       got.at(worst_i, worst_j), " instead of ", want.at(worst_i, worst_j), ", ",
                       worst, " times the tolerance ", tolerance(worst_i, worst_j)));
  }
}

// Whether all elements have the same bits.
inline bool identical(const Matrix<float>& a, const Matrix<float>& b) {
  for (int64_t i = 0; i < a.rows(); ++i) {
    if (std::memcmp(a.row(i), b.row(i), size_t(a.cols()) * sizeof(float)) != 0) return false;
  }
  return a.rows() == b.rows() && a.cols() == b.cols();
}

}  // namespace trine::test

#define CHECK_CLOSE(what, got, want, tolerance) \
  ::trine::test::check_close((what), (got), (want), (tolerance), __FILE__, __LINE__)
