// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstring>

#include "exec/int8.h"
#include "ref/ref.h"
#include "weights/groups.h"

namespace trine::ref {

namespace {

double f16_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const double fraction = bits & 1023;
  double value;
  if (exponent == 0) {
    value = std::ldexp(fraction, -24);
  } else if (exponent < 31) {
    value = std::ldexp(1024.0 + fraction, exponent - 25);
  } else {
    value = fraction == 0.0 ? INFINITY : NAN;
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

double bf16_value(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return double{value};
}

double element(const void* table, DType dtype, int64_t index) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, static_cast<const char*>(table) + 4 * index, sizeof value);
    return double{value};
  }
  uint16_t bits;
  std::memcpy(&bits, static_cast<const char*>(table) + 2 * index, sizeof bits);
  return dtype == DType::kF16 ? f16_value(bits) : bf16_value(bits);
}

// The table alone, as rows of Group.
void embed_groups(const EmbeddingArgs& args) noexcept {
  const auto* const groups = static_cast<const Group*>(args.tables[0]);
  for (int64_t i = 0; i < args.rows; ++i) {
    const Group* const row = groups + args.ids[0][i] * groups_of(args.cols);
    for (int64_t j = 0; j < args.cols; ++j)
      args.y[i * args.ldy + j] = row[j / kGroup].value(j % kGroup);
  }
}

}  // namespace

void embedding(const EmbeddingArgs& args) noexcept {
  if (args.dtypes[0] == DType::kI8) {
    for (int64_t i = 0; i < args.rows; ++i) {
      const int64_t stride = int8::row_bytes(args.cols);
      const auto* row = static_cast<const int8_t*>(args.tables[0]) + args.ids[0][i] * stride;
      float scale;
      std::memcpy(&scale, row + stride - 4, sizeof scale);
      for (int64_t j = 0; j < args.cols; ++j)
        args.y[i * args.ldy + j] = scale * static_cast<float>(row[j]);
    }
    return;
  }
  if (group_form_of(args.dtypes[0])) return embed_groups(args);
  for (int64_t i = 0; i < args.rows; ++i) {
    for (int64_t j = 0; j < args.cols; ++j) {
      double sum = element(args.tables[0], args.dtypes[0], args.ids[0][i] * args.cols + j);
      for (int32_t t = 1; t < args.count; ++t) {
        sum += element(args.tables[t], args.dtypes[t], args.ids[t][i] * args.cols + j);
      }
      args.y[i * args.ldy + j] = static_cast<float>(sum);
    }
  }
}

}  // namespace trine::ref
