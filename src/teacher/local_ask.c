/* teacher/local_ask.c - answers of a local model, many side by side.
 *
 * A slot holds one answer under way.  Prompts of all newly filled slots go through the model in one pass,
 * then every answer grows by a token a pass; a finished one makes room for the next request.  With a streamed
 * model a pass is one walk over the file, so its slots are many.  Passes with prompts go by blocks and passes
 * without have no prompts in them: what an answer's bits depend on is its own text and seed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/size.h"
#include "model/sampler.h"
#include "model/session.h"
#include "teacher/local_internal.h"
#include "tensor/row.h"

enum { STOPS_MAX = 16, TOP_MAX = 20, ANSWER_TOKENS = 1024 };

typedef struct ask_slot {
    bool busy;
    uint64_t tag, stream;
    json_t *body;
    rt_token_list ids;                   /* prompt and answer */
    size_t n_prompt, n_done, tokens_max; /* n_done: of the prompt, in the cache */
    rt_sampling sampling;
    bool logprobs;
    size_t n_top;
    const char *stops[STOPS_MAX]; /* of body */
    size_t n_stops;
    rt_answered reply;
    size_t *text_sizes, sizes_capacity; /* [answer tokens] of the text before each */
    double begun;
    int32_t chosen; /* of the present pass */
    float chosen_logprob;
    struct {
        int32_t id;
        float logprob;
    } top[TOP_MAX];
    size_t n_found;
    double top_mass;
} ask_slot;

typedef struct asking {
    local_teacher *t;
    const rt_ask_calls *calls;
    rt_session *session;
    ask_slot *slots;
    size_t n_slots, n_busy;
    rt_sampler **samplers;  /* one a thread */
    float *logits;          /* [n_slots, n_vocab] */
    float *raw;             /* [threads, n_vocab] before penalties */
    size_t *rows, *sampled; /* [n_slots] row of the pass, slot, of each sampled token */
    size_t n_sampled;
    rt_piece *pieces;
    bool ended, stopped;
    rt_teacher_state state;
} asking;

/* ---- requests ---- */

static rt_status number_of(double *out, const json_t *body, const char *key, double low, double high,
                           rt_error *err)
{
    const json_t *value = json_object_get(body, key);
    if (!value || json_is_null(value))
        return RT_OK;
    const double x = json_is_number(value) ? json_number_value(value) : (double)NAN;
    if (!(x >= low && x <= high))
        return rt_error_set(err, RT_INVALID, "%s must be a number from %g to %g", key, low, high);
    *out = x;
    return RT_OK;
}

static rt_status read_stops(ask_slot *s, rt_error *err)
{
    const json_t *stop = json_object_get(s->body, "stop");
    s->n_stops = 0;
    if (!stop || json_is_null(stop))
        return RT_OK;
    const size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_is_array(stop) ? json_array_get(stop, i) : stop);
        if (!text || !*text || s->n_stops == STOPS_MAX)
            return rt_error_set(err, RT_INVALID, "stop must be a text or at most %d of them, none empty",
                                (int)STOPS_MAX);
        s->stops[s->n_stops++] = text;
    }
    return RT_OK;
}

static rt_status read_sampling(asking *a, ask_slot *s, rt_error *err)
{
    const json_t *b = s->body;
    double temperature = 1, top_p = 1, top_k = 0, min_p = 0, repetition = 1, frequency = 0, presence = 0,
           seed = -1;
    double n = 1, tokens = ANSWER_TOKENS, top = 0;
    if (number_of(&temperature, b, "temperature", 0, 100, err) != RT_OK ||
        number_of(&top_p, b, "top_p", 0, 1, err) != RT_OK ||
        number_of(&top_k, b, "top_k", -1, 1e9, err) != RT_OK ||
        number_of(&min_p, b, "min_p", 0, 1, err) != RT_OK ||
        number_of(&repetition, b, "repetition_penalty", 0.01, 100, err) != RT_OK ||
        number_of(&frequency, b, "frequency_penalty", -2, 2, err) != RT_OK ||
        number_of(&presence, b, "presence_penalty", -2, 2, err) != RT_OK ||
        number_of(&seed, b, "seed", 0, 9007199254740992.0, err) != RT_OK ||
        number_of(&n, b, "n", 1, 1, err) != RT_OK ||
        number_of(&tokens, b, "max_tokens", 0, 1e9, err) != RT_OK ||
        number_of(&tokens, b, "max_completion_tokens", 0, 1e9, err) != RT_OK ||
        number_of(&top, b, "top_logprobs", 0, TOP_MAX, err) != RT_OK || read_stops(s, err) != RT_OK)
        return err->status;
    const json_t *logprobs = json_object_get(b, "logprobs"); /* true (chat), or how many (completions) */
    s->logprobs = json_is_true(logprobs) || json_is_integer(logprobs);
    if (json_is_integer(logprobs) && number_of(&top, b, "logprobs", 0, TOP_MAX, err) != RT_OK)
        return err->status;
    s->n_top = s->logprobs ? (size_t)top : 0;
    s->tokens_max = (size_t)tokens;
    s->sampling = rt_sampling_default();
    s->sampling.temperature = temperature;
    s->sampling.top_p = top_p;
    s->sampling.top_k = top_k > 0 ? (size_t)top_k : 0;
    s->sampling.min_p = min_p;
    s->sampling.repetition_penalty = repetition;
    s->sampling.frequency_penalty = frequency;
    s->sampling.presence_penalty = presence;
    s->sampling.seed = seed >= 0 ? (uint64_t)seed : a->t->options.seed;
    s->stream = seed >= 0 ? 0 : s->tag + 1;
    return rt_sampling_check(&s->sampling, err);
}

static rt_status read_request(asking *a, ask_slot *s, rt_error *err)
{
    s->ids.count = 0;
    s->n_done = 0;
    if (!json_is_object(s->body))
        return rt_error_set(err, RT_INVALID, "the request is not an object");
    if (read_sampling(a, s, err) != RT_OK || local_prompt(a->t, s->body, &s->ids, err) != RT_OK)
        return err->status;
    s->n_prompt = s->ids.count;
    if (s->n_prompt == 0)
        return rt_error_set(err, RT_INVALID, "the prompt is empty");
    if (s->n_prompt >= rt_session_capacity(a->session))
        return rt_error_set(err, RT_INVALID,
                            "the prompt has %zu tokens and leaves no room in a context of %zu", s->n_prompt,
                            rt_session_capacity(a->session));
    return RT_OK;
}

/* Hands the reply over and frees the slot. */
static void deliver(asking *a, ask_slot *s)
{
    s->reply.ms = (rt_clock_seconds() - s->begun) * 1000;
    s->reply.attempts = 1;
    a->calls->done(a->calls->context, s->tag, &s->reply);
    if (s->busy) {
        rt_session_truncate(a->session, (size_t)(s - a->slots), 0);
        a->n_busy--;
    }
    s->busy = false;
    json_decref(s->body);
    s->body = NULL;
}

static void refuse(asking *a, ask_slot *s, const rt_error *why)
{
    s->reply.status = why->status == RT_NO_MEMORY ? RT_NO_MEMORY : RT_INVALID;
    (void)snprintf(s->reply.error_code, sizeof s->reply.error_code, "invalid_request");
    (void)snprintf(s->reply.error_text, sizeof s->reply.error_text, "%s", why->text);
    a->state.failures++;
    deliver(a, s);
}

/* Fills free slots.  LATER stands for "after the next reply": with nothing in flight none will come. */
static void fill_slots(asking *a)
{
    for (size_t i = 0; i < a->n_slots && !a->ended && !a->stopped; i++) {
        ask_slot *s = &a->slots[i];
        while (!s->busy && !a->ended) {
            rt_ask ask = {0};
            const rt_next next = a->calls->next(a->calls->context, &ask);
            if (next == RT_NEXT_LATER && a->n_busy > 0)
                return;
            if (next != RT_NEXT_TAKE) {
                a->ended = true;
                break;
            }
            rt_error why = {0};
            rt_answered_reset(&s->reply);
            s->tag = ask.tag;
            s->body = ask.body;
            s->begun = rt_clock_seconds();
            a->state.attempts++;
            if (read_request(a, s, &why) != RT_OK) {
                refuse(a, s, &why);
                continue;
            }
            s->busy = true;
            a->n_busy++;
        }
    }
}

/* ---- sampling ---- */

static void find_top(ask_slot *s, const float *logits, size_t n, double lse)
{
    s->n_found = 0;
    for (size_t id = 0; id < n && s->n_top; id++) {
        if (s->n_found == s->n_top && logits[id] <= s->top[s->n_found - 1].logprob)
            continue;
        size_t at = s->n_found < s->n_top ? s->n_found++ : s->n_found - 1;
        for (; at > 0 && s->top[at - 1].logprob < logits[id]; at--)
            s->top[at] = s->top[at - 1];
        s->top[at].id = (int32_t)id;
        s->top[at].logprob = logits[id]; /* a logit until the end */
    }
    s->top_mass = 0;
    for (size_t i = 0; i < s->n_found; i++) {
        const double logprob = (double)s->top[i].logprob - lse;
        s->top[i].logprob = (float)logprob;
        s->top_mass += exp(logprob);
    }
}

static void sample_task(void *context, size_t index, unsigned thread)
{
    asking *a = context;
    ask_slot *s = &a->slots[a->sampled[index]];
    const size_t vocab = a->t->model->config.n_vocab;
    float *logits = a->logits + index * vocab, *raw = a->raw + thread * vocab;
    double lse = 0;
    if (s->logprobs) { /* of the raw distribution: penalties change the row */
        memcpy(raw, logits, vocab * sizeof *raw);
        lse = rt_log_sum_exp(raw, vocab);
        find_top(s, raw, vocab, lse);
    }
    s->chosen = rt_sample(a->samplers[thread], &s->sampling, logits, s->ids.ids, s->ids.count, s->stream,
                          s->ids.count - s->n_prompt);
    if (s->logprobs)
        s->chosen_logprob = (float)((double)raw[s->chosen] - lse);
}

/* ---- replies ---- */

static void *grown(void *list, size_t *capacity, size_t needed, size_t size)
{
    if (needed <= *capacity)
        return list;
    const size_t wanted = rt_size_max(needed, *capacity * 2 + 64);
    void *out = realloc(list, wanted * size);
    if (out)
        *capacity = wanted;
    return out;
}

static rt_answered_alternative alternative_of(const asking *a, rt_answered *reply, int32_t id, float logprob)
{
    size_t size;
    const char *bytes = rt_tokenizer_token_bytes(a->t->tokenizer, id, &size);
    const rt_answered_alternative out = {(uint32_t)reply->pool.size, (uint32_t)size, id, logprob};
    rt_text_append(&reply->pool, bytes, size);
    return out;
}

static rt_status add_logprobs(const asking *a, ask_slot *s, rt_error *err)
{
    rt_answered *r = &s->reply;
    rt_answered_token *tokens = grown(r->tokens, &r->tokens_capacity, r->n_tokens + 1, sizeof *tokens);
    r->tokens = tokens ? tokens : r->tokens;
    rt_answered_alternative *list =
        grown(r->alternatives, &r->alternatives_capacity, r->n_alternatives + s->n_found + 1, sizeof *list);
    r->alternatives = list ? list : r->alternatives;
    if (!tokens || !list)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the log-probabilities of an answer");
    r->tokens[r->n_tokens++] =
        (rt_answered_token){.chosen = alternative_of(a, r, s->chosen, s->chosen_logprob),
                            .top = (uint32_t)r->n_alternatives,
                            .n_top = (uint32_t)s->n_found,
                            .tail = s->n_found ? (float)fmax(1 - s->top_mass, 0) : NAN};
    for (size_t i = 0; i < s->n_found; i++)
        r->alternatives[r->n_alternatives++] = alternative_of(a, r, s->top[i].id, s->top[i].logprob);
    return RT_OK;
}

static rt_status finish(asking *a, ask_slot *s, const char *why, rt_error *err)
{
    rt_answered *r = &s->reply;
    const size_t n = s->ids.count - s->n_prompt;
    (void)snprintf(r->finish, sizeof r->finish, "%s", why);
    (void)snprintf(r->model, sizeof r->model, "%.127s", a->t->name);
    (void)snprintf(r->fingerprint, sizeof r->fingerprint, "%.63s", a->t->fingerprint);
    r->ids = malloc((n + 1) * sizeof *r->ids);
    r->prompt_ids = malloc(s->n_prompt * sizeof *r->prompt_ids);
    if (!r->ids || !r->prompt_ids || r->text.failed || r->pool.failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an answer of %zu tokens", n);
    memcpy(r->ids, s->ids.ids + s->n_prompt, n * sizeof *r->ids);
    memcpy(r->prompt_ids, s->ids.ids, s->n_prompt * sizeof *r->prompt_ids);
    r->n_ids = n;
    r->n_prompt_ids = s->n_prompt;
    r->usage = (rt_usage){.prompt = s->n_prompt, .completion = n};
    deliver(a, s);
    return RT_OK;
}

/* Where the first stop text begins that ends in the last `fresh` bytes; SIZE_MAX: none. */
static size_t find_stop(const ask_slot *s, size_t fresh)
{
    size_t first = SIZE_MAX;
    const rt_text *text = &s->reply.text;
    for (size_t i = 0; i < s->n_stops && text->data; i++) {
        const size_t n = strlen(s->stops[i]), back = rt_size_min(text->size, fresh + n - 1);
        const char *from = text->data + text->size - back;
        const char *found = memmem(from, back, s->stops[i], n);
        if (found)
            first = rt_size_min(first, (size_t)(found - text->data));
    }
    return first;
}

/* The text ends at `at`; tokens that lie behind it go. */
static void cut_answer(ask_slot *s, size_t at)
{
    s->reply.text.size = at;
    s->reply.text.data[at] = '\0';
    size_t n = s->ids.count - s->n_prompt;
    while (n > 0 && s->text_sizes[n - 1] >= at)
        n--;
    s->ids.count = s->n_prompt + n;
    if (s->logprobs && s->reply.n_tokens > n) {
        s->reply.n_alternatives = s->reply.tokens[n].top;
        s->reply.n_tokens = n;
    }
}

static rt_status keep_id(ask_slot *s, rt_error *err)
{
    const size_t n = s->ids.count - s->n_prompt;
    int32_t *ids = grown(s->ids.ids, &s->ids.capacity, s->ids.count + 1, sizeof *ids);
    s->ids.ids = ids ? ids : s->ids.ids;
    size_t *sizes = grown(s->text_sizes, &s->sizes_capacity, n + 1, sizeof *sizes);
    s->text_sizes = sizes ? sizes : s->text_sizes;
    if (!ids || !sizes)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an answer of %zu tokens", n);
    s->text_sizes[n] = s->reply.text.size;
    s->ids.ids[s->ids.count++] = s->chosen;
    return RT_OK;
}

static rt_status take_token(asking *a, ask_slot *s, rt_error *err)
{
    if (s->tokens_max == 0)
        return finish(a, s, "length", err);
    if (rt_tokenizer_is_end(a->t->tokenizer, s->chosen))
        return finish(a, s, "stop", err);
    if (keep_id(s, err) != RT_OK || (s->logprobs && add_logprobs(a, s, err) != RT_OK))
        return err->status;
    size_t size = 0;
    const char *bytes = rt_tokenizer_is_special(a->t->tokenizer, s->chosen)
                            ? ""
                            : rt_tokenizer_token_bytes(a->t->tokenizer, s->chosen, &size);
    rt_text_append(&s->reply.text, bytes, size);
    const size_t stop = find_stop(s, size);
    if (stop != SIZE_MAX) {
        cut_answer(s, stop);
        return finish(a, s, "stop", err);
    }
    if (s->ids.count - s->n_prompt >= s->tokens_max || s->ids.count >= rt_session_capacity(a->session))
        return finish(a, s, "length", err);
    return RT_OK;
}

/* ---- passes ---- */

/* As much of the waiting prompts as one pass takes; those that are complete give a token. */
static size_t list_prompts(asking *a)
{
    size_t n = 0, total = 0;
    const size_t most = rt_session_pass_max(a->session);
    a->n_sampled = 0;
    for (size_t i = 0; i < a->n_slots && total < most; i++) {
        ask_slot *s = &a->slots[i];
        if (!s->busy || s->n_done == s->n_prompt)
            continue;
        const size_t count = rt_size_min(s->n_prompt - s->n_done, most - total);
        a->pieces[n++] = (rt_piece){i, s->ids.ids + s->n_done, count};
        s->n_done += count;
        total += count;
        if (s->n_done == s->n_prompt) {
            a->rows[a->n_sampled] = total - 1;
            a->sampled[a->n_sampled++] = i;
        }
    }
    return n;
}

static size_t list_answers(asking *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n_slots; i++) {
        ask_slot *s = &a->slots[i];
        if (!s->busy)
            continue;
        a->pieces[n] = (rt_piece){i, s->ids.ids + s->ids.count - 1, 1};
        a->rows[n] = n;
        a->sampled[n++] = i;
    }
    a->n_sampled = n;
    return n;
}

static rt_status run_pass(asking *a, rt_error *err)
{
    size_t n = list_prompts(a);
    const bool prompts = n > 0;
    if (!prompts)
        n = list_answers(a);
    if (n == 0)
        return RT_OK;
    if (rt_session_append(a->session, a->pieces, n, prompts, err) != RT_OK)
        return err->status;
    if (a->n_sampled == 0)
        return RT_OK;
    rt_session_logits(a->session, a->rows, a->n_sampled, a->logits);
    if (rt_stream_check(a->t->model, err) != RT_OK)
        return err->status;
    rt_pool_run(a->t->pool, a->n_sampled, sample_task, a);
    for (size_t i = 0; i < a->n_sampled; i++)
        if (take_token(a, &a->slots[a->sampled[i]], err) != RT_OK)
            return err->status;
    return RT_OK;
}

static rt_status run(asking *a, rt_error *err)
{
    for (;;) {
        a->state.in_flight = a->n_busy;
        if (a->calls->tick) {
            const rt_status status = a->calls->tick(a->calls->context, &a->state, err);
            if (status == RT_STOPPED)
                a->stopped = true;
            else if (status != RT_OK)
                return status;
        }
        fill_slots(a);
        if (a->n_busy == 0 && a->stopped)
            return rt_error_set(err, RT_STOPPED, "stopped; what was taken is answered");
        if (a->n_busy == 0 && a->ended)
            return RT_OK;
        if (run_pass(a, err) != RT_OK)
            return err->status;
    }
}

/* ---- life ---- */

static rt_status open_all(asking *a, rt_error *err)
{
    const local_teacher *t = a->t;
    const size_t threads = rt_pool_threads(t->pool), vocab = t->model->config.n_vocab, n = a->n_slots;
    size_t bytes;
    if (rt_session_open(&a->session, t->model, n, t->options.n_positions, err) != RT_OK)
        return err->status;
    a->slots = calloc(n, sizeof *a->slots);
    a->samplers = calloc(threads, sizeof(*a->samplers));
    a->logits = rt_size_mul(n * sizeof(float), vocab, &bytes) ? malloc(bytes) : NULL;
    a->raw = malloc(threads * vocab * sizeof *a->raw);
    a->rows = calloc(n, sizeof *a->rows);
    a->sampled = calloc(n, sizeof *a->sampled);
    a->pieces = calloc(n, sizeof *a->pieces);
    if (!a->slots || !a->samplers || !a->logits || !a->raw || !a->rows || !a->sampled || !a->pieces)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu answers side by side", n);
    for (size_t i = 0; i < threads; i++) {
        if (rt_sampler_open(&a->samplers[i], vocab, err) != RT_OK)
            return err->status;
        rt_sampler_limit(a->samplers[i], rt_tokenizer_real_size(t->tokenizer));
    }
    return RT_OK;
}

static void close_all(asking *a)
{
    for (size_t i = 0; a->slots && i < a->n_slots; i++) {
        rt_token_list_deinit(&a->slots[i].ids);
        rt_answered_deinit(&a->slots[i].reply);
        free(a->slots[i].text_sizes);
        json_decref(a->slots[i].body);
    }
    for (size_t i = 0; a->samplers && i < rt_pool_threads(a->t->pool); i++)
        rt_sampler_close(a->samplers[i]);
    free(a->slots);
    free(a->samplers);
    free(a->logits);
    free(a->raw);
    free(a->rows);
    free(a->sampled);
    free(a->pieces);
    rt_session_close(a->session);
}

rt_status local_ask(void *self, const rt_ask_calls *calls, rt_error *err)
{
    local_teacher *t = self;
    asking a = {.t = t,
                .calls = calls,
                .n_slots = t->options.n_slots,
                .state = {.limit = t->options.n_slots, .notice = ""}};
    rt_status status = open_all(&a, err);
    if (status == RT_OK)
        status = run(&a, err);
    close_all(&a);
    return status;
}
