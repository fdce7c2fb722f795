// SPDX-License-Identifier: Apache-2.0
#include "gpu/quantised.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/share.h"
#include "exec/host.h"
#include "gpu/values.h"
#include "weights/groups.h"

namespace trine::gpu {
namespace {

constexpr int64_t kLeastRows = 64;  // for a thread

struct Places {
  std::byte* rows;
  std::byte* scales;
};

void pack_int8(const host::Part& from, const Places& to) {
  const int64_t ldw = quantised_ldw(DType::kI8, from.cols);
  share(from.rows, kLeastRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      auto* const row = reinterpret_cast<int8_t*>(to.rows + r * ldw);
      const float scale = host::quantise_row(from, r, row);
      std::memset(row + from.cols, 0, static_cast<size_t>(ldw - from.cols));
      std::memcpy(to.scales + r * int64_t{sizeof scale}, &scale, sizeof scale);
    }
  });
}

bool pack_groups(const host::Part& from, DType form, const Places& to) {
  constexpr int64_t kHalf = kGroup / 2;
  const GroupForm as = form == kInt4Groups ? GroupForm::kInt4 : GroupForm::kInt8;
  const int bits = group_bits(as);
  const int64_t ldw = quantised_ldw(form, from.cols), count = groups_of(from.cols);
  std::atomic<bool> finite = true;
  share(from.rows, kLeastRows, [&](int64_t begin, int64_t end) {
    constexpr int64_t kStep = 256;  // of K, the largest block of a type
    for (int64_t r = begin; r < end; ++r) {
      std::byte* q = to.rows + r * ldw;
      std::byte* scales = to.scales + r * count * 4;
      for (int64_t k0 = 0; k0 < from.cols; k0 += kStep) {
        Group groups[kStep / kGroup];
        const int64_t k = std::min(kStep, from.cols - k0);
        if (!host::groups_of_row(from, r, k0, k, as, groups)) finite = false;
        for (int64_t g = 0; g < groups_of(k); ++g, scales += 4) {
          const Group& group = groups[g];
          std::memcpy(scales, &group.scale[0], 2);
          std::memcpy(scales + 2, &group.min[0], 2);
          for (int64_t i = 0; i < (bits == 4 ? kHalf : kGroup); ++i) {
            const unsigned high = bits == 4 ? static_cast<unsigned>(group.q[i + kHalf]) << 4 : 0;
            *q++ = static_cast<std::byte>(group.q[i] | high);
          }
        }
      }
    }
  });
  return finite;
}

}  // namespace

DType quantised_form(const Graph& graph, NodeId weight, DType multiplied) {
  if (multiplied == DType::kI8) return DType::kI8;
  return group_bits(host::group_form(graph, weight)) == 4 ? kInt4Groups : kQ8Groups;
}

void pack_quantised(const Graph& graph, NodeId weight, DType form, std::byte* to) {
  const std::vector<host::Part> parts = host::parts(graph, weight);
  int64_t n = 0;
  for (const host::Part& p : parts) n += p.rows;
  const int64_t k = parts[0].cols, ldw = quantised_ldw(form, k);
  Places places = {to, to + n * ldw};
  for (const host::Part& p : parts) {
    if (form == DType::kI8) {
      pack_int8(p, places);
    } else if (!pack_groups(p, form, places)) {
      host::throw_not_in_groups(graph, weight, static_cast<size_t>(&p - parts.data()));
    }
    places.rows += p.rows * ldw;
    places.scales += quantised_bytes(form, p.rows, k) - p.rows * ldw;
  }
}

}  // namespace trine::gpu
