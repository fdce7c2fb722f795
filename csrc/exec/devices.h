// SPDX-License-Identifier: Apache-2.0
// Which device a model runs on, and the plugin library that it comes in.
#pragma once

#include <memory>
#include <string>

#include "backend.h"

namespace trine {

struct Device {
  std::string name = "cpu";  // "ref", "cuda", "cuda:1", "metal"
  std::string plugin = "";   // the library's path; empty for what the core has in itself
  std::string reason = "";   // why it was taken
};

// The device of this name. "auto" is the first GPU of a plugin that is installed and works, else
// the CPU; it leaves Metal's to those who ask, since no hardware has run it yet. Plugins are looked
// for in the folders that TRINE_PLUGIN_PATH names, then beside this library. DeviceError when the
// plugin is not there or cannot be used: says why and what to do.
Device choose_device(const std::string& name);

// What it is fastest in.
DType default_dtype(const Device&);

// threads: of the CPU's, 0 for one for each processor that the process may use. InputError for a
// number of threads, DeviceError for a device or dtype that is not there.
std::unique_ptr<Backend> make_backend(const Device&, DType, int threads);

}  // namespace trine
