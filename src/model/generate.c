/* model/generate.c - see generate.h. */
#include "model/generate.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/size.h"
#include "model/speculate.h"

/* Prompts of more than PREFIX_MIN tokens are read by blocks, so that their bits do not depend on how much of
 * them was copied; to copy less than COPY_MIN tokens is not worth it. */
enum { SLOTS_DEFAULT = 16, PREFIX_MIN = 32, COPY_MIN = 16 };

typedef struct slot { /* one answer under way */
    bool busy;
    size_t prompt;
    int32_t *ids; /* prompt and answer; [capacity of a slot] */
    size_t n_prompt, n;
} slot;

typedef struct generation {
    const rt_model *model;
    const rt_tokenizer *tokenizer;
    const rt_prompt *prompts;
    const rt_generate_options *options;
    rt_session *session;
    slot *slots;
    size_t n_slots, n_prompts, next;
    rt_sampler **samplers; /* one a thread */
    float *logits;         /* [n_slots, n_vocab] */
    size_t *active;        /* slots of the present batch */
    int32_t *chosen;       /* [n_slots] */
    size_t n_active;
    rt_generate_stats *stats;
    double begun;
} generation;

static void sample_task(void *context, size_t index, unsigned thread)
{
    generation *g = context;
    const slot *s = &g->slots[g->active[index]];
    g->chosen[index] =
        rt_sample(g->samplers[thread], &g->options->sampling, g->logits + index * g->model->config.n_vocab,
                  s->ids, s->n, g->prompts[s->prompt].stream, s->n - s->n_prompt);
}

static rt_status finish(generation *g, size_t index, rt_finish why, rt_error *err)
{
    slot *s = &g->slots[index];
    const rt_answer answer = {s->prompt, s->ids + s->n_prompt, s->n - s->n_prompt, why};
    s->busy = false; /* its prompt stays, for others that begin like it */
    if (g->options->answer && !g->options->answer(g->options->context, &answer))
        return rt_error_set(err, RT_STOPPED, "stopped after %zu prompts", g->next);
    return RT_OK;
}

/* Takes a sampled id into a slot; the answer may end with it. */
static rt_status take(generation *g, size_t index, int32_t id, rt_error *err)
{
    slot *s = &g->slots[index];
    const rt_prompt *prompt = &g->prompts[s->prompt];
    if (g->stats->answer_tokens++ == 0)
        g->stats->first_token_s = rt_clock_seconds() - g->begun;
    if (g->tokenizer && rt_tokenizer_is_end(g->tokenizer, id))
        return finish(g, index, RT_FINISH_STOP, err);
    s->ids[s->n++] = id;
    if (g->options->token && !g->options->token(g->options->context, s->prompt, id))
        return rt_error_set(err, RT_STOPPED, "stopped");
    if (s->n - s->n_prompt >= prompt->tokens_max || s->n >= rt_session_capacity(g->session))
        return finish(g, index, RT_FINISH_LENGTH, err);
    return RT_OK;
}

/* The slot whose prompt begins most like this one; *same tokens, not all of it: the last one's logits are
 * needed. */
static size_t most_alike(const generation *g, const rt_prompt *prompt, size_t *same)
{
    size_t best = 0;
    *same = 0;
    for (size_t i = 0; i < g->n_slots; i++) {
        const slot *s = &g->slots[i];
        size_t n = 0;
        if (s->n_prompt <= PREFIX_MIN) /* not read by blocks */
            continue;
        while (n < s->n_prompt && n + 1 < prompt->n && s->ids[n] == prompt->ids[n])
            n++;
        if (n > *same) {
            *same = n;
            best = i;
        }
    }
    return best;
}

/* Reads a prompt into a slot; what another slot has read already is copied.  Logits of its last token. */
static rt_status prefill(generation *g, size_t index, const rt_prompt *prompt, rt_error *err)
{
    size_t at = 0;
    if (prompt->n > PREFIX_MIN) {
        const size_t from = most_alike(g, prompt, &at);
        at = at < COPY_MIN ? 0 : at;
        if (at && from != index)
            rt_session_copy(g->session, index, from, at);
    }
    rt_session_truncate(g->session, index, at);
    g->stats->prompt_shared += at;
    if (prompt->n <= PREFIX_MIN)
        return rt_session_prefill(g->session, index, prompt->ids, prompt->n, g->logits, err);
    size_t count = 0;
    for (; at < prompt->n; at += count) {
        count = rt_size_min(prompt->n - at, rt_session_pass_max(g->session));
        const rt_piece piece = {index, prompt->ids + at, count};
        if (rt_session_append(g->session, &piece, 1, true, err) != RT_OK)
            return err->status;
    }
    count--;
    rt_session_logits(g->session, &count, 1, g->logits);
    return RT_OK;
}

/* Gives a free slot the next prompt: prefill, and its first token. */
static rt_status fill(generation *g, size_t index, rt_error *err)
{
    slot *s = &g->slots[index];
    while (!s->busy && g->next < g->n_prompts) {
        const rt_prompt *prompt = &g->prompts[g->next];
        if (prompt->n >= rt_session_capacity(g->session))
            return rt_error_set(err, RT_INVALID,
                                "prompt %zu has %zu tokens and leaves no room in a context of %zu",
                                g->next + 1, prompt->n, rt_session_capacity(g->session));
        const double from = rt_clock_seconds();
        if (prefill(g, index, prompt, err) != RT_OK)
            return err->status;
        s->busy = true;
        s->prompt = g->next++;
        s->n_prompt = s->n = prompt->n;
        for (size_t i = 0; i < prompt->n; i++)
            s->ids[i] = prompt->ids[i];
        g->stats->prefill_s += rt_clock_seconds() - from;
        g->stats->prompt_tokens += prompt->n;
        g->active[0] = index;
        sample_task(g, 0, 0);
        if (prompt->tokens_max == 0) {
            if (finish(g, index, RT_FINISH_LENGTH, err) != RT_OK)
                return err->status;
        } else if (take(g, index, g->chosen[0], err) != RT_OK) {
            return err->status;
        }
    }
    return RT_OK;
}

static rt_status decode_all(generation *g, rt_error *err)
{
    const double from = rt_clock_seconds();
    int32_t *last = g->chosen;
    for (size_t i = 0; i < g->n_active; i++) {
        const slot *s = &g->slots[g->active[i]];
        last[i] = s->ids[s->n - 1];
    }
    if (rt_session_decode(g->session, g->active, last, g->n_active, g->logits, err) != RT_OK)
        return err->status;
    rt_pool_run(g->model->pool, g->n_active, sample_task, g);
    g->stats->decode_s += rt_clock_seconds() - from;
    for (size_t i = 0; i < g->n_active; i++)
        if (take(g, g->active[i], g->chosen[i], err) != RT_OK)
            return err->status;
    return RT_OK;
}

static rt_status run(generation *g, rt_error *err)
{
    for (;;) {
        for (size_t i = 0; i < g->n_slots; i++)
            if (fill(g, i, err) != RT_OK)
                return err->status;
        g->n_active = 0;
        for (size_t i = 0; i < g->n_slots; i++)
            if (g->slots[i].busy)
                g->active[g->n_active++] = i;
        if (g->n_active == 0)
            return RT_OK;
        if (decode_all(g, err) != RT_OK)
            return err->status;
    }
}

static rt_status open_all(generation *g, rt_error *err)
{
    const rt_generate_options *options = g->options;
    if (rt_sampling_check(&options->sampling, err) != RT_OK ||
        rt_session_open(&g->session, g->model, g->n_slots, options->n_positions, err) != RT_OK)
        return err->status;
    const size_t threads = rt_pool_threads(g->model->pool), vocab = g->model->config.n_vocab;
    g->slots = calloc(g->n_slots, sizeof *g->slots);
    g->samplers = calloc(threads, sizeof *g->samplers);
    g->logits = malloc(g->n_slots * vocab * sizeof *g->logits);
    g->active = calloc(g->n_slots, sizeof *g->active);
    g->chosen = calloc(g->n_slots, sizeof *g->chosen);
    if (!g->slots || !g->samplers || !g->logits || !g->active || !g->chosen)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu answers side by side", g->n_slots);
    for (size_t i = 0; i < threads; i++) {
        if (rt_sampler_open(&g->samplers[i], vocab, err) != RT_OK)
            return err->status;
        if (g->tokenizer)
            rt_sampler_limit(g->samplers[i], rt_tokenizer_real_size(g->tokenizer));
    }
    for (size_t i = 0; i < g->n_slots; i++)
        if (!(g->slots[i].ids = malloc((rt_session_capacity(g->session) + 1) * sizeof(int32_t))))
            return rt_error_set(err, RT_NO_MEMORY, "no memory for an answer");
    return RT_OK;
}

static void close_all(generation *g)
{
    for (size_t i = 0; g->slots && i < g->n_slots; i++)
        free(g->slots[i].ids);
    for (size_t i = 0; g->samplers && i < rt_pool_threads(g->model->pool); i++)
        rt_sampler_close(g->samplers[i]);
    free(g->slots);
    free(g->samplers);
    free(g->logits);
    free(g->active);
    free(g->chosen);
    rt_session_close(g->session);
}

rt_status rt_generate(const rt_model *model, const rt_tokenizer *tokenizer, const rt_prompt *prompts,
                      size_t n_prompts, const rt_generate_options *options, rt_generate_stats *stats,
                      rt_error *err)
{
    *stats = (rt_generate_stats){0};
    if (n_prompts == 0)
        return RT_OK;
    if (options->draft || options->draft_lookup)
        return rt_speculate(model, tokenizer, prompts, n_prompts, options, stats, err);
    const size_t slots = options->n_slots ? options->n_slots : SLOTS_DEFAULT;
    generation g = {.model = model,
                    .tokenizer = tokenizer,
                    .prompts = prompts,
                    .options = options,
                    .n_slots = rt_size_min(slots, n_prompts),
                    .n_prompts = n_prompts,
                    .stats = stats,
                    .begun = rt_clock_seconds()};
    rt_status status = open_all(&g, err);
    if (status == RT_OK)
        status = run(&g, err);
    close_all(&g);
    return status;
}
