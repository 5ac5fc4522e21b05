/* evidence/endpoint.h - a suspect that can only be asked over the network: an OpenAI-compatible server.
 *
 * What it says is kept in a work folder: answers.jsonl (outputs/collect.h, with its journal), scores.jsonl
 * (one line a scored sequence), early.jsonl and late.jsonl (the same questions at temperature 0 before and
 * after).  A run that was stopped or killed asks for nothing that is there.  Money and tokens count over all
 * of it. */
#ifndef RT_EVIDENCE_ENDPOINT_H
#define RT_EVIDENCE_ENDPOINT_H

#include <jansson.h>

#include "base/schema.h"
#include "outputs/price.h"

typedef struct rt_endpoint rt_endpoint;

typedef struct rt_endpoint_options {
    const char *url, *model, *key; /* as in rt_remote_options */
    const char *folder;            /* of the journals; made */
    size_t n_vocab;                /* of the tokenizer whose ids are sent; 0: not known */
    size_t top_logprobs;           /* of answers; 0: none */
    size_t score_top;              /* listed tokens of a scored place; 0: 20 */
    rt_price price;
    rt_spend_max spend_max;
    double patience_s; /* these two 0: as rt_remote_options */
    size_t attempts;
} rt_endpoint_options;

/* Texts are copied.  RT_MISMATCH when the folder belongs to another address or model. */
rt_status rt_endpoint_open(rt_endpoint **out, const rt_endpoint_options *options, rt_error *err);
void rt_endpoint_close(rt_endpoint *endpoint);

/* One sequence as the server scored it: the listed tokens of position i (1 .. n-1) are [begin[i],
 * begin[i+1]).
 */
typedef struct rt_scored {
    size_t n;
    float *own;      /* [n] ln P of ids[i] given those before; NAN for i = 0 */
    uint32_t *begin; /* [n + 1] */
    int32_t *ids;    /* listed tokens, likeliest first */
    float *ln_p;
} rt_scored;

/* A line of scores.jsonl: {"key", "own": [ln P], "ids": [[..]], "lp": [[..]]}, one entry a position from 1
 * on. */
rt_status rt_scored_parse(rt_scored *out, const json_t *row, const char *where, rt_error *err);
void rt_scored_free(rt_scored *scored);

/* Notes a sequence to be scored; nothing is sent.  n >= 2. */
rt_status rt_endpoint_want(rt_endpoint *endpoint, const int32_t *ids, size_t n, rt_error *err);
/* What is wanted and not there, before anything is sent: texts, and tokens that they will be billed as. */
typedef struct rt_endpoint_cost {
    size_t texts;
    uint64_t tokens;
    double money; /* 0 without a price */
    bool capped;  /* there is a spending limit */
    bool past;    /* which it would pass */
} rt_endpoint_cost;
rt_endpoint_cost rt_endpoint_cost_of(const rt_endpoint *endpoint);
/* Scores all that is wanted and not there.  RT_STOPPED at the spending limit, or when stop says so;
 * RT_UNSUPPORTED when the server scores no given text. */
rt_status rt_endpoint_fetch(rt_endpoint *endpoint, bool (*stop)(void), rt_error *err);
/* The scores of a sequence, or NULL. */
const rt_scored *rt_endpoint_scored(const rt_endpoint *endpoint, const int32_t *ids, size_t n);
/* While dry, who asks for scores only notes what it wants. */
bool rt_endpoint_dry(const rt_endpoint *endpoint);
void rt_endpoint_set_dry(rt_endpoint *endpoint, bool dry);

/* Answers to a file's prompts until there are about `tokens` of answer tokens (samples of answer_tokens
 * each), as rows in <folder>/<name>.jsonl; named "answers", the same few questions are asked at temperature 0
 * before and after. *path: the rows' file; free() it. */
rt_status rt_endpoint_answers(rt_endpoint *endpoint, const char *name, const char *prompts, size_t tokens,
                              size_t answer_tokens, double temperature, bool (*stop)(void), char **path,
                              rt_error *err);
/* What was asked, spent and seen: {url, model, rows, rejected, refusals, scored, tokens, money, again:
 * {asked, same}, models, fingerprints, flags}. */
json_t *rt_endpoint_json(const rt_endpoint *endpoint);

#endif
