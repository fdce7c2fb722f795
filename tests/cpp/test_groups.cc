// SPDX-License-Identifier: Apache-2.0
// Weights in groups: what of GGUF is held exactly, how far off the rest is, and how it is packed.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "pack_plainly.h"
#include "weights/groups.h"

namespace trine::test {
namespace {

constexpr DType kBlocks[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                             DType::kQ8_0, DType::kQ4K,  DType::kQ5K,  DType::kQ6K};

// Random blocks whose f16 are finite and far from the largest.
std::vector<std::byte> random_blocks(DType dtype, int64_t elements, Random& random) {
  std::vector<std::byte> bytes(bytes_of(dtype, elements));
  for (std::byte& b : bytes) b = std::byte(random.below(256));
  const size_t block = bytes_of(dtype, block_of(dtype));
  for (size_t at = 0; at < bytes.size(); at += block) {
    const bool last = dtype == DType::kQ6K;  // its only f16 is behind the rest
    for (const size_t half : {size_t{0}, size_t{2}}) {
      const uint16_t value = f32_to_f16(random.uniform(-0.5f, 0.5f));
      std::memcpy(bytes.data() + at + (last ? block - 2 : half), &value, 2);
      const bool one = dtype == DType::kQ4_0 || dtype == DType::kQ5_0 || dtype == DType::kQ8_0;
      if (one || last) break;
    }
  }
  return bytes;
}

// Its own form, or what has as many bits of the two that GPUs have; of floats, both of those.
bool is_asked_for(GroupForm form, DType dtype) {
  const GroupForm own = group_form(dtype);
  const bool four = group_bits(own) == 4;
  return form == own || (form == GroupForm::kInt4 && four) ||
         (form == GroupForm::kInt8 && (!four || block_of(dtype) == 1));
}

}  // namespace

TEST(groups_hold_blocks_of_gguf) {
  Random random(1);
  constexpr int64_t kCount = 4096;
  for (const DType dtype : kBlocks) {
    const std::vector<std::byte> bytes = random_blocks(dtype, kCount, random);
    std::vector<float> want(kCount);
    to_f32(dtype, bytes.data(), want.data(), kCount);
    for (const GroupForm form : kGroupForms) {
      if (!is_asked_for(form, dtype)) continue;
      std::vector<Group> groups(kCount / kGroup);
      CHECK(to_groups(dtype, bytes.data(), kCount, form, groups.data()));
      for (int64_t i = 0; i < kCount; ++i) {
        const Group& group = groups[size_t(i / kGroup)];
        CHECK(group.q[i % kGroup] < 1 << group_bits(form));
        const float got = group.value(i % kGroup), exact = want[size_t(i)];
        const int64_t half = i % kGroup / 16;
        const float scale = std::fabs(f16_to_f32(group.scale[half])),
                    min = std::fabs(f16_to_f32(group.min[half]));
        if (form == GroupForm::kQ4_0) CHECK_EQ(min, 8 * scale);
        if (form == GroupForm::kQ6_K) CHECK_EQ(min, 32 * scale);
        if (form == GroupForm::kQ8_0) CHECK_EQ(min, 128 * scale);
        if (form != GroupForm::kQ6_K) CHECK_EQ(group.scale[0], group.scale[1]);
        if (dtype <= DType::kQ8_0) {
          CHECK_EQ(got, exact);
        } else if (form == GroupForm::kQ6_K) {
          // The scale rounded to f16 (normal ones, and those below), nothing else.
          CHECK(std::fabs(got - exact) <= 0x1.01p-11f * std::fabs(exact) +
                                              0x1p-25f * std::fabs(exact / std::max(scale, 1e-7f)));
        } else if (dtype != DType::kQ6K) {
          // Scale and minimum rounded to f16, 2^-11 of each at most (all are normal), and floats.
          CHECK(std::fabs(got - exact) <= 0x1.01p-11f * (scale * float(group.q[i % kGroup]) + min));
        } else {
          // Half a step, and what the rounding of scale and minimum moves the outermost level by.
          CHECK(std::fabs(got - exact) <= 0.5f * scale + 0x1.01p-11f * (scale * 255.0f + min));
        }
      }
    }
  }
}

TEST(groups_of_floats) {
  Random random(2);
  double squared_plain = 0.0, squared = 0.0;
  for (int round = 0; round < 400; ++round) {
    float values[kGroup];
    const int64_t n = 1 + random.below(kGroup);
    float least = 1e9f, largest = -1e9f;
    for (int64_t i = 0; i < n; ++i) {
      values[i] = 0.0f;
      for (int j = 0; j < 4; ++j) values[i] += random.uniform(-0.05f, 0.05f);  // near normal
      least = std::min(least, values[i]);
      largest = std::max(largest, values[i]);
    }
    const float step = (largest - least) / 15.0f;
    Group group;
    quantise_group(values, n, 4, group);
    for (int64_t i = 0; i < n; ++i) {
      const double error = double(group.value(i)) - double(values[i]);
      const double level = std::nearbyint((values[i] - least) / (step > 0.0f ? step : 1.0f));
      const double plain = double(least) + level * double(step) - double(values[i]);
      squared += error * error;
      squared_plain += plain * plain;
      // Cut by three levels of eighteen at most, and half a step.
      CHECK(std::fabs(error) <= 2.1 * double(step) + 1e-4);
    }
    quantise_group(values, n, 8, group);
    for (int64_t i = 0; i < n; ++i)
      CHECK(std::fabs(group.value(i) - values[i]) <= 0.5f * step * 15.0f / 255.0f + 3e-4f);
  }
  // The search gains a tenth on numbers like these.
  CHECK(squared < 0.93 * squared_plain);

  Group group;
  const float same[3] = {0.3f, 0.3f, 0.3f};
  quantise_group(same, 3, 4, group);
  CHECK(std::fabs(group.value(0) - 0.3f) <= 0x1p-12f);
  const float levels[3] = {0.0f, 1.0f, 15.0f};  // exact ones stay
  quantise_group(levels, 3, 4, group);
  for (int i = 0; i < 3; ++i) CHECK_EQ(group.value(i), levels[i]);
}

TEST(groups_refuse_what_f16_does_not_hold) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float bad : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN(), 1e6f, -1e6f}) {
    for (const int64_t at : {0, 5, 31, 40, 299}) {
      std::vector<float> values(300, 0.25f);
      values[size_t(at)] = bad;
      std::vector<Group> groups(10);
      const auto* const bytes = reinterpret_cast<const std::byte*>(values.data());
      CHECK(!to_groups(DType::kF32, bytes, 300, GroupForm::kInt4, groups.data()));
      values[size_t(at)] = 60000.0f;
      CHECK(to_groups(DType::kF32, bytes, 300, GroupForm::kInt4, groups.data()));
    }
  }
}

TEST(pack_linear_groups_lays_out_panels) {
  Random random(3);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kQ4_0, DType::kQ4_1, DType::kQ8_0,
                            DType::kQ4K, DType::kQ6K}) {
    for (const auto& [n, blocks] :
         {std::pair<int64_t, int64_t>{1, 1}, {16, 2}, {33, 11}, {40, 9}}) {
      const int64_t k = block_of(dtype) == 1 ? blocks * 32 - 5 : blocks * block_of(dtype);
      std::vector<std::byte> source;
      if (block_of(dtype) == 1) {
        for (int64_t i = 0; i < n * k; ++i) {
          const float value = random.uniform(-1, 1);
          const auto* const p = reinterpret_cast<const std::byte*>(&value);
          source.insert(source.end(), p + (4 - size_of(dtype)), p + 4);
        }
      } else {
        source = random_blocks(dtype, n * k, random);
      }
      for (const GroupForm form : kGroupForms) {
        if (!is_asked_for(form, dtype)) continue;
        std::vector<Group> groups(size_t(n * groups_of(k)));
        for (int64_t i = 0; i < n; ++i) {
          CHECK(to_groups(dtype, source.data() + bytes_of(dtype, i * k), k, form,
                          groups.data() + i * groups_of(k)));
        }
        const std::vector<uint8_t> want = pack_plainly(groups, n, form);
        CHECK_EQ(int64_t(want.size()), (n + 15) / 16 * 16 * groups_of(k) * group_bytes(form));
        for (const int threads : {1, 3}) {
          cpu::ThreadPool pool(threads);
          Matrix<uint8_t> packed(1, int64_t(want.size()));
          CHECK(cpu::pack_linear_groups(source.data(), dtype, n, k, form,
                                        reinterpret_cast<std::byte*>(packed.data()), pool));
          CHECK_EQ(std::memcmp(packed.data(), want.data(), want.size()), 0);
          CHECK(packed.intact());
        }
      }
    }
  }
}

}  // namespace trine::test
