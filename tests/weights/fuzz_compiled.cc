// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fstream>
#include <random>

#include "base/error.h"
#include "exec/compiled.h"
#include "trine.h"

namespace {

// A fuzzer would make plans for batches that fill the memory; what a row may take is checked, what
// a machine has is not.
constexpr int64_t kMostRowBytes = 1 << 16;

void run(trine::Engine& engine, const std::string& output) {
  const trine::Plan& plan = engine.plan({output});
  if (std::max(plan.token_row_bytes, plan.sequence_row_bytes) > kMostRowBytes) return;
  const int32_t ids[] = {1, 0, 1, 1}, offsets[] = {0, 3, 3, 4};
  const bool per_token = plan.outputs[0].rows == trine::Rows::kTokens;
  std::vector<float> result(static_cast<size_t>(plan.outputs[0].value.cols * (per_token ? 4 : 3)));
  float* const place = result.data();
  engine.run(plan, {ids, offsets, {}, {}}, {&place, 1});
}

}  // namespace

// Any bytes end in a model whose outputs can be run, or in one of the library's errors. The seeds
// in tests/weights/compiled are whole files; without the checksum a changed graph gets further.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::filesystem::path path =
      std::filesystem::temp_directory_path() /
      trine::cat("fuzz-compiled-", std::random_device{}(), ".trine");
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  try {
    const trine::CompiledFile file(path, false);
    const auto engine = file.engine(trine::make_cpu_backend(1, file.dtype()));
    for (const auto& [name, id] : engine->graph().outputs) run(*engine, name);
    const auto rows = file.engine(trine::make_ref_backend(file.dtype()));
    for (const auto& [name, id] : rows->graph().outputs) run(*rows, name);
  } catch (const trine::Error&) {
  }
  return 0;
}
