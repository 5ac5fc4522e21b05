/* outputs/collect.h - asks a teacher every prompt of some files and keeps what it says, each row exactly
 * once.
 *
 * Stopped or killed, the same call goes on: rows that are in the output are not asked again.  Prompts are
 * checked before anything is sent.  Money and tokens are reserved at their worst case before a request goes
 * out, so a limit is never passed.  Identical requests whose answer is determined (temperature 0, or a seed)
 * are asked once and their answer is written for each. */
#ifndef RT_OUTPUTS_COLLECT_H
#define RT_OUTPUTS_COLLECT_H

#include "outputs/collect_row.h"
#include "outputs/collect_sink.h"
#include "outputs/price.h"
#include "outputs/prompts.h"

typedef enum rt_on_length { RT_ON_LENGTH_KEEP, RT_ON_LENGTH_DROP, RT_ON_LENGTH_RETRY } rt_on_length;

/* What the files hold, found before anything is asked. */
typedef struct rt_collect_survey {
    size_t prompts, rows;         /* rows: prompts times samples */
    uint64_t prompt_bytes;        /* of all rows */
    uint64_t prompt_tokens;       /* estimate: bytes / 4 */
    uint64_t answer_tokens_worst; /* sum of max_tokens; 0 where a row has none */
    bool all_limited;             /* every row has a max_tokens */
} rt_collect_survey;

typedef struct rt_collect_progress {
    const rt_collect_totals *totals;
    const rt_teacher_state *state;
    size_t rows_total;  /* that will be in the end, as far as is known */
    size_t rows_before; /* were there when this call began */
    size_t duplicates, near, refusals, truncated, shared;
    uint64_t tokens_here; /* completion tokens in this call */
    double elapsed_s;
} rt_collect_progress;

typedef struct rt_collect_options {
    const char *out; /* "x.jsonl": a file; else a store's folder */
    rt_strings inputs;
    rt_prompt_options prompts;
    const json_t
        *params; /* members of every body that does not say them itself: temperature, max_tokens, ... */
    const json_t *settings; /* what else makes two runs the same (model, address, ...) */
    const json_t *teacher;  /* what is known of the teacher, for manifests */
    const json_t *source;   /* stands in every row; NULL: none */
    size_t samples;         /* a prompt; 0: 1 */
    size_t rows_max;        /* stop after this many prompts; 0: all */
    bool batch, new_run, retry_failed, ordered, json_asked;
    rt_on_length on_length;
    double near; /* drop prompts whose similarity to an earlier one is at least this; 0: none */
    rt_price price;
    rt_spend_max spend_max;
    const char *who;
    const char *cache; /* path of answers shared between runs (answer_cache.h); NULL: none */
    /* Often; RT_STOPPED drains, any other failure ends the call.  May be NULL. */
    rt_status (*progress)(void *context, const rt_collect_progress *progress, rt_error *err);
    void *context;
    double (*clock)(void *context); /* seconds, steady; NULL: rt_clock_seconds */
} rt_collect_options;

typedef struct rt_collect_report {
    rt_collect_totals totals;
    size_t rows_total, duplicates, near, refusals, truncated, shared, adopted, no_answer;
    uint64_t attempts, retries, limited, failures, cut_bytes;
    unsigned flags; /* RT_REPLY_*, of all replies */
    bool complete;
} rt_collect_report;

rt_status rt_collect_survey_files(rt_collect_survey *out, const rt_collect_options *options, rt_error *err);
/* RT_STOPPED: stopped on request, or a limit was reached; the same call goes on. */
rt_status rt_collect(rt_teacher *teacher, const rt_collect_options *options, rt_collect_report *report,
                     rt_error *err);

#endif
