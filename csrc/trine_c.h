/* SPDX-License-Identifier: Apache-2.0 */
/* The C interface of trine: what the shared library exports, for other languages and for trine.h,
 * which is made of these calls. So a program may be built by another compiler, with another C++
 * library, than the one that built trine.
 *
 * Functions that can fail return NULL or an error, which the caller frees. Strings are UTF-8 and
 * live as long as the object they were asked of. A model may be used from many threads at once, a
 * generator too (its calls wait for each other); freeing one needs that nobody uses it any more. */
#ifndef TRINE_C_H
#define TRINE_C_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(TRINE_BUILDING)
#define TRINE_API __declspec(dllexport)
#elif defined(_WIN32) && defined(TRINE_SHARED)
#define TRINE_API __declspec(dllimport)
#elif defined(_WIN32)
#define TRINE_API
#else
#define TRINE_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trine_error trine_error;
typedef struct trine_model trine_model;
typedef struct trine_generator trine_generator;
typedef struct trine_tokenizer trine_tokenizer;
typedef struct trine_tokens trine_tokens;
typedef struct trine_text_stream trine_text_stream;

enum {
  TRINE_MODEL_ERROR = 1,
  TRINE_INPUT_ERROR = 2,
  TRINE_DEVICE_ERROR = 3,
  TRINE_OTHER_ERROR = 4
};
enum { TRINE_UNFINISHED = 0, TRINE_END_TOKEN = 1, TRINE_LENGTH = 2, TRINE_NOT_A_NUMBER = 3 };

/* `size`: sizeof the struct as the caller knows it; fields may be added behind the last. */
typedef struct trine_options {
  size_t size;
  int32_t threads; /* 0: one for each processor that the process may use */
  /* "cpu", "cuda", "cuda:1", "metal"; "auto" or NULL: the first GPU of a plugin that is there and
   * works, but for Metal's, else the processor */
  const char* device;
} trine_options;

/* Ragged: sequence b is ids[offsets[b]] .. ids[offsets[b + 1] - 1]; offsets has sequences + 1. */
typedef struct trine_batch {
  size_t size;
  const int32_t* ids;
  const int32_t* offsets;
  size_t sequences;
  const int32_t* token_types;    /* one for each id, or NULL */
  const int32_t* prompt_lengths; /* one for each sequence, or NULL */
} trine_batch;

typedef struct trine_output {
  const char* name;
  int64_t columns;
  int32_t per_token;  /* a row for each id; else one for each sequence */
  int32_t by_default; /* one of those that the model is made for */
} trine_output;

typedef struct trine_sampling {
  size_t size;
  int64_t max_new_tokens;
  int32_t min_new_tokens;
  float temperature; /* 0: the most likely token */
  int32_t top_k;     /* 0: all */
  float top_p, min_p, repetition_penalty;
  uint64_t seed;
  const int32_t* end_tokens; /* NULL: the model's own */
  size_t end_token_count;
} trine_sampling;

typedef struct trine_token {
  int64_t sequence;
  int32_t token;
  float logprob;
  int32_t finish;
} trine_token;

/* One text, or two: `second` is NULL for one. Bytes need not end with 0; what isn't UTF-8 is read
 * as U+FFFD. */
typedef struct trine_text {
  const char* first;
  size_t first_bytes;
  const char* second;
  size_t second_bytes;
} trine_text;

enum { TRINE_LONGEST_FIRST = 0, TRINE_ONLY_FIRST = 1, TRINE_ONLY_SECOND = 2 };

typedef struct trine_encoding {
  size_t size;
  int64_t max_length; /* most tokens, special ones included; 0: as many as the model takes */
  int32_t cut;        /* which text of two is cut: TRINE_LONGEST_FIRST, ... */
  int32_t refuse;     /* not 0: a text that is too long is an error, and isn't cut */
  int32_t bare;       /* not 0: no special tokens are put around */
  const char*
      prompt; /* put before each text, and counted in trine_batch's prompt_lengths; or NULL */
  size_t prompt_bytes;
} trine_encoding;

TRINE_API const char* trine_version(void);

TRINE_API int32_t trine_error_kind(const trine_error*);
TRINE_API const char* trine_error_text(const trine_error*);
TRINE_API void trine_error_free(trine_error*);

TRINE_API trine_error* trine_model_load(const char* path, const trine_options*, trine_model**);
TRINE_API void trine_model_free(trine_model*);
TRINE_API size_t trine_model_output_count(const trine_model*);
TRINE_API trine_output trine_model_output(const trine_model*, size_t index);
/* results[i]: room for the rows of outputs[i], columns floats each. */
TRINE_API trine_error* trine_model_run(const trine_model*, const trine_batch*,
                                       const char* const* outputs, size_t count,
                                       float* const* results);
/* "trine.task", "trine.dtype", "config.json", "tokenizer.json", ...; NULL when it isn't there. */
TRINE_API const char* trine_model_metadata(const trine_model*, const char* key);
TRINE_API const char* trine_model_isa(const trine_model*);
/* "cpu", "cuda" or "metal", and why that one. */
TRINE_API const char* trine_model_device(const trine_model*);
TRINE_API const char* trine_model_device_reason(const trine_model*);
/* Tokens of the longest sequence; 0 where any goes. */
TRINE_API int64_t trine_model_max_length(const trine_model*);
TRINE_API size_t trine_model_label_count(const trine_model*);
TRINE_API const char* trine_model_label(const trine_model*, size_t index);

/* capacity: most tokens of a sequence, its prompt included. */
TRINE_API trine_error* trine_generator_new(const trine_model*, int64_t capacity, trine_generator**);
TRINE_API void trine_generator_free(trine_generator*);
TRINE_API trine_error* trine_generator_add(trine_generator*, const int32_t* prompt, size_t tokens,
                                           const trine_sampling*, int64_t* sequence);
/* The next token of each sequence whose prompt is through, at most `room` of them: what has no room
 * comes with the next call. Room for trine_generator_active is enough. */
TRINE_API trine_error* trine_generator_step(trine_generator*, trine_token* tokens, size_t room,
                                            size_t* count);
TRINE_API size_t trine_generator_active(const trine_generator*);
TRINE_API trine_error* trine_generator_remove(trine_generator*, int64_t sequence);

/* Of a compiled file, or of a tokenizer.json alone, which has no limit then. A tokenizer may be
 * used from many threads at once. */
TRINE_API trine_error* trine_tokenizer_load(const char* path, trine_tokenizer**);
/* The model's own, read at the first call. It may outlive the model. */
TRINE_API trine_error* trine_model_tokenizer(const trine_model*, trine_tokenizer**);
TRINE_API void trine_tokenizer_free(trine_tokenizer*);
TRINE_API trine_error* trine_tokenizer_encode(const trine_tokenizer*, const trine_text* texts,
                                              size_t count, const trine_encoding*, trine_tokens**);
/* What trine_model_run takes; lives as long as the tokens. */
TRINE_API trine_batch trine_tokens_batch(const trine_tokens*);
/* How many tokens were cut from each text. */
TRINE_API const int64_t* trine_tokens_cut(const trine_tokens*);
TRINE_API void trine_tokens_free(trine_tokens*);
/* The text of tokens; with `special` not 0 special ones are shown. At most `room` bytes are
 * written, no 0 behind them; `bytes` is how many the text has. */
TRINE_API trine_error* trine_tokenizer_decode(const trine_tokenizer*, const int32_t* ids,
                                              size_t count, int32_t special, char* text,
                                              size_t room, size_t* bytes);
/* -1 when there is no such token. */
TRINE_API int32_t trine_tokenizer_find(const trine_tokenizer*, const char* token, size_t bytes);
/* As it is in the vocabulary, without a 0 behind it; NULL when no token has the id. */
TRINE_API const char* trine_tokenizer_token(const trine_tokenizer*, int32_t id, size_t* bytes);
TRINE_API size_t trine_tokenizer_size(const trine_tokenizer*);

/* The text of one sequence as its tokens come: never half a character. For one thread at a time.
 * What comes out lives until the next call. */
TRINE_API trine_error* trine_text_stream_new(const trine_tokenizer*, trine_text_stream**);
TRINE_API trine_error* trine_text_stream_push(trine_text_stream*, int32_t token, const char** text,
                                              size_t* bytes);
/* What was held back: there are no more tokens. */
TRINE_API trine_error* trine_text_stream_flush(trine_text_stream*, const char** text,
                                               size_t* bytes);
TRINE_API void trine_text_stream_free(trine_text_stream*);

/* A text that sentence-transformers puts before others, by name; NULL for the one by default. NULL
 * when there is none of that name. */
TRINE_API const char* trine_model_prompt(const trine_model*, const char* name);

#ifdef __cplusplus
}
#endif

#endif
