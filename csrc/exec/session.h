// SPDX-License-Identifier: Apache-2.0
// Text generation for many sequences over one engine, a token of each at a time: what streams,
// stops and cancels stands between the steps. Safe to call from many threads, one call at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "exec/engine.h"
#include "exec/sampler.h"
#include "trine.h"

namespace trine {

struct Generated {
  int64_t sequence;
  Sample sample;
  Finish finish;
};

struct SessionOptions {
  std::string output = "next_logits";  // [B, vocabulary]
  int64_t capacity = 0;                // tokens of a sequence, its prompt included
  int64_t prefill_tokens = 512;        // of prompts, in one step
};

struct SessionInfo {
  int64_t sequences = 0, active = 0;
  int64_t tokens = 0;      // in caches
  size_t cache_bytes = 0;  // of all sequences
};

class Session {
 public:
  Session(std::shared_ptr<Engine>, SessionOptions);

  // A new sequence. What `prefix`, another sequence of this session, has computed of the same first
  // tokens is copied, unless either is so long that its length changes the rotary frequencies.
  // InputError when prompt and new tokens exceed the capacity, an id is out of
  // range or an option is.
  int64_t add(std::span<const int32_t> prompt, int64_t max_new_tokens, Sampling,
              std::optional<int64_t> prefix = {});
  // One run: the next token of each sequence whose prompt is through, and as much of the prompts
  // of others as fits. Empty while there is nothing but prompts, or nothing at all: see active().
  // When it throws, nothing has changed.
  std::vector<Generated> step();
  // Ends a sequence, finished or not, and gives its memory back.
  void remove(int64_t sequence);

  // The prompt and what was generated.
  std::vector<int32_t> tokens(int64_t sequence) const;
  int64_t active() const;
  // What to say of a sequence that ended by kNotANumber (Engine::why_not_finite).
  std::string why_not_finite() const { return engine_->why_not_finite(); }
  SessionInfo info() const;

 private:
  struct Sequence {
    std::vector<int32_t> tokens;
    int64_t prompt, limit;  // tokens of the prompt; tokens when it is full
    Sampler sampler;
    std::unique_ptr<KvCache> cache;
    Finish finish = Finish::kNone;

    int64_t pending() const { return static_cast<int64_t>(tokens.size()) - cache->length(); }
  };
  const Sequence& at(int64_t sequence) const;
  std::vector<int64_t> gather();
  void advance(Generated&, std::span<float> logits);

  mutable std::mutex mutex_;
  std::shared_ptr<Engine> engine_;
  SessionOptions options_;
  const Plan* plan_;
  size_t vocabulary_ = 0;
  std::map<int64_t, Sequence> sequences_;
  int64_t next_ = 0;
  // Of the step under way.
  std::vector<int32_t> ids_, offsets_, lengths_;
  std::vector<KvCache*> caches_;
  std::vector<float> logits_;
};

}  // namespace trine
