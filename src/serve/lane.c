/* serve/lane.c - slots of a lane: who gets which, what is kept, how sequences end.  The passes are in
 * lane_run.c. */
#include "serve/lane.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/size.h"
#include "serve/choice.h"
#include "serve/lane_rows.h"

rt_status rt_lane_open(rt_lane *lane, const rt_lane_options *options, rt_error *err)
{
    *lane = (rt_lane){.options = *options, .n_vocab = options->model->config.n_vocab};
    const size_t n = options->n_slots, threads = rt_pool_threads(options->model->pool);
    if (n == 0 || n > 256)
        return rt_error_set(err, RT_INVALID, "a server has 1 to 256 slots, not %zu", n);
    if (rt_session_open(&lane->session, options->model, n + 1, options->n_positions, err) != RT_OK)
        return err->status;
    lane->capacity = rt_session_capacity(lane->session);
    switch (options->model->precision) {
    case RT_PRECISION_F32:
    case RT_PRECISION_BF16:
        lane->pad_rows = rt_size_min(n, LANE_ROWS);
        lane->logit_rows = LANE_ROWS / 2;
        break;
    case RT_PRECISION_INT8:
        lane->pad_rows = 0;
        lane->logit_rows = 1;
        break;
    }
    if (options->prefix_bytes > 0 &&
        rt_prefix_open(&lane->prefixes, lane->session, options->prefix_bytes, err) != RT_OK)
        return err->status;
    size_t logits;
    lane->slots = calloc(n, sizeof *lane->slots);
    lane->drawers = calloc(threads, sizeof *lane->drawers);
    lane->logits = rt_size_mul(lane->n_vocab, LANE_ROWS * sizeof(float), &logits) ? malloc(logits) : NULL;
    lane->pieces = calloc(n + 1, sizeof *lane->pieces);
    lane->turns = calloc(n, sizeof *lane->turns);
    lane->whole = calloc(n, sizeof *lane->whole);
    lane->whole_rows = calloc(n, sizeof *lane->whole_rows);
    lane->drawn = calloc(LANE_ROWS, sizeof *lane->drawn);
    lane->tops = calloc((size_t)LANE_ROWS * RT_JOB_TOP_MAX, sizeof *lane->tops);
    bool ok = lane->slots && lane->drawers && lane->logits && lane->pieces && lane->turns && lane->whole &&
              lane->whole_rows && lane->drawn && lane->tops;
    for (size_t i = 0; ok && i < n; i++)
        ok = (lane->slots[i].ids = calloc(lane->capacity + 1, sizeof(int32_t))) != NULL;
    if (!ok)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu slots", n);
    for (size_t i = 0; i < threads; i++)
        if (rt_drawer_init(&lane->drawers[i], options->tokenizer, lane->n_vocab, err) != RT_OK)
            return err->status;
    return RT_OK;
}

void rt_lane_close(rt_lane *lane)
{
    for (size_t i = 0; lane->slots && i < lane->options.n_slots; i++)
        free(lane->slots[i].ids);
    for (size_t i = 0; lane->drawers && i < rt_pool_threads(lane->options.model->pool); i++)
        rt_drawer_deinit(&lane->drawers[i]);
    free(lane->slots);
    free(lane->drawers);
    free(lane->logits);
    free(lane->pieces);
    free(lane->turns);
    free(lane->whole);
    free(lane->whole_rows);
    free(lane->drawn);
    free(lane->tops);
    rt_fair_deinit(&lane->queue);
    rt_prefix_close(lane->prefixes);
    rt_session_close(lane->session);
    *lane = (rt_lane){0};
}

size_t rt_lane_running(const rt_lane *lane)
{
    size_t n = 0;
    for (size_t i = 0; i < lane->options.n_slots; i++)
        n += lane->slots[i].state != RT_SLOT_FREE;
    return n;
}

size_t rt_lane_kv_tokens(const rt_lane *lane)
{
    size_t n = 0;
    for (size_t i = 0; i < lane->options.n_slots; i++)
        n += lane->slots[i].filled;
    return n;
}

/* ---- the end of a sequence ---- */

static void end_choice(rt_job *job, rt_choice *choice, rt_job_finish why)
{
    (void)pthread_mutex_lock(&job->lock);
    rt_choice_release(choice, &job->options, true);
    choice->finish = why;
    if (++job->n_finished == job->n_choices)
        job->ended_s = rt_clock_seconds();
    (void)pthread_mutex_unlock(&job->lock);
}

static void tell(rt_job *job, rt_lane_sink *sink)
{
    if (job->n_finished == job->n_choices)
        sink->ended(sink->context, job);
    else
        sink->grown(sink->context, job);
}

void rt_slot_finish(rt_lane *lane, rt_slot *slot, rt_job_finish why, rt_lane_sink *sink)
{
    rt_job *job = slot->job;
    if (slot->choice->index == 0 && job->options.prompt_top_logprobs < 0) /* scored ones are not used again */
        rt_prefix_keep(lane->prefixes, slot->scope, (size_t)(slot - lane->slots), slot->ids, slot->clean);
    end_choice(job, slot->choice, why);
    slot->state = RT_SLOT_FREE;
    slot->job = NULL;
    slot->choice = NULL;
    slot->n = slot->filled; /* the last token drawn is not in the cache */
    slot->last_used = ++lane->clock;
    tell(job, sink);
}

/* ---- cancelled and late ones ---- */

typedef struct reaper {
    double now;
} reaper;

static bool is_late(const rt_job *job, double now) { return job->deadline_s > 0 && now > job->deadline_s; }

static bool still_wanted(void *context, const rt_job *job)
{
    const reaper *r = context;
    return !atomic_load(&job->cancelled) && !is_late(job, r->now);
}

void rt_lane_reap(rt_lane *lane, double now, rt_lane_sink *sink)
{
    reaper r = {now};
    /* what never began ends without a slot; a job whose last sequence ends in a slot is told there */
    for (rt_job *job = rt_fair_sift(&lane->queue, still_wanted, &r), *next; job; job = next) {
        next = job->next;
        (void)pthread_mutex_lock(&job->lock);
        job->timed_out = !atomic_load(&job->cancelled);
        (void)pthread_mutex_unlock(&job->lock);
        for (size_t i = job->n_started; i < job->n_choices; i++)
            end_choice(job, &job->choices[i], RT_JOB_ABORTED);
        job->n_started = job->n_choices;
        if (job->n_finished == job->n_choices)
            tell(job, sink);
    }
    for (size_t i = 0; i < lane->options.n_slots; i++) {
        rt_slot *slot = &lane->slots[i];
        if (slot->state == RT_SLOT_FREE || still_wanted(&r, slot->job))
            continue;
        rt_job *job = slot->job;
        const bool late = !atomic_load(&job->cancelled);
        (void)pthread_mutex_lock(&job->lock);
        job->timed_out = late;
        (void)pthread_mutex_unlock(&job->lock);
        rt_slot_finish(lane, slot, late && slot->n > slot->n_prompt ? RT_JOB_LENGTH : RT_JOB_ABORTED, sink);
    }
}

/* ---- admission ---- */

static uint64_t cost_of(const rt_job *job)
{
    enum { COST_MAX = 4096 }; /* a bound on the rounds that one request waits */
    const size_t prompt = job->prompts[job->choices[job->n_started].prompt].n;
    const size_t answer = rt_size_min(job->options.tokens_max, COST_MAX);
    return 1 + rt_size_min(prompt + answer, COST_MAX);
}

static size_t common(const rt_slot *slot, uint64_t scope, const int32_t *ids, size_t n)
{
    const size_t most = slot->scope == scope ? rt_size_min(slot->clean, n) : 0;
    size_t same = 0;
    while (same < most && slot->ids[same] == ids[same])
        same++;
    return same;
}

/* The slot for a prompt, brought to the longest beginning of it that a slot or the store holds; *same tokens.
 */
static rt_slot *choose_slot(rt_lane *lane, uint64_t scope, const int32_t *ids, size_t n, size_t *same)
{
    rt_slot *source = NULL, *oldest = NULL;
    size_t best = 0;
    for (size_t i = 0; i < lane->options.n_slots; i++) {
        rt_slot *slot = &lane->slots[i];
        const size_t k = common(slot, scope, ids, n);
        if (k > best || (k == best && k > 0 && slot->state == RT_SLOT_FREE)) {
            best = k;
            source = slot;
        }
        if (slot->state == RT_SLOT_FREE &&
            (!oldest || (slot->filled > 0) < (oldest->filled > 0) ||
             ((slot->filled > 0) == (oldest->filled > 0) && slot->last_used < oldest->last_used)))
            oldest = slot;
    }
    const rt_prefix_match kept = rt_prefix_find(lane->prefixes, scope, ids, n);
    *same = rt_size_max(best, kept.n);
    if (!oldest || *same == 0)
        return oldest;
    if (kept.n > best) {
        rt_prefix_load(lane->prefixes, &kept, (size_t)(oldest - lane->slots));
        return oldest;
    }
    /* its own continuation takes the slot; another text that only begins alike leaves it what it has */
    if (source->state == RT_SLOT_FREE && 2 * best >= source->clean)
        return source;
    if (oldest != source)
        rt_session_copy(lane->session, (size_t)(oldest - lane->slots), (size_t)(source - lane->slots), best);
    return oldest;
}

static void begin(rt_lane *lane, rt_job *job, double now, rt_lane_sink *sink)
{
    rt_choice *choice = &job->choices[job->n_started];
    rt_job_prompt *prompt = &job->prompts[choice->prompt];
    size_t same;
    rt_slot *slot = choose_slot(lane, job->scope, prompt->ids, prompt->n, &same);
    const bool sibling = job->prompt_logits[choice->prompt] && same == prompt->n;
    if (job->options.prompt_top_logprobs >= 0 && choice->index == 0)
        same = 0; /* every token of it has to be scored */
    else if (!sibling && same == prompt->n)
        same--; /* the last token's logits are needed */
    *slot = (rt_slot){.state = RT_SLOT_PREFILL,
                      .job = job,
                      .choice = choice,
                      .prompt = choice->prompt,
                      .ids = slot->ids,
                      .n_prompt = prompt->n,
                      .n = prompt->n,
                      .filled = same,
                      .clean = same,
                      .scope = job->scope,
                      .last_used = ++lane->clock};
    memcpy(slot->ids, prompt->ids, prompt->n * sizeof *slot->ids);
    rt_session_truncate(lane->session, (size_t)(slot - lane->slots), same);
    (void)pthread_mutex_lock(&job->lock);
    if (job->started_s == 0)
        job->started_s = now;
    if (choice->index == 0)
        prompt->cached = same;
    (void)pthread_mutex_unlock(&job->lock);
    if (choice->index == 0) {
        sink->prompt_tokens += prompt->n;
        sink->cached_tokens += same;
    }
    job->n_started++;
}

/* A further choice of a prompt waits until the first one has its keys and values: they are computed once. */
static bool must_wait(const rt_job *job)
{
    const rt_choice *choice = &job->choices[job->n_started], *first = choice - choice->index;
    return choice->index > 0 && !job->prompt_logits[choice->prompt] && first->finish == RT_JOB_RUNNING;
}

void rt_lane_admit(rt_lane *lane, double now, rt_lane_sink *sink)
{
    size_t free_slots = lane->options.n_slots - rt_lane_running(lane);
    while (free_slots > 0) {
        rt_job *job = rt_fair_next(&lane->queue, cost_of);
        if (!job || must_wait(job))
            return;
        const uint64_t cost = cost_of(job);
        begin(lane, job, now, sink);
        rt_fair_spend(&lane->queue, cost, job->n_started == job->n_choices);
        free_slots--;
    }
}
