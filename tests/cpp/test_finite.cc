// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "exec/finite.h"

namespace trine {
namespace {

TEST(odd_numbers_are_found_wherever_they_are) {
  constexpr float kMost = std::numeric_limits<float>::max(), kInf = INFINITY;
  for (size_t n = 0; n < 70; ++n) {
    std::vector<float> x(n, kMost);
    for (size_t i = 0; i < n; i += 3) x[i] = i % 2 == 0 ? -kMost : std::nextafter(0.0f, 1.0f);
    CHECK(all_finite(x.data(), n));
    for (size_t i = 0; i < n; ++i) {
      for (const float odd : {kInf, -kInf, std::nanf(""), -std::nanf("1")}) {
        const float before = x[i];
        x[i] = odd;
        CHECK(!all_finite(x.data(), n));
        x[i] = before;
      }
    }
  }
}

TEST(the_weight_to_blame_is_named) {
  WeightStore store;
  const auto add = [&](const char* name, std::vector<float> values) {
    const auto data = std::make_shared<std::vector<float>>(std::move(values));
    store.add(name, DType::kF32, {static_cast<int64_t>(data->size())}, data,
              std::as_bytes(std::span(*data)), "a.safetensors");
  };
  const auto all = [](std::string_view) { return true; };
  std::vector<float> long_one(9000, 1.0f);
  add("sound", long_one);
  CHECK_EQ(find_not_finite(store, all), std::string());
  long_one[8999] = -INFINITY;
  add("large", long_one);
  CHECK_EQ(find_not_finite(store, all),
           std::string("a.safetensors: tensor \"large\" holds an infinity"));
  long_one[8998] = NAN;
  add("odd", long_one);
  CHECK_EQ(find_not_finite(store, [](std::string_view name) { return name == "odd"; }),
           std::string("a.safetensors: tensor \"odd\" holds a NaN"));
}

}  // namespace
}  // namespace trine
