/* outputs/collect_row.h - a row of a collection as one line of JSON.
 *
 * Own form: {"id","custom_id"?,"index","request","response","reasoning","finish_reason","usage","logprobs",
 * "token_ids"?,"prompt_token_ids"?,"model","fingerprint","attempts","ms","cost","ts","refusal","truncated","flags",
 * "source"}; logprobs is a list of {"token","bytes","logprob","id"?,"top":[..],"tail"}.  Store form: the same
 * with "key", "prompt" or "messages", and "completion" for response.  Batch form:
 * {"id","custom_id","response":
 * {"status_code","request_id","body"},"error"}. */
#ifndef RT_OUTPUTS_COLLECT_ROW_H
#define RT_OUTPUTS_COLLECT_ROW_H

#include "teacher/teacher.h"

typedef enum rt_row_form { RT_ROW_OWN, RT_ROW_STORE, RT_ROW_BATCH } rt_row_form;

typedef struct rt_row_facts {
    rt_row_form form;
    const char *id, *custom_id; /* custom_id NULL: none */
    size_t index;               /* of the sample */
    const json_t *request;      /* the body that was asked */
    const char *source;         /* JSON text */
    const char *file;
    size_t line;
    double cost; /* negative: not known */
    int64_t ts;
    bool shared; /* the answer to an identical request */
    bool truncated;
} rt_row_facts;

/* Each appends one line with its end. */
void rt_row_write(rt_text *out, const rt_row_facts *facts, const rt_answered *reply);
/* What has no answer: code and sentence. */
void rt_row_write_failure(rt_text *out, const rt_row_facts *facts, const rt_answered *reply, const char *code,
                          const char *message);
/* A JSON string with its quotes; ill-formed UTF-8 and NUL become U+FFFD. */
void rt_row_string(rt_text *out, const char *text, size_t size);

#endif
