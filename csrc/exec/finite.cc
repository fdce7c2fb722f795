// SPDX-License-Identifier: Apache-2.0
#include "exec/finite.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "weights/convert.h"

namespace trine {
namespace {

constexpr uint32_t kInfinity = 0x7F800000u;

// "a NaN", "an infinity", or null when all of a piece of a tensor are numbers.
const char* find_odd(DType dtype, const std::byte* data, size_t elements) {
  constexpr size_t kPiece = 4096;  // whole blocks of every type
  float floats[kPiece];
  for (size_t i = 0; i < elements; i += kPiece) {
    const size_t n = std::min(kPiece, elements - i);
    to_f32(dtype, data + bytes_of(dtype, static_cast<int64_t>(i)), floats, n);
    if (all_finite(floats, n)) continue;
    const bool nan = std::any_of(floats, floats + n, [](float v) { return std::isnan(v); });
    return nan ? "a NaN" : "an infinity";
  }
  return nullptr;
}

const char* find_odd(const Tensor& tensor) {
  if (!is_readable(tensor.dtype)) return nullptr;
  size_t elements = 1;
  for (const int64_t d : tensor.shape) elements *= static_cast<size_t>(d);
  if (tensor.elsewhere) {
    const Numbers numbers = numbers_of(tensor);
    return is_readable(numbers.dtype) ? find_odd(numbers.dtype, numbers.data, elements) : nullptr;
  }
  std::vector<const std::byte*> pieces = tensor.pieces;
  if (tensor.data != nullptr) pieces.push_back(tensor.data);
  for (const std::byte* piece : pieces) {
    if (const char* odd = find_odd(tensor.dtype, piece, elements / pieces.size())) return odd;
  }
  return nullptr;
}

}  // namespace

bool all_finite(const float* x, size_t n) noexcept {
  constexpr size_t kLanes = 16;  // a loop over them becomes vectors
  uint32_t odd[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      const uint32_t bits = std::bit_cast<uint32_t>(x[i + l]) & kInfinity;
      odd[l] |= bits == kInfinity ? 1u : 0u;
    }
  }
  for (; i < n; ++i) odd[0] |= std::isfinite(x[i]) ? 0u : 1u;
  return std::all_of(odd, odd + kLanes, [](uint32_t o) { return o == 0; });
}

std::string find_not_finite(const WeightStore& weights,
                            const std::function<bool(std::string_view)>& wanted) {
  for (const Tensor& tensor : weights) {
    if (!wanted(tensor.name)) continue;
    if (const char* odd = find_odd(tensor))
      return cat(tensor.file, ": tensor \"", tensor.name, "\" holds ", odd);
  }
  return {};
}

}  // namespace trine
