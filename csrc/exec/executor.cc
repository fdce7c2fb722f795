// SPDX-License-Identifier: Apache-2.0
#include "exec/executor.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/error.h"

namespace trine {
namespace {

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

void check_range(std::span<const int32_t> values, int64_t limit, const char* what,
                 std::span<const int32_t> offsets) {
  // The common case in one pass without a branch per id.
  uint32_t largest = 0;
  for (int32_t v : values) largest = std::max(largest, static_cast<uint32_t>(v));
  if (values.empty() || static_cast<int64_t>(largest) < limit) return;
  for (size_t t = 0; t < values.size(); ++t) {
    if (values[t] >= 0 && values[t] < limit) continue;
    const auto next = std::upper_bound(offsets.begin(), offsets.end(), static_cast<int32_t>(t));
    const auto sequence = next - offsets.begin() - 1;
    throw InputError(cat(what, " ", values[t], " at position ",
                         t - static_cast<size_t>(offsets[static_cast<size_t>(sequence)]),
                         " of sequence ", sequence, " is out of range: the model has ", limit));
  }
}

// Grows to a capacity with room to spare, so that batches of slowly growing size don't allocate
// each time.
template <class T>
void grow(std::vector<T>& v, size_t size) {
  if (v.capacity() < size) v.reserve(size + size / 2);
}

void check_caches(const BatchView& batch, const Limits& limits) {
  const auto sequences = static_cast<size_t>(batch.sequences());
  if (!batch.lengths.empty() && batch.lengths.size() != sequences)
    throw InputError(
        cat("there are ", sequences, " sequences and ", batch.lengths.size(), " lengths"));
  if (batch.caches.empty()) return;
  if (batch.caches.size() != sequences)
    throw InputError(
        cat("there are ", sequences, " sequences and ", batch.caches.size(), " caches"));
  for (size_t b = 0; b < sequences; ++b) {
    const KvCache* cache = batch.caches[b];
    if (cache == nullptr) continue;
    if (cache->layers() != limits.caches) {
      throw InputError(cat("these outputs fill ", limits.caches, " layers of a cache of ",
                           cache->layers(), ": what was left out would be missing"));
    }
    const int64_t added = int64_t{batch.offsets[b + 1]} - batch.offsets[b];
    const int64_t total = cache->length() + added;
    if (total > cache->capacity()) {
      throw InputError(cat("sequence ", b, " has ", added, " tokens behind ", cache->length(),
                           " in a cache for ", cache->capacity()));
    }
    if (total > limits.max_length) {
      throw InputError(cat("sequence ", b, " has ", total, " tokens with those in its cache; ",
                           limits.max_length_reason, " allow at most ", limits.max_length));
    }
  }
}

}  // namespace

void check(const BatchView& batch, const Limits& limits) {
  const auto& offsets = batch.offsets;
  if (offsets.empty() || offsets.front() != 0) throw InputError("offsets must start with 0");
  if (offsets.back() != batch.tokens()) {
    throw InputError(
        cat("the last offset is ", offsets.back(), ", but there are ", batch.tokens(), " ids"));
  }
  for (size_t b = 1; b < offsets.size(); ++b) {
    const int64_t length = int64_t{offsets[b]} - offsets[b - 1];
    if (length < 0) throw InputError(cat("offset ", b, " is smaller than the one before it"));
    if (length > limits.max_length) {
      throw InputError(cat("sequence ", b - 1, " has ", length, " tokens; ",
                           limits.max_length_reason, " allow at most ", limits.max_length));
    }
  }
  check_range(batch.ids, limits.ids, "id", offsets);
  if (!batch.token_types.empty()) {
    if (batch.token_types.size() != batch.ids.size()) {
      throw InputError(cat("there are ", batch.ids.size(), " ids and ", batch.token_types.size(),
                           " token types"));
    }
    check_range(batch.token_types, limits.token_types, "token type", offsets);
  }
  if (!batch.prompt_lengths.empty()) {
    if (static_cast<int64_t>(batch.prompt_lengths.size()) != batch.sequences()) {
      throw InputError(cat("there are ", batch.sequences(), " sequences and ",
                           batch.prompt_lengths.size(), " prompt lengths"));
    }
    if (std::any_of(batch.prompt_lengths.begin(), batch.prompt_lengths.end(),
                    [](int32_t n) { return n < 0; })) {
      throw InputError("a prompt length is negative");
    }
  }
  check_caches(batch, limits);
}

void Workspace::reserve(const Plan& plan, int64_t tokens, int32_t sequences, int64_t max_length) {
  if (!device_) device_ = backend_.context();
  device_->reserve({tokens, sequences, max_length});
  grow(ids_, static_cast<size_t>(tokens));
  grow(token_types_, static_cast<size_t>(tokens));
  grow(offsets_, static_cast<size_t>(sequences) + 1);
  grow(prompt_lengths_, static_cast<size_t>(sequences));
  grow(lengths_, static_cast<size_t>(sequences));
  grow(caches_, static_cast<size_t>(sequences));
  const size_t bytes = static_cast<size_t>(round_up(tokens, 16) * plan.token_row_bytes +
                                           round_up(sequences, 16) * plan.sequence_row_bytes);
  if (bytes <= arena_bytes_) return;
  arena_.reset();  // the old one first: peak memory is one arena
  arena_ = backend_.alloc(bytes);
  arena_bytes_ = bytes;
}

void Workspace::clear() noexcept {
  ids_.clear();
  token_types_.clear();
  offsets_.resize(1);
  prompt_lengths_.clear();
  lengths_.clear();
  caches_.clear();
  cached_ = false;
  max_length_ = max_total_ = 0;
}

void Workspace::append(const BatchView& batch) noexcept {
  const auto first = static_cast<int32_t>(ids_.size());
  ids_.insert(ids_.end(), batch.ids.begin(), batch.ids.end());
  for (size_t b = 1; b < batch.offsets.size(); ++b) offsets_.push_back(first + batch.offsets[b]);
  token_types_.insert(token_types_.end(), batch.token_types.begin(), batch.token_types.end());
  token_types_.resize(ids_.size());
  prompt_lengths_.insert(prompt_lengths_.end(), batch.prompt_lengths.begin(),
                         batch.prompt_lengths.end());
  prompt_lengths_.resize(offsets_.size() - 1);
  for (size_t b = 0; b + 1 < batch.offsets.size(); ++b) {
    const KvCache* cache = batch.caches.empty() ? nullptr : batch.caches[b];
    const KvView& view = caches_.emplace_back(cache ? cache->view() : KvView{});
    cached_ = cached_ || cache != nullptr;
    const int32_t rows = batch.offsets[b + 1] - batch.offsets[b];
    const int32_t so_far = view.past + rows;
    max_length_ = std::max<int64_t>(max_length_, rows);
    max_total_ = std::max<int64_t>(max_total_, so_far);
    lengths_.push_back(batch.lengths.empty() ? so_far : std::max(so_far, batch.lengths[b]));
  }
}

void Workspace::set_context(const Plan& plan) noexcept {
  const auto tokens = static_cast<int64_t>(ids_.size());
  const auto sequences = static_cast<int32_t>(offsets_.size()) - 1;
  context_.batch = {offsets_.data(), sequences};
  context_.tokens = tokens;
  context_.max_length = max_length_;
  context_.max_total = max_total_;
  context_.tokens_padded = round_up(tokens, 16);
  context_.sequences_padded = round_up(sequences, 16);
  context_.inputs[static_cast<int>(Input::kIds)] = ids_.data();
  context_.inputs[static_cast<int>(Input::kTokenTypes)] = token_types_.data();
  context_.inputs[static_cast<int>(Input::kPromptLengths)] = prompt_lengths_.data();
  context_.caches = cached_ ? caches_.data() : nullptr;
  context_.lengths = lengths_.data();
  context_.token_rows = arena_.get();
  context_.sequence_rows = arena_.get() + context_.tokens_padded * plan.token_row_bytes;
  context_.device = device_->get();
}

void Workspace::run(const Plan& plan) {
  set_context(plan);
  device_->begin(context_);
  if (!seconds_) {
    device_->run(plan.steps, context_);
    return;
  }
  device_->wait();
  seconds_->clear();
  for (const Step& step : plan.steps) {
    const auto start = std::chrono::steady_clock::now();
    step.run(step.args.get(), context_);
    device_->wait();
    seconds_->push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
}

void Workspace::fetch(const Operand& value, int64_t begin, int64_t rows, float* to) {
  device_->fetch(context_, value, begin, rows, to);
}

void Workspace::finish() { device_->finish(); }

void DeviceContext::run(std::span<const Step> steps, const RunContext& context) {
  for (const Step& step : steps) step.run(step.args.get(), context);
}

void DeviceContext::fetch(const RunContext& context, const Operand& value, int64_t begin,
                          int64_t rows, float* to) {
  const float* from = value.at<const float>(context) + begin * value.ld;
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(to + i * value.cols, from + i * value.ld,
                static_cast<size_t>(value.cols) * sizeof(float));
  }
}

void Backend::for_each(int64_t items, const std::function<void(int64_t)>& work) {
  for (int64_t item = 0; item < items; ++item) work(item);
}

DType Backend::value_dtype(const Graph&, const Node& node) const noexcept { return node.dtype; }

size_t Workspace::bytes() const noexcept {
  const size_t inputs = ids_.capacity() + token_types_.capacity() + offsets_.capacity() +
                        prompt_lengths_.capacity() + lengths_.capacity();
  return arena_bytes_ + inputs * sizeof(int32_t) + caches_.capacity() * sizeof(KvView) +
         (device_ ? device_->bytes() : 0);
}

}  // namespace trine
