/* serve/lane_run.c - the passes of a lane: prefill with scoring, decoding, drawing. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/size.h"
#include "serve/choice.h"
#include "serve/lane.h"
#include "serve/lane_rows.h"

/* Logits of up to LANE_ROWS rows of the last pass, made for a constant number of rows where the precision
 * needs it. */
static void make_logits(rt_lane *lane, const size_t *rows, size_t n)
{
    size_t padded[LANE_ROWS], count = n;
    for (size_t i = 0; i < n; i++)
        padded[i] = rows[i];
    while (count % lane->logit_rows)
        padded[count++] = rows[n - 1];
    for (size_t at = 0; lane->logit_rows > 1 && at < count; at += lane->logit_rows)
        rt_session_logits(lane->session, padded + at, lane->logit_rows, lane->logits + at * lane->n_vocab);
    if (lane->logit_rows == 1)
        rt_session_logits(lane->session, padded, count, lane->logits);
}

/* ---- taking a drawn token ---- */

static bool grow_tokens(rt_choice *choice, size_t n_top)
{
    if (choice->n_tokens < choice->tokens_capacity)
        return true;
    const size_t capacity = 2 * choice->tokens_capacity + 64;
    rt_scored *tokens = realloc(choice->tokens, capacity * sizeof *tokens);
    if (!tokens)
        return false;
    choice->tokens = tokens;
    rt_top *top = realloc(choice->top, (capacity * n_top + 1) * sizeof *top);
    if (!top)
        return false;
    choice->top = top;
    choice->tokens_capacity = capacity;
    return true;
}

static bool ends_choice(const rt_lane *lane, const rt_job_options *options, int32_t id)
{
    for (size_t i = 0; i < options->n_stop_ids; i++)
        if (options->stop_ids[i] == id)
            return true;
    return (!options->ignore_eos || options->grammar) && rt_tokenizer_is_end(lane->options.tokenizer, id);
}

/* Adds a shown token to its choice; false: no memory. */
static bool show(const rt_lane *lane, rt_slot *slot, rt_scored *token, const rt_top *top, bool *stopped)
{
    const rt_job_options *options = &slot->job->options;
    rt_choice *choice = slot->choice;
    const size_t n_top = options->top_logprobs > 0 ? (size_t)options->top_logprobs : 0;
    size_t size = 0;
    const char *bytes = "";
    if (!rt_tokenizer_is_special(lane->options.tokenizer, token->id))
        bytes = rt_tokenizer_token_bytes(lane->options.tokenizer, token->id, &size);
    *stopped = rt_choice_push(choice, options, bytes, size);
    if (choice->raw.failed || !grow_tokens(choice, n_top))
        return false;
    token->text_end = (uint32_t)choice->raw.size;
    choice->tokens[choice->n_tokens] = *token;
    memcpy(choice->top + choice->n_tokens * n_top, top, n_top * sizeof *top);
    choice->n_tokens++;
    rt_choice_release(choice, options, false);
    return !choice->text.failed;
}

static void take(rt_lane *lane, rt_slot *slot, rt_scored *token, const rt_top *top, rt_lane_sink *sink)
{
    rt_job *job = slot->job;
    const int32_t id = token->id;
    if (id < 0) { /* the grammar lets nothing come: what there is, is not whole */
        rt_slot_finish(lane, slot, RT_JOB_LENGTH, sink);
        return;
    }
    const bool ends = ends_choice(lane, &job->options, id);
    bool stopped = false, ok = true;
    slot->ids[slot->n++] = id;
    sink->generated_tokens++;
    (void)pthread_mutex_lock(&job->lock);
    if (job->first_token_s == 0)
        job->first_token_s = rt_clock_seconds();
    slot->choice->n_sampled++;
    if (!ends)
        ok = show(lane, slot, token, top, &stopped);
    if (!ok)
        (void)rt_error_set(&job->fault, RT_NO_MEMORY, "no memory for the answer");
    (void)pthread_mutex_unlock(&job->lock);
    if (!ok)
        rt_slot_finish(lane, slot, RT_JOB_ABORTED, sink);
    else if (ends || stopped)
        rt_slot_finish(lane, slot, RT_JOB_STOP, sink);
    else if (slot->n - slot->n_prompt >= job->options.tokens_max || slot->n >= lane->capacity)
        rt_slot_finish(lane, slot, RT_JOB_LENGTH, sink);
    else
        sink->grown(sink->context, job);
}

typedef struct draw_job {
    rt_lane *lane;
    const size_t *slots; /* [n] */
} draw_job;

static void draw_task(void *context, size_t index, unsigned thread)
{
    const draw_job *work = context;
    rt_lane *lane = work->lane;
    const rt_slot *slot = &lane->slots[work->slots[index]];
    rt_draw_token(&lane->drawers[thread], &slot->job->options, slot->choice,
                  lane->logits + index * lane->n_vocab, lane->n_vocab, slot->ids, slot->n_prompt,
                  slot->n - slot->n_prompt, &lane->drawn[index], lane->tops + index * RT_JOB_TOP_MAX);
}

/* Draws a token for each of n slots from rows 0 .. n-1 of the logits. */
static void draw_all(rt_lane *lane, const size_t *slots, size_t n, rt_lane_sink *sink)
{
    draw_job work = {lane, slots};
    rt_pool_run(lane->options.model->pool, n, draw_task, &work);
    for (size_t i = 0; i < n; i++)
        take(lane, &lane->slots[slots[i]], &lane->drawn[i], lane->tops + i * RT_JOB_TOP_MAX, sink);
}

/* ---- prefill ---- */

typedef struct score_job {
    rt_lane *lane;
    rt_job_prompt *prompt;
    size_t first; /* token that row 0 of the logits predicts */
    int n_top;
} score_job;

static void score_task(void *context, size_t index, unsigned thread)
{
    const score_job *work = context;
    const rt_lane *lane = work->lane;
    const float *logits = lane->logits + index * lane->n_vocab;
    const size_t at = work->first + index, n_top = (size_t)work->n_top;
    const double lse = rt_log_sum(logits, lane->n_vocab, lane->drawers[thread].scratch);
    if (at < work->prompt->n) {
        rt_scored *out = &work->prompt->scored[at];
        rt_score_id(logits, lane->n_vocab, lse, work->prompt->ids[at], out);
        out->n_top = (uint32_t)n_top;
    }
    rt_top_logprobs(logits, lane->n_vocab, lse, work->prompt->top + at * n_top, n_top);
}

/* Scores the tokens after those of a piece (rows [row, row + n) of the pass, tokens [begin, begin + n) of the
 * prompt), a few rows of logits at a time. */
static void score_piece(rt_lane *lane, const rt_slot *slot, size_t row, size_t begin, size_t n)
{
    rt_job_prompt *prompt = &slot->job->prompts[slot->prompt];
    const size_t end = prompt->n + slot->job->options.score_last;
    for (size_t at = 0, count; at < n && begin + at + 1 < end; at += count) {
        count = rt_size_min(rt_size_min(LANE_ROWS, n - at), end - (begin + at + 1));
        size_t rows[LANE_ROWS];
        for (size_t i = 0; i < count; i++)
            rows[i] = row + at + i;
        make_logits(lane, rows, count);
        score_job work = {lane, prompt, begin + at + 1, slot->job->options.prompt_top_logprobs};
        rt_pool_run(lane->options.model->pool, count, score_task, &work);
    }
}

/* The prompt's last logits stay for its other choices. */
static void keep_logits(rt_lane *lane, const rt_slot *slot, const float *logits)
{
    rt_job *job = slot->job;
    if (job->options.n < 2 || job->prompt_logits[slot->prompt])
        return;
    float *kept = malloc(lane->n_vocab * sizeof *kept);
    if (kept)
        memcpy(kept, logits, lane->n_vocab * sizeof *kept);
    job->prompt_logits[slot->prompt] = kept;
}

/* Prompts that are whole go on to decoding with their first token; rows[i] of the pass follow slots[i]'s. */
static void begin_answers(rt_lane *lane, const size_t *slots, const size_t *rows, size_t n,
                          rt_lane_sink *sink)
{
    size_t drawing[LANE_ROWS];
    for (size_t at = 0, count; at < n; at += count) {
        count = rt_size_min(LANE_ROWS, n - at);
        make_logits(lane, rows + at, count);
        for (size_t i = 0; i < count; i++) {
            rt_slot *slot = &lane->slots[slots[at + i]];
            keep_logits(lane, slot, lane->logits + i * lane->n_vocab);
            slot->state = RT_SLOT_DECODE;
            drawing[i] = slots[at + i];
        }
        draw_all(lane, drawing, count, sink);
    }
}

/* A choice whose prompt was computed for an earlier one: its first token comes from the logits kept. */
static bool begin_siblings(rt_lane *lane, rt_lane_sink *sink)
{
    size_t n = 0;
    for (size_t i = 0; i < lane->options.n_slots && n < LANE_ROWS; i++) {
        rt_slot *slot = &lane->slots[i];
        if (slot->state != RT_SLOT_PREFILL || slot->filled < slot->n_prompt)
            continue;
        memcpy(lane->logits + n * lane->n_vocab, slot->job->prompt_logits[slot->prompt],
               lane->n_vocab * sizeof *lane->logits);
        slot->state = RT_SLOT_DECODE;
        lane->turns[n++] = i;
    }
    if (n)
        draw_all(lane, lane->turns, n, sink);
    return n > 0;
}

static void fault_all(rt_lane *lane, const size_t *slots, size_t n, const rt_error *err, rt_lane_sink *sink)
{
    for (size_t i = 0; i < n; i++) {
        rt_slot *slot = &lane->slots[slots[i]];
        (void)pthread_mutex_lock(&slot->job->lock);
        slot->job->fault = *err;
        (void)pthread_mutex_unlock(&slot->job->lock);
        rt_slot_finish(lane, slot, RT_JOB_ABORTED, sink);
    }
}

/* Pieces of the prompts that wait, those that began first first, together at most tokens_max. */
static size_t cut_pieces(rt_lane *lane, size_t tokens_max)
{
    size_t n = 0;
    tokens_max = rt_size_min(tokens_max, rt_session_pass_max(lane->session));
    for (size_t i = 0; i < lane->options.n_slots; i++)
        if (lane->slots[i].state == RT_SLOT_PREFILL) {
            size_t at = n++;
            for (; at > 0 && lane->slots[lane->turns[at - 1]].last_used > lane->slots[i].last_used; at--)
                lane->turns[at] = lane->turns[at - 1];
            lane->turns[at] = i;
        }
    size_t total = 0, used = 0;
    for (; used < n && total < tokens_max; used++) {
        const rt_slot *slot = &lane->slots[lane->turns[used]];
        const size_t count = rt_size_min(slot->n_prompt - slot->filled, tokens_max - total);
        lane->pieces[used] = (rt_piece){lane->turns[used], slot->ids + slot->filled, count};
        total += count;
    }
    return used;
}

bool rt_lane_prefill(rt_lane *lane, size_t tokens_max, rt_lane_sink *sink)
{
    const bool siblings = begin_siblings(lane, sink);
    const size_t n = cut_pieces(lane, tokens_max);
    if (n == 0)
        return siblings;
    rt_error err = {0};
    if (rt_session_append(lane->session, lane->pieces, n, true, &err) != RT_OK) {
        fault_all(lane, lane->turns, n, &err, sink);
        return true;
    }
    size_t row = 0, n_whole = 0;
    size_t *rows = lane->whole_rows, *whole = lane->whole;
    for (size_t i = 0; i < n; i++) {
        rt_slot *slot = &lane->slots[lane->turns[i]];
        const size_t count = lane->pieces[i].n, begin = slot->filled;
        if (slot->job->options.prompt_top_logprobs >= 0 && slot->choice->index == 0)
            score_piece(lane, slot, row, begin, count);
        slot->filled += count;
        slot->clean = slot->filled;
        row += count;
        if (slot->filled < slot->n_prompt)
            continue;
        if (slot->job->options.tokens_max == 0) {
            rt_slot_finish(lane, slot, RT_JOB_LENGTH, sink);
            continue;
        }
        whole[n_whole] = lane->turns[i];
        rows[n_whole++] = row - 1;
    }
    begin_answers(lane, whole, rows, n_whole, sink);
    return true;
}

/* ---- decoding ---- */

/* The next tokens of n <= LANE_ROWS slots. */
static void decode_some(rt_lane *lane, const size_t *slots, size_t n, rt_lane_sink *sink)
{
    static const int32_t padding[LANE_ROWS] = {0};
    size_t rows[LANE_ROWS], pieces = n;
    for (size_t i = 0; i < n; i++) {
        const rt_slot *slot = &lane->slots[slots[i]];
        lane->pieces[i] = (rt_piece){slots[i], &slot->ids[slot->n - 1], 1};
        rows[i] = i;
    }
    if (n < lane->pad_rows) {
        const size_t spare = lane->options.n_slots;
        rt_session_truncate(lane->session, spare, 0);
        lane->pieces[pieces++] = (rt_piece){spare, padding, rt_size_min(lane->pad_rows - n, lane->capacity)};
    }
    rt_error err = {0};
    if (rt_session_append(lane->session, lane->pieces, pieces, false, &err) != RT_OK) {
        fault_all(lane, slots, n, &err, sink);
        return;
    }
    for (size_t i = 0; i < n; i++)
        lane->slots[slots[i]].filled++;
    make_logits(lane, rows, n);
    draw_all(lane, slots, n, sink);
}

bool rt_lane_decode(rt_lane *lane, rt_lane_sink *sink)
{
    size_t n = 0;
    for (size_t i = 0; i < lane->options.n_slots; i++)
        if (lane->slots[i].state == RT_SLOT_DECODE && !atomic_load(&lane->slots[i].job->paused))
            lane->turns[n++] = i;
    for (size_t at = 0; at < n; at += LANE_ROWS)
        decode_some(lane, lane->turns + at, rt_size_min(LANE_ROWS, n - at), sink);
    return n > 0;
}
