/* serve/canaries.c - see canaries.h. */
#include "serve/canaries.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "serve/sealed.h"

enum { CANARIES_MAX = 10000, VARIANTS_MIN = 10, VARIANTS_MAX = 1000, TEXT_MAX = 2000, VARIANT_MAX = 100 };

struct rt_canaries {
    int coins, rows; /* files that are appended to */
    json_t *list;
    const char *const *suspects;
    size_t n_suspects;
    double share;
};

struct rt_canary { /* of one call, from the coin to its answer's end */
    const json_t *what;
    json_t *row;
};

/* ---- what the operator wrote ---- */

static bool word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c & 0x80);
}

/* Whether the words stand in the text, whatever their case (of ASCII). */
static bool holds(const char *text, const char *words)
{
    const size_t n = strlen(words);
    for (const char *at = text; *at; at++)
        if (strncasecmp(at, words, n) == 0 && (at == text || !word_byte(at[-1]) || !word_byte(words[0])) &&
            (!word_byte(at[n]) || !word_byte(words[n - 1])))
            return true;
    return false;
}

static rt_status check_variants(const json_t *variants, const char *where, size_t number, rt_error *err)
{
    size_t i;
    const json_t *v;
    if (json_array_size(variants) < VARIANTS_MIN || json_array_size(variants) > VARIANTS_MAX)
        return rt_error_set(err, RT_INVALID, "%.200s: canary %zu has %zu variants, and it takes %d to %d",
                            where, number, json_array_size(variants), VARIANTS_MIN, VARIANTS_MAX);
    json_array_foreach(variants, i, v)
    {
        const char *text = json_string_value(v);
        if (!text || !*text || json_string_length(v) > VARIANT_MAX)
            return rt_error_set(err, RT_INVALID,
                                "%.200s: canary %zu: variant %zu is no text of 1 to %d bytes", where, number,
                                i, VARIANT_MAX);
        for (size_t j = 0; j < i; j++)
            if (json_equal(v, json_array_get(variants, j)))
                return rt_error_set(err, RT_INVALID, "%.200s: canary %zu: variants %zu and %zu are the same",
                                    where, number, j, i);
    }
    return RT_OK;
}

static rt_status check(const json_t *list, const char *where, rt_error *err)
{
    size_t i;
    const json_t *row;
    if (json_array_size(list) < 1 || json_array_size(list) > CANARIES_MAX)
        return rt_error_set(err, RT_INVALID, "%.200s: holds %zu canaries, and it takes 1 to %d", where,
                            json_array_size(list), CANARIES_MAX);
    json_array_foreach(list, i, row)
    {
        const char *text = json_string_value(json_object_get(row, "text")),
                   *hole = text ? strstr(text, "{}") : NULL;
        const json_t *when = json_object_get(row, "when");
        if (!json_is_string(json_object_get(row, "id")))
            return rt_error_set(err, RT_INVALID, "%.200s: canary %zu has no text 'id'", where, i + 1);
        if (!hole || strstr(hole + 2, "{}") || strlen(text) > TEXT_MAX)
            return rt_error_set(
                err, RT_INVALID,
                "%.200s: canary %zu: 'text' is a text of at most %d bytes that holds {} once, "
                "where the variant goes",
                where, i + 1, TEXT_MAX);
        if (when && json_string_length(when) == 0)
            return rt_error_set(err, RT_INVALID, "%.200s: canary %zu: 'when' is no text", where, i + 1);
        if (check_variants(json_object_get(row, "variants"), where, i + 1, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status rt_canaries_open(rt_canaries **out, const char *folder, json_t *list, const char *where,
                           const char *const *suspects, size_t n, double share, rt_error *err)
{
    *out = NULL;
    if (!(share >= 0 && share <= 0.2))
        return rt_error_set(err, RT_INVALID, "the share of canaries is in 0..0.2, not %g", share);
    if (check(list, where, err) != RT_OK)
        return err->status;
    rt_canaries *c = malloc(sizeof *c);
    if (!c)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for canaries");
    *c = (rt_canaries){.coins = -1,
                       .rows = -1,
                       .list = json_incref(list),
                       .suspects = suspects,
                       .n_suspects = n,
                       .share = share};
    if (rt_sealed_open(&c->coins, folder, "coins.jsonl", err) != RT_OK ||
        rt_sealed_open(&c->rows, folder, "canaries.jsonl", err) != RT_OK) {
        rt_canaries_close(c);
        return err->status;
    }
    *out = c;
    return RT_OK;
}

void rt_canaries_close(rt_canaries *c)
{
    if (!c)
        return;
    if (c->coins >= 0)
        (void)close(c->coins);
    if (c->rows >= 0)
        (void)close(c->rows);
    json_decref(c->list);
    free(c);
}

/* ---- before the answer ---- */

static double share_of(const rt_call *call)
{
    const rt_canaries *c = call->serve->options.canaries;
    rt_watch *watch = call->serve->options.watch;
    for (size_t i = 0; i < c->n_suspects; i++)
        if (strcmp(c->suspects[i], call->caller->account) == 0)
            return c->share;
    return watch ? rt_watch_rules_of(watch, call->caller->account).canaries_share : 0;
}

static bool plain(const rt_call *call)
{
    const rt_request *q = &call->request;
    return !q->has_logprobs && !q->has_prompt_logprobs && !q->return_token_ids && !q->tokens_as_ids &&
           !q->echo && !call->job->options.grammar && call->job->options.n_stops == 0 &&
           call->job->options.top_logprobs < 0 && !rt_member(call->body, "tools");
}

static const char *when_of(const json_t *canary)
{
    return json_string_value(json_object_get(canary, "when"));
}

/* One of those that fit the prompt; NULL: none does. */
static const json_t *draw(const json_t *list, const char *prompt)
{
    const json_t *row, *chosen = NULL;
    size_t i;
    uint32_t fitting = 0;
    json_array_foreach(list, i, row) if ((!when_of(row) || holds(prompt, when_of(row))) &&
                                         randombytes_uniform(++fitting) == 0) chosen = row;
    return chosen;
}

void rt_call_canary(rt_call *call)
{
    const rt_canaries *c = call->serve->options.canaries;
    if (!c || !rt_sealed_suits(call) || !plain(call) || !rt_sealed_coin(share_of(call)))
        return;
    const json_t *what = draw(c->list, rt_sealed_prompt(call));
    if (!what)
        return;
    const size_t variants = json_array_size(json_object_get(what, "variants"));
    const uint32_t served = randombytes_uniform((uint32_t)variants);
    rt_canary *canary = malloc(sizeof *canary);
    json_t *row =
        canary ? json_pack("{s:s,s:s,s:s,s:f,s:O,s:i,s:i}", "request", rt_http_request_of(call->x)->id,
                           "account", call->caller->account, "model", call->model->id, "at", rt_clock_unix(),
                           "canary", json_object_get(what, "id"), "served", (int)served, "of", (int)variants)
               : NULL;
    if (!row || !rt_sealed_append(c->coins, row)) { /* nothing on record, nothing served */
        json_decref(row);
        free(canary);
        return;
    }
    *canary = (rt_canary){.what = what, .row = row};
    call->canary = canary;
}

/* ---- after it ---- */

/* The place where an answer's thoughts end; NULL: they do not. */
static const char *spoken(const rt_call *call, const char *text)
{
    const char *shut = strstr(text, "</think>");
    if (shut)
        return strstr(shut + 1, "<think>") ? NULL : shut + strlen("</think>");
    return call->request.thinking || strstr(text, "<think>") ? NULL : text;
}

/* Whether the sentence still fits under the limit that the client or its account set. */
static bool has_room(const rt_call *call, const rt_text *sentence)
{
    rt_token_list ids = {0};
    rt_error err = {0};
    const bool ok = rt_tokenizer_encode(call->model->tokenizer, sentence->data, sentence->size, false, &ids,
                                        &err) == RT_OK &&
                    ids.count <= call->job->options.tokens_max &&
                    call->job->choices[0].n_sampled <= call->job->options.tokens_max - ids.count;
    rt_token_list_deinit(&ids);
    return ok;
}

/* Puts the sentence at the end of the answer and fills in the row; false: the answer stays as it was. */
static bool add(rt_call *call, rt_canary *canary)
{
    rt_choice *choice = &call->job->choices[0];
    const char *text = json_string_value(json_object_get(canary->what, "text")), *hole = strstr(text, "{}");
    const json_t *variants = json_object_get(canary->what, "variants");
    const char *variant = json_string_value(
        json_array_get(variants, (size_t)json_integer_value(json_object_get(canary->row, "served"))));
    rt_text sentence = {0}, before = {0};
    bool added = false;
    if (choice->finish == RT_JOB_STOP && !call->job->timed_out && choice->text.size && !choice->text.failed) {
        rt_text_append(&choice->text, "", 1); /* a NUL that is taken back: strstr needs it */
        choice->text.size--;
        const char *said = choice->text.failed ? NULL : spoken(call, choice->text.data);
        rt_text_printf(&sentence, "\n\n%.*s%s%s", (int)(hole - text), text, variant, hole + 2);
        if (said && !sentence.failed && has_room(call, &sentence)) {
            rt_text_printf(&before, "%s\n\n%.*s", said + strspn(said, "\n"), (int)(hole - text), text);
            added = !before.failed &&
                    json_object_set_new(canary->row, "before", rt_json_text(before.data, before.size)) == 0 &&
                    json_object_set_new(canary->row, "after", json_string(hole + 2)) == 0 &&
                    json_object_set(canary->row, "variants", (json_t *)(uintptr_t)variants) == 0 &&
                    json_object_set_new(canary->row, "prompt", json_string(rt_sealed_prompt(call))) == 0;
        }
        if (added)
            rt_text_append(&choice->text, sentence.data, sentence.size);
    }
    rt_text_deinit(&sentence);
    rt_text_deinit(&before);
    return added;
}

bool rt_canary_waits(rt_call *call)
{
    if (!call->canary)
        return false;
    rt_job *job = call->job;
    (void)pthread_mutex_lock(&job->lock);
    const bool waits = job->choices[0].finish != RT_JOB_RUNNING;
    (void)pthread_mutex_unlock(&job->lock);
    return waits;
}

void rt_canary_end(rt_call *call)
{
    rt_canary *canary = call->canary;
    if (!canary)
        return;
    call->canary = NULL;
    rt_job *job = call->job;
    (void)pthread_mutex_lock(&job->lock);
    const bool added = !rt_http_is_gone(call->x) && !call->revoked && add(call, canary);
    (void)pthread_mutex_unlock(&job->lock);
    if (added)
        (void)rt_sealed_append(call->serve->options.canaries->rows, canary->row);
    json_decref(canary->row);
    free(canary);
}

void rt_canary_abandon(rt_call *call)
{
    if (!call->canary)
        return;
    json_decref(call->canary->row);
    free(call->canary);
    call->canary = NULL;
}
