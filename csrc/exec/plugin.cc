// SPDX-License-Identifier: Apache-2.0
#include "exec/plugin.h"

#include <filesystem>
#include <map>
#include <mutex>
#include <string_view>
#include <system_error>

#if defined(_WIN32)
#include "base/windows.h"
#else
#include <dlfcn.h>
#endif

#include "base/error.h"

namespace trine {
namespace {

constexpr char kSymbol[] = "trine_plugin";
constexpr size_t kReason = 1024;

#if defined(_WIN32)
const void* find_symbol(const std::string& path) {
  const std::filesystem::path file(std::u8string(path.begin(), path.end()));
  const HMODULE library = LoadLibraryW(file.c_str());
  if (library == nullptr) {
    const int code = static_cast<int>(GetLastError());
    throw DeviceError(cat(path, " does not load: ", std::system_category().message(code)));
  }
  return reinterpret_cast<const void*>(GetProcAddress(library, kSymbol));
}

std::filesystem::path file_of(const void* address) {
  HMODULE library = nullptr;
  constexpr DWORD kFlags =
      GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
  if (!GetModuleHandleExW(kFlags, static_cast<LPCWSTR>(address), &library)) return {};
  std::wstring name(size_t{1} << 15, L'\0');  // the longest path there is
  name.resize(GetModuleFileNameW(library, name.data(), static_cast<DWORD>(name.size())));
  return name;
}
#else
const void* find_symbol(const std::string& path) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw DeviceError(cat(path, " does not load: ", dlerror()));
  return dlsym(library, kSymbol);
}

std::filesystem::path file_of(const void* address) {
  Dl_info found;
  if (dladdr(address, &found) == 0 || found.dli_fname == nullptr) return {};
  std::error_code failed;  // a program started by a relative path has that here
  const auto path = std::filesystem::absolute(found.dli_fname, failed);
  return failed ? std::filesystem::path(found.dli_fname) : path;
}
#endif

}  // namespace

#define TRINE_TEXT_OF(x) #x
#define TRINE_TEXT(x) TRINE_TEXT_OF(x)

const char* plugin_build() noexcept {
  return "trine " TRINE_VERSION ", plugin API " TRINE_TEXT(TRINE_PLUGIN_API)
#if defined(__clang__)
      ", clang " TRINE_TEXT(__clang_major__);
#elif defined(__GNUC__)
      ", gcc " TRINE_TEXT(__GNUC__);
#elif defined(_MSC_VER)
      ", msvc " TRINE_TEXT(_MSC_VER);
#else
      ;
#endif
}

const Plugin& Plugin::load(const std::string& path) {
  static std::mutex mutex;
  static std::map<std::string, Plugin> loaded;
  const std::lock_guard lock(mutex);
  if (const auto found = loaded.find(path); found != loaded.end()) return found->second;
  const auto* const api = static_cast<const PluginApi*>(find_symbol(path));
  if (api == nullptr) throw DeviceError(cat(path, " is no plugin of trine: it lacks ", kSymbol));
  if (api->version != PluginApi::kVersion || std::string_view(api->build) != plugin_build()) {
    throw DeviceError(cat(path, " was made for another build (", api->build, "; this is ",
                          plugin_build(), "): install the plugin of the same version"));
  }
  return loaded.emplace(path, Plugin(api)).first->second;
}

std::filesystem::path library_folder() {
  static const char here = 0;
  return file_of(&here).parent_path();
}

int Plugin::devices() const {
  char reason[kReason] = "";
  const int count = api_->devices(reason, sizeof reason);
  if (count < 0) throw DeviceError(reason);
  return count;
}

std::unique_ptr<Backend> Plugin::make(int index, DType dtype) const {
  char reason[kReason] = "";
  std::unique_ptr<Backend> backend(api_->make(index, dtype, reason, sizeof reason));
  if (!backend) throw DeviceError(reason);
  return backend;
}

}  // namespace trine
