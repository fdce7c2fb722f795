// SPDX-License-Identifier: Apache-2.0
#include "exec/session.h"

#include <algorithm>

#include "base/error.h"
#include "trine.h"

namespace trine {
namespace {

const Plan& plan_of(Engine& engine, const std::string& output) {
  const auto& outputs = engine.graph().outputs;
  if (std::none_of(outputs.begin(), outputs.end(),
                   [&](const auto& o) { return o.first == output; }))
    throw InputError(cat("this model generates no text: it has no output \"", output, "\""));
  return engine.plan({output});
}

}  // namespace

Session::Session(std::shared_ptr<Engine> engine, SessionOptions options)
    : engine_(std::move(engine)),
      options_(std::move(options)),
      plan_(&plan_of(*engine_, options_.output)) {
  const PlanOutput& output = plan_->outputs.front();
  if (output.rows != Rows::kSequences || plan_->limits.caches == 0) {
    throw InputError(cat("output \"", options_.output,
                         "\" is no row of logits for each sequence over cached attention"));
  }
  if (options_.capacity < 1 || options_.prefill_tokens < 1)
    throw InputError("capacity and prefill_tokens must be 1 or more");
  options_.capacity = std::min(options_.capacity, plan_->limits.max_length);
  vocabulary_ = static_cast<size_t>(output.value.cols);
}

int64_t Session::add(std::span<const int32_t> prompt, int64_t max_new_tokens, Sampling sampling,
                     std::optional<int64_t> prefix) {
  const std::lock_guard lock(mutex_);
  const auto length = static_cast<int64_t>(prompt.size());
  if (length < 1 || max_new_tokens < 1)
    throw InputError("a sequence needs a prompt of one token or more, and max_new_tokens >= 1");
  if (length > options_.capacity || max_new_tokens > options_.capacity - length) {
    throw InputError(cat("a prompt of ", length, " tokens and ", max_new_tokens,
                         " new ones exceed the session's capacity of ", options_.capacity));
  }
  const int64_t ids = std::min(plan_->limits.ids, static_cast<int64_t>(vocabulary_));
  for (int32_t id : prompt) {
    if (id < 0 || id >= ids)
      throw InputError(cat("id ", id, " is out of range: the model has ", ids));
  }
  Sequence sequence{{prompt.begin(), prompt.end()},
                    length,
                    length + max_new_tokens,
                    Sampler(std::move(sampling)),
                    // The last token's keys are never needed.
                    engine_->make_cache(length + max_new_tokens - 1)};
  if (prefix) {
    const Sequence& other = at(*prefix);
    // The last token of the prompt is run in any case: its logits are wanted. Keys that were turned
    // by another length's frequencies are of no use.
    const int64_t turned = std::max({length, other.prompt, other.cache->length()});
    const int64_t most =
        turned > plan_->limits.same_rotary ? 0 : std::min(other.cache->length(), length - 1);
    const auto same = std::mismatch(prompt.begin(), prompt.begin() + most, other.tokens.begin());
    sequence.cache->copy_prefix(*other.cache, same.first - prompt.begin());
  }
  for (int32_t id : prompt) sequence.sampler.see(id);
  sequences_.emplace(next_, std::move(sequence));
  return next_++;
}

// Sequences of this step, in the order of their rows.
std::vector<int64_t> Session::gather() {
  ids_.clear();
  offsets_.assign(1, 0);
  lengths_.clear();
  caches_.clear();
  std::vector<int64_t> chosen;
  int64_t room = options_.prefill_tokens;
  for (auto& [id, s] : sequences_) {
    if (s.finish != Finish::kNone) continue;
    const bool decodes = static_cast<int64_t>(s.tokens.size()) > s.prompt;
    const int64_t take = decodes ? s.pending() : std::min(s.pending(), room);
    if (take == 0) continue;
    if (!decodes) room -= take;
    const auto from = s.tokens.begin() + s.cache->length();
    ids_.insert(ids_.end(), from, from + take);
    offsets_.push_back(static_cast<int32_t>(ids_.size()));
    lengths_.push_back(static_cast<int32_t>(s.tokens.size()));
    caches_.push_back(s.cache.get());
    chosen.push_back(id);
  }
  return chosen;
}

std::vector<Generated> Session::step() {
  const std::lock_guard lock(mutex_);
  const std::vector<int64_t> chosen = gather();
  if (chosen.empty()) return {};
  logits_.resize(chosen.size() * vocabulary_);
  float* const results[] = {logits_.data()};
  engine_->run(*plan_, {ids_, offsets_, {}, {}, caches_, lengths_}, results);
  std::vector<Generated> out;
  std::vector<size_t> rows;
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (sequences_.at(chosen[i]).pending() > 0) continue;  // there is more of the prompt
    out.push_back({chosen[i], {}, Finish::kNone});
    rows.push_back(i);
  }
  // A row of a large vocabulary takes as long as a step of a small model takes on a GPU.
  engine_->for_each(static_cast<int64_t>(rows.size()), [&](int64_t item) {
    const auto i = static_cast<size_t>(item);
    advance(out[i], std::span(logits_).subspan(rows[i] * vocabulary_, vocabulary_));
  });
  return out;
}

// The sequence's next token; of different sequences at the same time.
void Session::advance(Generated& out, std::span<float> logits) {
  Sequence& s = sequences_.at(out.sequence);
  const int64_t n = static_cast<int64_t>(s.tokens.size()) - s.prompt;
  if (!s.sampler.pick(logits, n, out.sample)) {
    out.finish = s.finish = Finish::kNotANumber;
    return;
  }
  const int32_t token = out.sample.token;
  s.tokens.push_back(token);
  s.sampler.see(token);
  const auto& ends = s.sampler.options().end_tokens;
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
    s.finish = Finish::kEndToken;
  } else if (static_cast<int64_t>(s.tokens.size()) == s.limit) {
    s.finish = Finish::kLength;
  }
  out.finish = s.finish;
}

const Session::Sequence& Session::at(int64_t sequence) const {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) throw InputError(cat("there is no sequence ", sequence));
  return found->second;
}

void Session::remove(int64_t sequence) {
  const std::lock_guard lock(mutex_);
  at(sequence);
  sequences_.erase(sequence);
}

std::vector<int32_t> Session::tokens(int64_t sequence) const {
  const std::lock_guard lock(mutex_);
  return at(sequence).tokens;
}

int64_t Session::active() const {
  const std::lock_guard lock(mutex_);
  return std::count_if(sequences_.begin(), sequences_.end(),
                       [](const auto& s) { return s.second.finish == Finish::kNone; });
}

SessionInfo Session::info() const {
  const std::lock_guard lock(mutex_);
  SessionInfo out;
  for (const auto& [id, s] : sequences_) {
    ++out.sequences;
    out.active += s.finish == Finish::kNone;
    out.tokens += s.cache->length();
    out.cache_bytes += s.cache->bytes();
  }
  return out;
}

}  // namespace trine
