// SPDX-License-Identifier: Apache-2.0
// What a compiled file holds of a weight, as rows again: those that it was packed from.
#include "cpu/unpack.h"

#include <cstring>
#include <utility>
#include <vector>

#include "cpu/ops.h"
#include "cpu/positions.h"
#include "exec/host.h"
#include "kernel_testing.h"
#include "weights/convert.h"
#include "weights/groups.h"

namespace trine::test {
namespace {

using cpu::kPanel;

// Rows and columns: whole panels, a part of one, of one line, of the last group of K.
constexpr std::pair<int64_t, int64_t> kShapes[] = {{1, 1},   {16, 32}, {17, 33},
                                                   {40, 96}, {33, 67}, {130, 300}};

bool same_bytes(const Numbers& rows, const void* want, size_t bytes) {
  return std::memcmp(rows.data, want, bytes) == 0;
}

Form panels(const char* name, DType dtype, int64_t lines) { return {name, dtype, {0, lines, 0}}; }

TEST(panels_are_rows_again) {
  Random random(3);
  cpu::ThreadPool pool(2);
  for (const auto& [n, k] : kShapes) {
    Matrix<float> w(n, k);
    w.fill(random);
    std::vector<float> packed(static_cast<size_t>(cpu::packed_floats(n, k)));
    cpu::pack_linear(w.data(), DType::kF32, n, k, packed.data(), pool);
    const std::vector<int64_t> dims = {n, k};
    const auto* const bytes = reinterpret_cast<const std::byte*>(packed.data());
    const Numbers rows = cpu::unpack(panels("panels", DType::kF32, k), bytes, dims);
    CHECK(rows.dtype == DType::kF32);
    CHECK(same_bytes(rows, w.data(), static_cast<size_t>(n * k) * sizeof(float)));

    std::vector<uint16_t> halves(static_cast<size_t>(cpu::packed_bf16(n, k)));
    cpu::pack_linear_bf16(w.data(), DType::kF32, n, k, halves.data(), pool);
    const int64_t lines = cpu::packed_bf16(1, k) / kPanel / 2;
    const Numbers rounded = cpu::unpack(panels("panels_bf16", DType::kBF16, lines),
                                        reinterpret_cast<const std::byte*>(halves.data()), dims);
    CHECK(rounded.dtype == DType::kBF16);
    std::vector<uint16_t> want;
    for (int64_t i = 0; i < n * k; ++i) want.push_back(f32_to_bf16(w.data()[i]));
    CHECK(same_bytes(rounded, want.data(), want.size() * 2));
  }
}

TEST(panels_of_int8_are_integers_and_scales_again) {
  Random random(4);
  cpu::ThreadPool pool(2);
  for (const auto& [n, k] : kShapes) {
    Matrix<float> w(n, k);
    w.fill(random);
    std::vector<int8_t> packed(static_cast<size_t>(cpu::packed_int8(n, k)));
    cpu::pack_linear_int8(w.data(), DType::kF32, n, k, packed.data(), pool);
    const std::vector<int64_t> dims = {n, k};
    const int64_t lines = cpu::packed_int8(1, k) / kPanel / 4;
    const Numbers rows = cpu::unpack(panels("panels_int8", DType::kI8, lines),
                                     reinterpret_cast<const std::byte*>(packed.data()), dims);
    CHECK(rows.dtype == DType::kI8);
    const host::Part before{w.data(), DType::kF32, n, k, nullptr};
    const host::Part after{rows.data, rows.dtype, n, k, nullptr};
    std::vector<int8_t> want(static_cast<size_t>(k)), got(static_cast<size_t>(k));
    for (int64_t r = 0; r < n; ++r) {
      CHECK_EQ(host::quantise_row(after, r, got.data()),
               host::quantise_row(before, r, want.data()));
      CHECK(got == want);
    }
  }
}

// Of random blocks of the types that a form is for, and of floats.
TEST(panels_of_groups_are_groups_again) {
  Random random(5);
  cpu::ThreadPool pool(2);
  constexpr std::pair<GroupForm, DType> kForms[] = {{GroupForm::kInt4, DType::kF32},
                                                    {GroupForm::kInt8, DType::kF32},
                                                    {GroupForm::kQ4_0, DType::kQ4_0},
                                                    {GroupForm::kQ8_0, DType::kQ8_0},
                                                    {GroupForm::kQ6_K, DType::kQ6K}};
  for (const auto& [form, dtype] : kForms) {
    for (auto [n, k] : kShapes) {
      k = (k + block_of(dtype) - 1) / block_of(dtype) * block_of(dtype);
      std::vector<std::byte> w(static_cast<size_t>(n) * bytes_of(dtype, k));
      for (std::byte& b : w) b = std::byte(random.below(64));  // numbers that are finite as f16
      if (dtype == DType::kF32) {
        for (size_t i = 0; i < w.size(); i += sizeof(float)) {
          const float value = random.uniform(-1.0f, 1.0f);
          std::memcpy(&w[i], &value, sizeof value);
        }
      }
      const int64_t bytes = (n + kPanel - 1) / kPanel * groups_of(k) * kPanel * group_bytes(form);
      std::vector<std::byte> packed(static_cast<size_t>(bytes));
      CHECK(cpu::pack_linear_groups(w.data(), dtype, n, k, form, packed.data(), pool));
      const std::vector<int64_t> dims = {n, k};
      const Numbers rows = cpu::unpack(panels("panels_of", dtype_of(form), 0), packed.data(), dims);
      CHECK(rows.dtype == dtype_of(form));
      const host::Part before{w.data(), dtype, n, k, nullptr};
      const host::Part after{rows.data, rows.dtype, n, k, nullptr};
      std::vector<Group> want(static_cast<size_t>(groups_of(k))), got(want.size());
      for (int64_t r = 0; r < n; ++r) {
        CHECK(host::groups_of_row(before, r, 0, k, form, want.data()));
        CHECK(host::groups_of_row(after, r, 0, k, form, got.data()));
        for (size_t g = 0; g < got.size(); ++g) {
          const size_t count = std::min<size_t>(kGroup, static_cast<size_t>(k) - g * kGroup);
          CHECK(std::memcmp(got[g].q, want[g].q, count) == 0);
          CHECK(std::memcmp(got[g].scale, want[g].scale, 4) == 0);
          CHECK(std::memcmp(got[g].min, want[g].min, 4) == 0);
        }
      }
    }
  }
}

// One form's groups in another one that holds them, too: what to_groups makes of the blocks.
TEST(groups_of_one_form_in_another) {
  Random random(6);
  constexpr int64_t kDepth = 256;
  constexpr std::pair<DType, GroupForm> kCases[] = {{DType::kQ4_0, GroupForm::kInt4},
                                                    {DType::kQ4_1, GroupForm::kInt4},
                                                    {DType::kQ5_1, GroupForm::kInt8},
                                                    {DType::kQ8_0, GroupForm::kInt8}};
  for (const auto& [dtype, form] : kCases) {
    std::vector<std::byte> row(bytes_of(dtype, kDepth));
    for (std::byte& b : row) b = std::byte(random.below(64));
    Group from[kDepth / kGroup], want[kDepth / kGroup];
    const GroupForm was = group_form(dtype);
    CHECK(to_groups(dtype, row.data(), kDepth, was, from));
    CHECK(to_groups(dtype, row.data(), kDepth, form, want));
    for (size_t g = 0; g < std::size(from); ++g) {
      Group got;
      CHECK(regrouped(from[g], was, kGroup, form, got));
      CHECK(std::memcmp(&got, &want[g], sizeof got) == 0);
    }
  }
  // Q6_K has a scale for 16, so it is rounded again: as its values are.
  std::vector<std::byte> row(bytes_of(DType::kQ6K, kDepth));
  for (std::byte& b : row) b = std::byte(random.below(32));
  Group from[kDepth / kGroup];
  CHECK(to_groups(DType::kQ6K, row.data(), kDepth, GroupForm::kQ6_K, from));
  for (const Group& group : from) {
    float values[kGroup];
    for (int64_t i = 0; i < kGroup; ++i) values[i] = group.value(i);
    Group want, got;
    quantise_group(values, kGroup, 8, want);
    CHECK(regrouped(group, GroupForm::kQ6_K, kGroup, GroupForm::kInt8, got));
    CHECK(std::memcmp(&got, &want, sizeof got) == 0);
  }
  Group infinite = from[0];
  infinite.scale[0] = 0x7C00;
  CHECK(!regrouped(infinite, GroupForm::kQ6_K, kGroup, GroupForm::kQ6_K, infinite));
}

TEST(position_tables_are_rows_again) {
  Random random(7);
  for (const auto& [buckets, most] : {std::pair{0, 20}, {8, 40}, {256, 512}}) {
    AttentionAttrs attrs;
    attrs.heads = 3;
    attrs.position_buckets = buckets;
    attrs.max_relative_positions = most;
    const int64_t head_dim = 10, span = buckets > 0 ? buckets : most;
    Matrix<float> table(2 * span, attrs.heads * head_dim);
    table.fill(random);
    const std::vector<int64_t> dims = {table.rows(), table.cols()};
    std::vector<bool> is_read(static_cast<size_t>(table.rows()));
    for (const int32_t row : position_rows(attrs).values) is_read[static_cast<size_t>(row)] = true;

    const auto floats = static_cast<size_t>(cpu::positions_of(attrs, head_dim).head * attrs.heads);
    std::vector<float> packed(floats);
    cpu::pack_positions(table.data(), attrs, head_dim, packed.data());
    const Numbers rows =
        cpu::unpack({"positions.x", DType::kF32, {}},
                    reinterpret_cast<const std::byte*>(packed.data()), dims, &attrs);
    std::vector<uint16_t> halves(
        static_cast<size_t>(cpu::positions_of(attrs, (head_dim + 1) / 2).head * attrs.heads * 2));
    cpu::pack_positions_bf16(table.data(), attrs, head_dim, halves.data());
    const Numbers rounded =
        cpu::unpack({"positions_bf16.x", DType::kBF16, {}},
                    reinterpret_cast<const std::byte*>(halves.data()), dims, &attrs);
    const auto* const got = reinterpret_cast<const float*>(rows.data);
    const auto* const half = reinterpret_cast<const uint16_t*>(rounded.data);
    for (int64_t r = 0; r < table.rows(); ++r) {
      for (int64_t c = 0; c < table.cols(); ++c) {
        const float want = is_read[static_cast<size_t>(r)] ? table.at(r, c) : 0.0f;
        CHECK_EQ(got[r * table.cols() + c], want);
        CHECK_EQ(half[r * table.cols() + c], f32_to_bf16(want));
      }
    }
  }
}

}  // namespace
}  // namespace trine::test
