/* cli/bench_mark.c - what a watermark costs the server's decoding: the same 8 sequences through the same
 * slots, drawn plainly and marked, in turns.  Its limit is the plain one. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "cli/open_model.h"
#include "evidence/keys.h"
#include "evidence/marker.h"
#include "serve/lane.h"

enum { TOGETHER = 8, PROMPT_TOKENS = 32, ANSWER_TOKENS = 64 };

static void ignore(void *context, rt_job *job)
{
    (void)context;
    (void)job;
}

static rt_status push_job(rt_lane *lane, rt_rng *rng, uint64_t seed, const rt_marker *marker, rt_job **out,
                          rt_error *err)
{
    rt_job_options options = {.tokens_max = ANSWER_TOKENS,
                              .n = 1,
                              .top_logprobs = -1,
                              .prompt_top_logprobs = -1,
                              .ignore_eos = true,
                              .sampling = rt_sampling_default()};
    options.sampling.temperature = 1;
    options.sampling.seed = seed;
    options.sampling.marker = marker;
    rt_token_list prompt = {.ids = calloc(PROMPT_TOKENS, sizeof(int32_t)), .count = PROMPT_TOKENS};
    if (!prompt.ids)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a prompt");
    for (size_t i = 0; i < PROMPT_TOKENS; i++)
        prompt.ids[i] = (int32_t)rt_rng_below(rng, lane->n_vocab);
    if (rt_job_new(out, &options, &prompt, 1, err) == RT_OK && !rt_fair_push(&lane->queue, *out))
        (void)rt_error_set(err, RT_NO_MEMORY, "no memory for a request");
    free(prompt.ids);
    return err->status;
}

/* Seconds of decoding for all sequences; prompts are computed before the clock starts. */
static rt_status timed(rt_lane *lane, uint64_t run, const rt_marker *marker, double *seconds, rt_error *err)
{
    rt_job *jobs[TOGETHER] = {NULL};
    rt_lane_sink sink = {.grown = ignore, .ended = ignore};
    rt_rng rng = rt_rng_make(1, run);
    for (size_t i = 0; i < TOGETHER && err->status == RT_OK; i++)
        (void)push_job(lane, &rng, 1 + run * TOGETHER + i, marker, &jobs[i], err);
    if (err->status == RT_OK) {
        rt_lane_admit(lane, 0, &sink);
        while (rt_lane_prefill(lane, TOGETHER * PROMPT_TOKENS, &sink))
            ;
        const double from = rt_clock_seconds();
        while (rt_lane_decode(lane, &sink))
            ;
        *seconds = rt_clock_seconds() - from;
    }
    for (size_t i = 0; i < TOGETHER; i++) {
        if (jobs[i] && jobs[i]->fault.status != RT_OK)
            *err = jobs[i]->fault;
        rt_job_free(jobs[i]);
    }
    return err->status;
}

static rt_status runs_of(bench *b, rt_lane *lane, const rt_mark *mark, double *plain, double *marked,
                         rt_error *err)
{
    double warm;
    if (timed(lane, b->options.runs, NULL, &warm, err) != RT_OK)
        return err->status;
    for (size_t run = 0; run < b->options.runs; run++) /* in turns: a busy machine disturbs both alike */
        if (timed(lane, run, NULL, &plain[run], err) != RT_OK ||
            timed(lane, run, rt_mark_marker(mark), &marked[run], err) != RT_OK)
            return err->status;
    const double tokens = (double)TOGETHER * (ANSWER_TOKENS - 1); /* the first comes with the prompt */
    const double plain_rate = tokens / bench_median(plain, b->options.runs);
    bench_add(b, &(bench_row){.name = "serving 8 at once", .unit = "tokens/s", .value = plain_rate});
    bench_add(b, &(bench_row){.name = "serving 8 at once, watermarked",
                              .unit = "tokens/s",
                              .value = tokens / bench_median(marked, b->options.runs),
                              .limit = plain_rate,
                              .bar = BENCH_SHARE,
                              .must = 0.97,
                              .aim = 0.99});
    return RT_OK;
}

rt_status bench_mark(bench *b, rt_error *err)
{
    cli_model model = {0};
    rt_lane lane = {0};
    rt_mark *mark = NULL;
    rt_watermark key = rt_watermark_default(RT_SCHEME_TOURNAMENT);
    rt_mark_key_randomise(&key, 1, 1);
    double *times = calloc(2 * b->options.runs, sizeof *times);
    rt_status status = times ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for figures");
    if (status == RT_OK)
        status =
            cli_model_open(&model, b->options.model, cli_precision(b->options.precision), 0, b->pool, err);
    if (status == RT_OK)
        status = rt_mark_open(&mark, &key, NULL, 0, false, err);
    if (status == RT_OK) {
        const rt_lane_options options = {.model = model.model,
                                         .tokenizer = model.tokenizer,
                                         .n_slots = TOGETHER,
                                         .n_positions = PROMPT_TOKENS + ANSWER_TOKENS};
        status = rt_lane_open(&lane, &options, err);
        if (status == RT_OK)
            status = runs_of(b, &lane, mark, times, times + b->options.runs, err);
        rt_lane_close(&lane);
    }
    rt_mark_close(mark);
    cli_model_close(&model);
    free(times);
    return status;
}
