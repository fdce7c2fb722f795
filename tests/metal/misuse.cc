// SPDX-License-Identifier: Apache-2.0
// trine_metal_misuse NAME: does something that Metal forbids, to see the pretended one (fake/) say
// so; without a mistake it ends with 0. With "source NAME" it prints a library's source.
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "device.h"
#include "run.h"
#include "source.h"

namespace trine::metal {
namespace {

using UInt = unsigned long;

struct Size {
  UInt width, height, depth;
};

constinit const Method<Id()> command_buffer{"commandBuffer"};
constinit const Method<Id()> compute_encoder{"computeCommandEncoder"};
constinit const Method<void(Id)> set_pipeline{"setComputePipelineState:"};
constinit const Method<void(Id, UInt, UInt)> set_buffer{"setBuffer:offset:atIndex:"};
constinit const Method<void(const void*, UInt, UInt)> set_bytes{"setBytes:length:atIndex:"};
constinit const Method<void(Size, Size)> dispatch{"dispatchThreadgroups:threadsPerThreadgroup:"};
constinit const Method<void()> end_encoding{"endEncoding"};
constinit const Method<void()> commit{"commit"};
constinit const Method<void()> wait{"waitUntilCompleted"};
constinit const Method<UInt()> length{"length"};
constinit const Method<Id()> no_such{"dispatchThreads:threadsPerThreadgroup:"};

// Doubles 8 numbers: a whole run, that each mistake changes somewhere.
class Doubling {
 public:
  Doubling() : device(Device::open(0)) {
    device->prepare(Kernel::scale, 256);
    x = device->allocate(kCount * sizeof(float));
    y = device->allocate(kCount * sizeof(float));
    for (int i = 0; i < kCount; ++i) reinterpret_cast<float*>(x.contents)[i] = float(i);
    commands = Ref::shared(command_buffer(device->queue()));
    encoder = Ref::shared(compute_encoder(commands.get()));
    args.a = args.y = matrix(0, kCount, DType::kF32);
    args.rows = 1;
    args.cols = kCount;
    args.factor = 2;
  }

  void bind() {
    set_pipeline(encoder.get(), device->pipeline(Kernel::scale));
    set_buffer(encoder.get(), x.object.get(), 0, 0);
    set_buffer(encoder.get(), y.object.get(), 0, 1);
    set_bytes(encoder.get(), &args, sizeof args, 2);
  }
  void launch() { dispatch(encoder.get(), {1, 1, 1}, {256, 1, 1}); }
  void end() { end_encoding(encoder.get()); }
  void finish() {
    commit(commands.get());
    wait(commands.get());
  }
  bool right() const {
    for (int i = 0; i < kCount; ++i) {
      if (reinterpret_cast<const float*>(y.contents)[i] != 2 * float(i)) return false;
    }
    return true;
  }

  static constexpr int kCount = 8;
  std::shared_ptr<Device> device;
  Buffer x, y;
  Ref commands, encoder;
  MapArgs args{};
};

const std::map<std::string_view, std::function<void(Doubling&)>> kMistakes{
    {"none",
     [](Doubling& d) {
       d.bind(), d.launch(), d.end(), d.finish();
       if (!d.right()) std::printf("wrong numbers\n");
     }},
    {"unknown selector", [](Doubling& d) { no_such(d.encoder.get()); }},
    {"freed object",
     [](Doubling& d) {
       const Id buffer = d.x.object.get();
       d.x.object = {};
       length(buffer);
     }},
    {"freed argument",
     [](Doubling& d) {
       const Id buffer = d.x.object.get();
       d.x.object = {};
       set_buffer(d.encoder.get(), buffer, 0, 0);
     }},
    {"released twice",
     [](Doubling& d) {
       const Id buffer = d.x.object.get();
       d.x.object = {};
       release(buffer);
     }},
    {"open encoder", [](Doubling& d) { commit(d.commands.get()); }},
    {"two encoders", [](Doubling& d) { compute_encoder(d.commands.get()); }},
    {"dropped encoder",
     [](Doubling& d) {
       const Pool pool;
       d.encoder = {};
       d.commands = {};
     }},
    {"used after its end", [](Doubling& d) { d.end(), d.bind(); }},
    {"committed twice", [](Doubling& d) { d.end(), d.finish(), commit(d.commands.get()); }},
    {"waited too early", [](Doubling& d) { d.end(), wait(d.commands.get()); }},
    {"no pipeline", [](Doubling& d) { d.launch(); }},
    {"unbound buffer",
     [](Doubling& d) {
       set_pipeline(d.encoder.get(), d.device->pipeline(Kernel::scale));
       set_buffer(d.encoder.get(), d.x.object.get(), 0, 0);
       set_bytes(d.encoder.get(), &d.args, sizeof d.args, 2);
       d.launch();
     }},
    {"no arguments",
     [](Doubling& d) {
       set_pipeline(d.encoder.get(), d.device->pipeline(Kernel::scale));
       set_buffer(d.encoder.get(), d.x.object.get(), 0, 0);
       set_buffer(d.encoder.get(), d.y.object.get(), 0, 1);
       d.launch(), d.end(), d.finish();
     }},
    {"short arguments",
     [](Doubling& d) {
       d.bind();
       set_bytes(d.encoder.get(), &d.args, sizeof d.args / 2, 2);
       d.launch(), d.end(), d.finish();
     }},
    {"offset out of range",
     [](Doubling& d) { set_buffer(d.encoder.get(), d.x.object.get(), 1024, 0); }},
    {"offset of a few bytes",
     [](Doubling& d) { set_buffer(d.encoder.get(), d.x.object.get(), 16, 0); }},
    {"no buffer", [](Doubling& d) { set_buffer(d.encoder.get(), nullptr, 0, 0); }},
    {"another kind of object",
     [](Doubling& d) { set_buffer(d.encoder.get(), d.commands.get(), 0, 0); }},
    {"too many bytes",
     [](Doubling& d) {
       static const char bytes[5000] = "";
       set_bytes(d.encoder.get(), bytes, sizeof bytes, 2);
     }},
    {"written behind its end",
     [](Doubling& d) {
       d.args.cols = 4 * Doubling::kCount;  // the kernel believes what it is told
       d.bind(), d.launch(), d.end(), d.finish();
     }},
    {"no threads",
     [](Doubling& d) {
       d.bind();
       dispatch(d.encoder.get(), {1, 1, 1}, {0, 1, 1});
     }},
    {"too many threads",
     [](Doubling& d) {
       d.bind();
       dispatch(d.encoder.get(), {1, 1, 1}, {2048, 1, 1});
     }},
    {"not whole pages", [](Doubling& d) { d.device->around(d.x.contents + 64, 4096); }},
    {"leak",
     [](Doubling& d) {
       d.bind(), d.launch(), d.end(), d.finish();
       retain(d.x.object.get());
     }},
};

}  // namespace
}  // namespace trine::metal

extern "C" int trine_fake_live(char* names, size_t size);

int main(int argc, char** argv) {
  using namespace trine::metal;
  if (argc > 1 && std::string_view(argv[1]) == "no pool") {
    objc::load();
    string("text");
  }
  if (argc > 2 && std::string_view(argv[1]) == "source") {
    std::printf("%s", kernel_source(argv[2]).c_str());
    return 0;
  }
  const auto found = kMistakes.find(argc > 1 ? argv[1] : "");
  if (found == kMistakes.end()) {
    for (const auto& [name, mistake] : kMistakes) std::printf("%s\n", std::string(name).c_str());
    return 2;
  }
  {
    objc::load();
    const Pool pool;
    Doubling doubling;
    found->second(doubling);
  }
  char names[1000];
  if (trine_fake_live(names, sizeof names) == 0) return 0;
  std::printf("not freed:\n%s", names);
  return 1;
}
