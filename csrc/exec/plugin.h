// SPDX-License-Identifier: Apache-2.0
// Devices that come as a shared library beside the core, which is loaded when it is asked for: the
// core itself needs no driver. A plugin exports one C symbol, trine_plugin, of this type.
//
// Plugin and core exchange C++ objects, so they must be of one build: `build` names what they must
// agree on.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>

#include "backend.h"

namespace trine {

#define TRINE_PLUGIN_API 1

struct PluginApi {
  static constexpr int kVersion = TRINE_PLUGIN_API;
  int version;
  const char* build;
  // How many devices there are. Negative: none can be used, and `reason` says why and what to do.
  int (*devices)(char* reason, size_t size) noexcept;
  // The dtype that device `index` is fastest in.
  DType (*default_dtype)(int index) noexcept;
  // Null when it fails, with the reason.
  Backend* (*make)(int index, DType dtype, char* reason, size_t size) noexcept;
};

// What a plugin and a core must agree on.
const char* plugin_build() noexcept;

// The folder of the library that this code is in; empty when the system doesn't say.
std::filesystem::path library_folder();

// A loaded plugin; it stays loaded until the process ends.
class Plugin {
 public:
  // DeviceError when the file is missing, does not load or is of another build.
  static const Plugin& load(const std::string& path);

  // 0 or more, or a DeviceError with the reason.
  int devices() const;
  DType default_dtype(int index) const { return api_->default_dtype(index); }
  std::unique_ptr<Backend> make(int index, DType dtype) const;

 private:
  explicit Plugin(const PluginApi* api) : api_(api) {}
  const PluginApi* api_;
};

}  // namespace trine
