// SPDX-License-Identifier: Apache-2.0
#include "device.h"

#include <unistd.h>

#include <map>
#include <vector>

#include "base/error.h"
#include "source.h"
#include "trine.h"

namespace trine::metal {
namespace {

using UInt = unsigned long;  // NSUInteger
using Int = long;            // NSInteger

struct Version {
  Int major, minor, patch;
};

constinit const Method<UInt()> array_count{"count"};
constinit const Method<Id(UInt)> array_object{"objectAtIndex:"};
constinit const Method<Id()> process_info{"processInfo"};
constinit const Method<bool(Version)> is_at_least{"isOperatingSystemAtLeastVersion:"};
constinit const Method<Id()> localized_description{"localizedDescription"};
constinit const Method<Int()> error_code{"code"};
constinit const Method<Id()> object_name{"name"};
constinit const Method<bool(Int)> supports_family{"supportsFamily:"};
constinit const Method<UInt()> max_buffer_length{"maxBufferLength"};
constinit const Method<uint64_t()> working_set{"recommendedMaxWorkingSetSize"};
constinit const Method<UInt()> allocated_size{"currentAllocatedSize"};
constinit const Method<Id()> new_queue{"newCommandQueue"};
constinit const Method<Id()> new_object{"new"};
constinit const Method<void(bool)> set_fast_math{"setFastMathEnabled:"};
constinit const Method<void(UInt)> set_language{"setLanguageVersion:"};
constinit const Method<Id(Id, Id, Id*)> new_library{"newLibraryWithSource:options:error:"};
constinit const Method<Id(Id)> new_function{"newFunctionWithName:"};
constinit const Method<Id(Id, Id*)> new_pipeline{"newComputePipelineStateWithFunction:error:"};
constinit const Method<UInt()> thread_width{"threadExecutionWidth"};
constinit const Method<UInt()> most_threads{"maxTotalThreadsPerThreadgroup"};
constinit const Method<Id(UInt, UInt)> new_buffer{"newBufferWithLength:options:"};
constinit const Method<Id(const void*, UInt, UInt, void*)> new_buffer_around{
    "newBufferWithBytesNoCopy:length:options:deallocator:"};
constinit const Method<void*()> buffer_contents{"contents"};
constinit const Method<Id()> buffer_error{"error"};

constexpr Int kApple1 = 1001;                      // MTLGPUFamilyApple1, and on
constexpr int kLeastFamily = 7, kMostFamily = 20;  // simdgroup matrices came with Apple7, the M1
constexpr UInt kLanguage24 = (2 << 16) + 4;        // MTLLanguageVersion2_4, of macOS 12
constexpr UInt kShared = 0;                        // MTLResourceStorageModeShared
constexpr UInt kThreads = 32;                      // of a simdgroup

// The family of Apple's GPUs that this one belongs to, 0 if to none.
int family_of(Id device) {
  for (int family = kMostFamily; family > 0; --family) {
    if (supports_family(device, kApple1 + family - 1)) return family;
  }
  return 0;
}

void check_system() {
  const Id info = process_info(objc::find_class("NSProcessInfo"));
  if (!is_at_least(info, Version{12, 0, 0}))
    throw DeviceError(
        "Metal: this needs macOS 12 or later (MSL 2.4): update macOS, or use device=\"cpu\"");
}

// Those that can be used; says of the others why not.
std::vector<Ref> usable(std::string& reason) {
  objc::load();
  const Pool pool;
  check_system();
  const Ref all = Ref::owned(objc::copy_all_devices());
  std::vector<Ref> found;
  reason = "Metal: there is no GPU; use device=\"cpu\"";
  for (UInt i = 0; i < array_count(all.get()); ++i) {
    const Id device = array_object(all.get(), i);
    if (family_of(device) >= kLeastFamily) {
      found.push_back(Ref::shared(device));
    } else {
      reason = cat("Metal: the kernels need a GPU of Apple's, M1 or later, and this is ",
                   text_of(object_name(device)), "; use device=\"cpu\"");
    }
  }
  return found;
}

std::string description(Id error) {
  return error == nullptr ? "no reason was given" : text_of(localized_description(error));
}

}  // namespace

int Device::count() {
  std::string reason;
  const auto found = static_cast<int>(usable(reason).size());
  if (found == 0) throw DeviceError(reason);
  return found;
}

std::shared_ptr<Device> Device::open(int index) {
  static std::mutex mutex;
  static std::map<int, std::weak_ptr<Device>> known;
  const std::lock_guard lock(mutex);
  std::weak_ptr<Device>& entry = known[index];
  if (std::shared_ptr<Device> device = entry.lock()) return device;
  std::string reason;
  std::vector<Ref> all = usable(reason);
  if (all.empty()) throw DeviceError(reason);
  if (index < 0 || static_cast<size_t>(index) >= all.size()) {
    throw DeviceError(cat("Metal: there is no GPU ", index, "; there ",
                          all.size() == 1 ? "is one" : cat("are ", all.size())));
  }
  std::shared_ptr<Device> device(new Device(std::move(all[static_cast<size_t>(index)])));
  entry = device;
  return device;
}

Device::Device(Ref device) : device_(std::move(device)) {
  const Pool pool;
  name_ = text_of(object_name(device_.get()));
  family_ = family_of(device_.get());
  queue_ = Ref::owned(new_queue(device_.get()));
  if (!queue_) throw DeviceError("Metal: the GPU gives no command queue; use device=\"cpu\"");
}

Id Device::library(std::string_view source) {
  Ref& library = libraries_[source];
  if (library) return library.get();
  const Ref options = Ref::owned(new_object(objc::find_class("MTLCompileOptions")));
  set_fast_math(options.get(), false);  // sums keep their order
  set_language(options.get(), kLanguage24);
  Id error = nullptr;
  library = Ref::owned(
      new_library(device_.get(), string(kernel_source(source).c_str()), options.get(), &error));
  if (!library) {
    throw DeviceError(cat("Metal: ", source, ".metal doesn't compile on ", name_, ": ",
                          description(error), "; please report this, and use device=\"cpu\""));
  }
  return library.get();
}

size_t Device::most_bytes() const noexcept { return max_buffer_length(device_.get()); }

size_t Device::page_bytes() noexcept {
  static const auto bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

Buffer Device::allocate(size_t bytes) {
  const Pool pool;
  bytes = bytes == 0 ? 1 : bytes;
  Buffer out{{}, nullptr, bytes};
  if (bytes <= most_bytes()) out.object = Ref::owned(new_buffer(device_.get(), bytes, kShared));
  if (!out.object) {
    throw DeviceError(cat("Metal: no room for ", bytes, " bytes more on ", name_, ", where ",
                          allocated_size(device_.get()), " of ", working_set(device_.get()),
                          " are in use: use a smaller batch_size or max_seq_length, "
                          "dtype=\"bfloat16\", or close what else is using the GPU"));
  }
  out.contents = static_cast<std::byte*>(buffer_contents(out.object.get()));
  return out;
}

Buffer Device::around(const void* memory, size_t bytes) {
  const Pool pool;
  Buffer out{{}, static_cast<std::byte*>(const_cast<void*>(memory)), bytes};
  if (bytes > 0 && bytes <= most_bytes())
    out.object = Ref::owned(new_buffer_around(device_.get(), memory, bytes, kShared, nullptr));
  return out;
}

void Device::prepare(Kernel kernel, uint32_t threads) {
  const std::lock_guard lock(mutex_);
  Ref& pipeline = pipelines_[static_cast<size_t>(kernel)];
  if (pipeline) return;
  const Pool pool;
  const auto [name, source] = metal::name_of(kernel);
  const Ref function = Ref::owned(new_function(library(source), string(name)));
  if (!function) throw DeviceError(cat("Metal: this build has no kernel ", name));
  Id error = nullptr;
  Ref made = Ref::owned(new_pipeline(device_.get(), function.get(), &error));
  if (!made) {
    throw DeviceError(cat("Metal: ", name_, " can't run the kernel ", name, ": ",
                          description(error), "; please report this, and use device=\"cpu\""));
  }
  const UInt width = thread_width(made.get()), most = most_threads(made.get());
  if (width != kThreads || most < threads) {
    throw DeviceError(cat("Metal: ", name_, " runs ", name, " in simdgroups of ", width,
                          " and threadgroups of ", most, " threads; it needs ", kThreads, " and ",
                          threads, ": please report this, and use device=\"cpu\""));
  }
  pipeline = std::move(made);
}

std::string explain_failure(Id command_buffer) {
  const Id error = buffer_error(command_buffer);
  std::string text =
      cat("Metal, running: ", description(error), " (error ", error_code(error), ")");
  switch (error_code(error)) {  // MTLCommandBufferError
    case 2:
      return text + "; the run took longer than the system allows: use a smaller batch_size";
    case 8:
      return text +
             "; the GPU's memory is full: use a smaller batch_size or max_seq_length, "
             "dtype=\"bfloat16\", or close what else is using the GPU";
    case 3:
    case 4:
    case 11:
    case 12:
      return text + "; a kernel failed on the GPU: device=\"cpu\" still works; please report this";
    default:
      return text + "; device=\"cpu\" still works";
  }
}

}  // namespace trine::metal
