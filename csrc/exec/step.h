// SPDX-License-Identifier: Apache-2.0
// What a plan is made of: operands that a run turns into addresses by one multiplication, and steps
// with a raw function pointer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "exec/args.h"
#include "graph/graph.h"

namespace trine {

enum class Input : uint8_t { kIds, kTokenTypes, kPromptLengths };
inline constexpr int kInputs = 3;

// What one run adds to a plan.
struct RunContext {
  Ragged batch;
  int64_t tokens;
  int64_t max_length;        // rows of the longest sequence
  int64_t max_total;         // tokens of the longest sequence, those in its cache included
  int64_t tokens_padded;     // a multiple of 16, so that every buffer starts on a cache line
  int64_t sequences_padded;  // likewise
  const int32_t* inputs[kInputs];
  const KvView* caches;    // [sequences], or null: no sequence has one
  const int32_t* lengths;  // [sequences]: tokens of the whole sequence, those in its cache included
  std::byte* token_rows;
  std::byte* sequence_rows;
  const void* device;  // the backend's own: cpu::Workers
};

// What a run needs room for.
struct RunSize {
  int64_t tokens = 0;
  int32_t sequences = 0;
  int64_t max_length = 0;  // of a sequence, with what its cache may hold
};

// A value as a step sees it. Buffers of a plan are given in bytes per row: the address in a run is
// base + offset * rows.
struct Operand {
  enum class Place : uint8_t { kNone, kFixed, kTokens, kSequences, kInput };
  Place place = Place::kNone;
  DType dtype = DType::kF32;
  Input input = Input::kIds;
  int64_t offset = 0;  // kTokens, kSequences: bytes per row
  int64_t column = 0;  // first column, in elements
  int64_t ld = 0;      // row stride, in elements
  int64_t rows = 0;    // kFixed only
  int64_t cols = 0;
  void* data = nullptr;  // kFixed only

  explicit operator bool() const noexcept { return place != Place::kNone; }

  int64_t rows_in(const RunContext& c) const noexcept {
    if (place == Place::kTokens || place == Place::kInput) return c.tokens;
    return place == Place::kSequences ? c.batch.sequences : rows;
  }

  template <class T>
  T* at(const RunContext& c) const noexcept {
    switch (place) {
      case Place::kTokens:
        return reinterpret_cast<T*>(c.token_rows + offset * c.tokens_padded) + column;
      case Place::kSequences:
        return reinterpret_cast<T*>(c.sequence_rows + offset * c.sequences_padded) + column;
      case Place::kFixed:
        return static_cast<T*>(data) + column;
      case Place::kInput:
        return const_cast<T*>(reinterpret_cast<const T*>(c.inputs[static_cast<int>(input)]));
      case Place::kNone:
        break;
    }
    return nullptr;
  }
};

// Counted work of a step, for profiles: flops = per_row * rows of the result + per_token * tokens +
// per_pair * (query, key) pairs, and likewise bytes.
struct Cost {
  double flops_per_row = 0;
  double flops_per_token = 0;
  double flops_per_pair = 0;
  double bytes_per_row = 0;
  double bytes_fixed = 0;  // weights
};

struct Step {
  using Function = void (*)(const void* args, const RunContext&) noexcept;
  Function run = nullptr;
  std::shared_ptr<const void> args;
  Op op = Op::input;
  DType dtype = DType::kF32;  // what is multiplied
  std::string name;
  Rows rows = Rows::kTokens;
  Cost cost;
};

}  // namespace trine
