// SPDX-License-Identifier: Apache-2.0
#include "weights/safetensors_writer.h"

#include <cstring>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"

namespace trine {
namespace {

constexpr size_t kLine = 64, kPage = 4096;
constexpr size_t kLarge = size_t{64} << 10;

size_t padding(size_t at, size_t alignment) { return (alignment - at % alignment) % alignment; }

Json entry(DType dtype, const std::vector<int64_t>& shape, size_t begin, size_t end) {
  JsonObject out;
  out.set("dtype", name_of(dtype));
  out.set("shape", Json::Array(shape.begin(), shape.end()));
  out.set("data_offsets", Json::Array{begin, end});
  return out;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, std::string>& metadata,
                       const std::vector<TensorToWrite>& tensors) {
  JsonObject header, words;
  for (const auto& [key, value] : metadata) words.set(key, value);
  header.set("__metadata__", std::move(words));
  std::vector<size_t> gaps;  // before each tensor
  size_t at = 0;
  for (const TensorToWrite& t : tensors) {
    const size_t gap = t.joined ? 0 : padding(at, t.data.size() < kLarge ? kLine : kPage);
    if (gap > 0) {
      header.set(cat("padding.", gaps.size()),
                 entry(DType::kU8, {static_cast<int64_t>(gap)}, at, at + gap));
    }
    gaps.push_back(gap);
    at += gap;
    header.set(t.name, entry(t.dtype, t.shape, at, at + t.data.size()));
    at += t.data.size();
  }
  std::string text = Json(std::move(header)).dump();
  text.append(padding(sizeof(uint64_t) + text.size(), kPage), ' ');
  const uint64_t length = text.size();
  std::byte size[sizeof length];
  std::memcpy(size, &length, sizeof length);
  const std::byte zeros[kPage] = {};
  AtomicFile file(path);
  file.write(size);
  file.write(std::as_bytes(std::span(text)));
  for (size_t i = 0; i < tensors.size(); ++i) {
    file.write(std::span(zeros).first(gaps[i]));
    file.write(tensors[i].data);
  }
  file.commit();
}

}  // namespace trine
