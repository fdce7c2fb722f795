// SPDX-License-Identifier: Apache-2.0
#include "exec/devices.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "exec/plugin.h"

namespace trine {
namespace {

// In the order in which "auto" looks for them, and whether hardware has run them.
struct Kind {
  std::string_view name;
  bool proven;
};
constexpr Kind kKinds[] = {{"cuda", true}, {"metal", false}};

constexpr char kSearch[] = "TRINE_PLUGIN_PATH";
#if defined(_WIN32)
constexpr char kSeparator = ';';
constexpr std::string_view kEnding = ".dll";
#elif defined(__APPLE__)
constexpr char kSeparator = ':';
constexpr std::string_view kEnding = ".dylib";
#else
constexpr char kSeparator = ':';
constexpr std::string_view kEnding = ".so";
#endif

std::filesystem::path from_utf8(std::string_view text) {
  return std::filesystem::path(std::u8string(text.begin(), text.end()));
}

std::vector<std::filesystem::path> folders() {
  std::vector<std::filesystem::path> found;
  const char* const named = std::getenv(kSearch);
  std::string_view rest = named == nullptr ? "" : named;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(kSeparator), rest.size());
    if (end > 0) found.push_back(from_utf8(rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const std::filesystem::path own = library_folder();
  found.push_back(own);
  // In a wheel the C++ library lies in trine/cpp/lib, plugins in trine.
  if (own.filename() == "lib" && own.parent_path().filename() == "cpp")
    found.push_back(own.parent_path().parent_path());
  return found;
}

// Its path, or nothing.
std::string find_plugin(std::string_view name) {
  for (const std::filesystem::path& folder : folders()) {
    const std::filesystem::path path = folder / cat("libtrine_", name, kEnding);
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) continue;
    const std::u8string text = path.u8string();
    return {text.begin(), text.end()};
  }
  return {};
}

Device automatic() {
  std::string reasons;
  for (const Kind& kind : kKinds) {
    const std::string path = find_plugin(kind.name);
    if (path.empty()) continue;
    try {
      const int count = Plugin::load(path).devices();
      if (kind.proven)
        return {std::string(kind.name), path,
                cat("auto: the first of ", count, " ", kind.name, " devices")};
      reasons +=
          cat("; ", kind.name, ": not run on hardware yet; device='", kind.name, "' takes it");
    } catch (const DeviceError& error) {
      reasons += cat("; ", kind.name, ": ", error.what());
    }
  }
  return {"cpu", "", cat("auto", reasons.empty() ? "; no plugin of a GPU is there" : reasons)};
}

// "cuda" is the first GPU, "cuda:1" the second.
int index_of(const std::string& device) {
  const size_t colon = device.find(':');
  if (colon == std::string::npos) return 0;
  int index = -1;
  const char* const end = device.data() + device.size();
  const auto parsed = std::from_chars(device.data() + colon + 1, end, index);
  if (parsed.ec != std::errc() || parsed.ptr != end || index < 0)
    throw DeviceError(cat("device \"", device, "\": expected a number from 0 behind the colon"));
  return index;
}

}  // namespace

Device choose_device(const std::string& name) {
  if (name == "auto") return automatic();
  const std::string kind = name.substr(0, name.find(':'));
  const auto is_it = [&](const Kind& k) { return k.name == kind; };
  if (std::none_of(std::begin(kKinds), std::end(kKinds), is_it)) return {name, "", "asked for"};
  const std::string path = find_plugin(kind);
  if (path.empty()) {
    std::string option = kind;
    for (char& c : option) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    throw DeviceError(cat("device \"", name, "\": this installation has no plugin libtrine_", kind,
                          "; build trine with TRINE_", option,
                          "=ON, or name the folder of the library in ", kSearch));
  }
  Plugin::load(path).devices();  // says why none can be used
  return {name, path, "asked for"};
}

DType default_dtype(const Device& device) {
  if (!device.plugin.empty())
    return Plugin::load(device.plugin).default_dtype(index_of(device.name));
  return device.name == "cpu" ? cpu_default_dtype() : DType::kF32;
}

std::unique_ptr<Backend> make_backend(const Device& device, DType dtype, int threads) {
  constexpr int kMostThreads = 1024;
  if (threads < 0 || threads > kMostThreads)
    throw InputError(cat("threads must be from 1 to ", kMostThreads, ", not ", threads));
  if (device.name == "cpu") return make_cpu_backend(threads, dtype);
  if (device.name == "ref") return make_ref_backend(dtype);
  if (!device.plugin.empty()) return Plugin::load(device.plugin).make(index_of(device.name), dtype);
  throw DeviceError(cat("no device \"", device.name, "\" in this build; cpu is"));
}

}  // namespace trine
