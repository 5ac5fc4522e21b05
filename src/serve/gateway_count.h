/* serve/gateway_count.h - tokens of a relayed request and its answer, counted here by a tokenizer like the
 * upstream's, for upstreams that do not say what was used. */
#ifndef RT_SERVE_GATEWAY_COUNT_H
#define RT_SERVE_GATEWAY_COUNT_H

#include "base/json.h"
#include "base/text.h"
#include "model/tokenizer.h"

/* Of a request's body: ids as they are, texts encoded; four for the frame of each message. */
size_t rt_count_prompt(const rt_tokenizer *tokenizer, const json_t *body);
/* Appends what an answer, or an event of one, says in its choices.  What is not JSON says nothing. */
void rt_said_append(rt_text *said, const char *data, size_t size);
size_t rt_count_text(const rt_tokenizer *tokenizer, const char *text, size_t size);

#endif
