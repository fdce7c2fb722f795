// SPDX-License-Identifier: Apache-2.0
#include "cpu/unpack.h"

#include <algorithm>
#include <cstring>

#include "base/share.h"
#include "cpu/kernel_table.h"
#include "cpu/positions.h"
#include "exec/args.h"
#include "exec/host.h"
#include "weights/groups.h"

namespace trine::cpu {
namespace {

constexpr int64_t kLine = 64;  // bytes

// Rows of `row` bytes, made panel by panel: make(panel, first row's place, rows there).
template <class Make>
Numbers of_panels(DType dtype, int64_t rows, int64_t row, const Make& make) {
  const std::shared_ptr<std::byte> memory = host::alloc(static_cast<size_t>(rows * row));
  share((rows + kPanel - 1) / kPanel, 8, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      std::byte* const first = memory.get() + panel * kPanel * row;
      make(panel, first, std::min(kPanel, rows - panel * kPanel));
    }
  });
  return {memory.get(), dtype, memory};
}

// Of each line, which has four bytes for each of 16 columns, a column's into its row, `used` bytes.
void scatter(const std::byte* from, int64_t used, std::byte* to, int64_t row, int64_t columns) {
  constexpr int64_t kWord = kLine / kPanel, kStep = 16;  // lines; a row's are one line of memory
  for (int64_t first = 0; first < used; first += kStep * kWord) {
    const int64_t lines = std::min(kStep, (used - first) / kWord);
    const auto rest = static_cast<size_t>(std::min(kStep * kWord, used - first) - lines * kWord);
    for (int64_t c = 0; c < columns; ++c) {
      const std::byte* word = from + first / kWord * kLine + c * kWord;
      std::byte* out = to + c * row + first;
      for (int64_t i = 0; i < lines; ++i, word += kLine, out += kWord)
        std::memcpy(out, word, size_t{kWord});
      if (rest > 0) std::memcpy(out, word, rest);
    }
  }
}

Numbers dense(const std::byte* packed, DType dtype, int64_t rows, int64_t cols, int64_t lines) {
  const auto row = cols * static_cast<int64_t>(size_of(dtype));
  return of_panels(dtype, rows, row, [=](int64_t panel, std::byte* to, int64_t columns) {
    scatter(packed + panel * lines * kLine, row, to, row, columns);
  });
}

Numbers int8_rows(const std::byte* packed, int64_t rows, int64_t cols, int64_t lines) {
  const int64_t row = int8::row_bytes(cols);
  return of_panels(DType::kI8, rows, row, [=](int64_t panel, std::byte* to, int64_t columns) {
    const std::byte* const from = packed + panel * lines * kLine;
    scatter(from, cols, to, row, columns);
    for (int64_t c = 0; c < columns; ++c)
      std::memcpy(to + c * row + row - 4, from + (lines - 2) * kLine + c * 4, 4);
  });
}

// Column `c` of 16, of which a group lies at `from` as pack_groups.cc puts it.
Group group_of(const std::byte* from, GroupForm form, int64_t c) noexcept {
  Group group = {};
  const auto* line = reinterpret_cast<const uint8_t*>(from) + c * 4;
  const bool whole = group_bits(form) == 8;
  for (int64_t quad = 0; quad < 8; quad += whole ? 1 : 2, line += kLine) {
    for (int64_t b = 0; b < 4; ++b) {
      group.q[4 * quad + b] = static_cast<uint8_t>(whole ? line[b] : line[b] & 15u);
      if (!whole) group.q[4 * quad + 4 + b] = static_cast<uint8_t>(line[b] >> 4u);
    }
  }
  if (form == GroupForm::kQ6_K) {
    for (int64_t k = 0; k < kGroup; k += 16, line += kLine) {
      for (int64_t i = 0; i < 16; ++i) {
        const unsigned high = (line[i % 4] >> (2 * (i / 4))) & 3u;
        group.q[k + i] = static_cast<uint8_t>(group.q[k + i] | high << 4u);
      }
    }
  }
  const auto* halves = reinterpret_cast<const std::byte*>(line) - c * 4 + c * 2;
  const auto next = [&](uint16_t& to) {
    std::memcpy(&to, halves, sizeof to);
    halves += kPanel * 2;
  };
  next(group.scale[0]);
  group.scale[1] = group.scale[0];
  if (form == GroupForm::kQ6_K) next(group.scale[1]);
  if (form == GroupForm::kInt4 || form == GroupForm::kInt8) {
    next(group.min[0]);
    group.min[1] = group.min[0];
  } else {
    for (int half = 0; half < 2; ++half) group.min[half] = minimum_of(form, group.scale[half]);
  }
  return group;
}

Numbers group_rows(const std::byte* packed, GroupForm form, int64_t rows, int64_t cols) {
  const int64_t groups = groups_of(cols), bytes = kPanel * group_bytes(form);
  const auto row = groups * static_cast<int64_t>(sizeof(Group));
  return of_panels(dtype_of(form), rows, row, [=](int64_t panel, std::byte* to, int64_t columns) {
    for (int64_t g = 0; g < groups; ++g) {
      const std::byte* const from = packed + (panel * groups + g) * bytes;
      for (int64_t c = 0; c < columns; ++c)
        reinterpret_cast<Group*>(to + c * row)[g] = group_of(from, form, c);
    }
  });
}

Numbers position_table(const Form& form, const std::byte* packed, std::span<const int64_t> dims,
                       const AttentionAttrs& attrs) {
  const auto size = static_cast<size_t>(size_of(form.dtype));
  const std::shared_ptr<std::byte> memory =
      host::alloc(static_cast<size_t>(dims[0] * dims[1]) * size);
  unpack_positions(packed, form.dtype, attrs, dims[1] / attrs.heads, memory.get());
  return {memory.get(), form.dtype, memory};
}

}  // namespace

Numbers unpack(const Form& form, const std::byte* packed, std::span<const int64_t> dims,
               const AttentionAttrs* attrs) {
  if (attrs != nullptr && form.name.starts_with("positions"))
    return position_table(form, packed, dims, *attrs);
  if (!form.name.starts_with("panels")) return {packed, form.dtype, nullptr};
  if (const auto groups = group_form_of(form.dtype))
    return group_rows(packed, *groups, dims[0], dims[1]);
  const int64_t lines = form.shape[1];
  if (form.dtype == DType::kI8) return int8_rows(packed, dims[0], dims[1], lines);
  return dense(packed, form.dtype, dims[0], dims[1], lines);
}

}  // namespace trine::cpu
