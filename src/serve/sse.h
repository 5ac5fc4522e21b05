/* serve/sse.h - server-sent events as a gateway needs them: where one ends, what it holds.  Pure. */
#ifndef RT_SERVE_SSE_H
#define RT_SERVE_SSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/text.h"

enum { RT_SSE_EVENT_MAX = 1 << 20 };

/* Cuts a stream into events.  An event longer than RT_SSE_EVENT_MAX is handed on in pieces, unread. */
typedef struct rt_sse {
    rt_text held; /* of an event that is not whole */
} rt_sse;
/* bytes: one event with the blank line that ends it (or a piece: whole false). */
typedef void (*rt_sse_fn)(void *context, const char *bytes, size_t size, bool whole);
/* false: no memory. */
bool rt_sse_feed(rt_sse *sse, const char *data, size_t size, rt_sse_fn fn, void *context);
/* What is left at the end of the stream. */
void rt_sse_rest(rt_sse *sse, rt_sse_fn fn, void *context);
void rt_sse_deinit(rt_sse *sse);

/* The text after "data:" of an event's first data line; NULL when there is none. */
const char *rt_sse_data(const char *bytes, size_t size, size_t *data_size);

/* What a response or a chunk says was used: prompt_tokens or input_tokens, and so on, at "usage" or
 * "response.usage". */
typedef struct rt_sse_usage {
    int64_t input, cached, output;
    bool there;
} rt_sse_usage;
/* Overwrites *usage when the JSON has one.  *only_usage: it is a chunk without choices. */
void rt_usage_read(rt_sse_usage *usage, const char *data, size_t size, bool *only_usage);
/* Bytes of generated text in a chunk: the strings at "content", "text", "reasoning_content", "arguments",
 * "delta"; none in an event of /v1/responses that is no delta, since it says again what deltas said. */
size_t rt_chunk_text_bytes(const char *data, size_t size);
/* At most so many tokens can these values of a request be: a byte each for texts, one for numbers, and some
 * for what a template puts between; 2,000 for an image. */
int64_t rt_json_tokens_bound(const json_t *value);

#endif
