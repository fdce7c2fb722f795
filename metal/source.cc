// SPDX-License-Identifier: Apache-2.0
#include "source.h"

#include <algorithm>
#include <set>

#include "base/error.h"

namespace trine::metal {
namespace {

struct File {
  std::string_view name;  // "kernels/linear.metal"
  std::string_view text;
};
constexpr File kFiles[] = {
#include "embedded_sources.inc"  // made by embed.cmake
};

void expand(std::string_view name, std::set<std::string_view>& known, std::string& out) {
  const File* file = nullptr;
  for (const File& f : kFiles) file = f.name == name ? &f : file;
  if (file == nullptr) throw DeviceError(cat("Metal: this build has no source ", name));
  if (!known.insert(file->name).second) return;
  constexpr std::string_view kInclude = "#include \"";
  for (std::string_view rest = file->text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.starts_with(kInclude)) {
      const std::string_view from = line.substr(kInclude.size());
      // Others are those of the emulator, which Metal's own compiler doesn't come to.
      if (from.starts_with("kernels/")) expand(from.substr(0, from.find('"')), known, out);
    } else if (line != "#pragma once") {
      out.append(line).push_back('\n');
    }
  }
}

}  // namespace

std::string kernel_source(std::string_view name) {
  std::set<std::string_view> known;
  std::string out;
  expand(cat("kernels/", name, ".metal"), known, out);
  return out;
}

}  // namespace trine::metal
