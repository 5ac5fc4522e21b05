/* teacher/remote_score.c - log-probabilities of given tokens from a server.
 *
 * Two ways, tried in this order and kept once found: prompt_logprobs (vLLM: a list, first null, then {"ID":
 * {"logprob", "rank", "decoded_token"}}), and echo scoring (completions with echo and logprobs, tokens spelt
 * as token_id:N by return_tokens_as_token_ids).  Whatever else a server sends back is checked: as many
 * positions as ids, the very ids that were sent, ids within the vocabulary, probabilities that sum to at
 * most 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "teacher/remote_internal.h"

enum { TOP_MAX = 4096 };

typedef enum score_way { WAY_PROMPT_LOGPROBS, WAY_ECHO, WAY_NONE } score_way;

typedef struct score_context {
    remote *self;
    const rt_score_options *options;
    const rt_score_calls *calls;
    score_way way;
    size_t top_k;
    rt_status ended; /* a row callback said stop */
    bool deliver;    /* an answer is read twice: checked as a whole, then handed on */
    uint32_t ids[TOP_MAX];
    float logq[TOP_MAX];
} score_context;

static rt_next score_next(void *context, remote_work *out)
{
    score_context *score = context;
    rt_score_ask ask = {0};
    const rt_next next = score->calls->next(score->calls->context, &ask);
    if (next != RT_NEXT_TAKE)
        return next;
    json_t *ids = json_array();
    for (size_t i = 0; i < ask.n; i++)
        (void)json_array_append_new(ids, json_integer(ask.ids[i]));
    *out =
        (remote_work){.tag = ask.tag, .body = json_pack("{s:o}", "prompt", ids), .prompt_bytes = 4 * ask.n};
    return RT_NEXT_TAKE;
}

static const char *score_path(void *context, const remote_work *work)
{
    (void)context;
    (void)work;
    return "completions";
}

static char *score_bytes(void *context, const remote_work *work, bool stream)
{
    const score_context *score = context;
    (void)stream;
    json_t *body = json_copy(work->body);
    const json_int_t top = (json_int_t)score->top_k;
    int bad = body == NULL;
    if (score->self->options.model[0])
        bad |= json_object_set_new(body, "model", json_string(score->self->options.model));
    bad |= json_object_set_new(body, "max_tokens", json_integer(1)); /* not every server takes 0 */
    bad |= json_object_set_new(body, "temperature", json_integer(0));
    if (score->way == WAY_PROMPT_LOGPROBS) {
        bad |= json_object_set_new(body, "prompt_logprobs", json_integer(top));
    } else {
        bad |= json_object_set_new(body, "echo", json_true());
        bad |= json_object_set_new(body, "logprobs", json_integer(top));
        bad |= json_object_set_new(body, "return_tokens_as_token_ids", json_true());
    }
    char *bytes = bad ? NULL : json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return bytes;
}

/* One position: sorted by probability, checked, with the tail. */
static rt_status give_row(score_context *score, const remote_work *work, size_t position, size_t n,
                          rt_error *err)
{
    const size_t n_vocab = score->self->options.n_vocab;
    for (size_t i = 1; i < n; i++) /* few, nearly sorted */
        for (size_t j = i; j > 0 && score->logq[j] > score->logq[j - 1]; j--) {
            const float q = score->logq[j];
            const uint32_t id = score->ids[j];
            score->logq[j] = score->logq[j - 1];
            score->ids[j] = score->ids[j - 1];
            score->logq[j - 1] = q;
            score->ids[j - 1] = id;
        }
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += exp((double)score->logq[i]);
        if (n_vocab && score->ids[i] >= n_vocab)
            return rt_error_set(err, RT_CORRUPT, "position %zu: the id %u is outside the vocabulary of %zu",
                                position, score->ids[i], n_vocab);
    }
    if (!(sum <= 1 + 1e-4))
        return rt_error_set(err, RT_CORRUPT, "position %zu: probabilities sum to %.6g", position, sum);
    if (!score->deliver)
        return RT_OK;
    const rt_score_row row = {.ids = score->ids,
                              .logq = score->logq,
                              .n = n,
                              .n_topk = (uint32_t)n,
                              .tail_logprob = sum >= 1 ? -INFINITY : (float)log1p(-sum)};
    if (score->calls->row && !score->calls->row(score->calls->context, work->tag, position, &row)) {
        score->ended = RT_STOPPED;
        return rt_error_set(err, RT_STOPPED, "stopped");
    }
    return RT_OK;
}

static bool read_id(uint32_t *out, const char *text)
{
    static const char mark[] = "token_id:";
    if (strncmp(text, mark, sizeof mark - 1) == 0)
        text += sizeof mark - 1;
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9')
        return false;
    const unsigned long long value = strtoull(text, &end, 10);
    *out = (uint32_t)value;
    return *end == '\0' && value <= INT32_MAX;
}

/* The ids and log-probabilities of one object; `value_key` is where the number is, NULL: the value itself. */
static rt_status read_object(score_context *score, json_t *object, const char *value_key, size_t position,
                             size_t *n, rt_error *err)
{
    const char *key;
    json_t *value;
    *n = 0;
    json_object_foreach(object, key, value)
    {
        const json_t *number = value_key ? json_object_get(value, value_key) : value;
        if (*n == TOP_MAX || !json_is_number(number) || !read_id(&score->ids[*n], key))
            return rt_error_set(err, RT_UNSUPPORTED,
                                "position %zu: '%.40s' is no token id with a log-probability", position, key);
        score->logq[(*n)++] = (float)json_number_value(number);
    }
    return *n ? RT_OK : rt_error_set(err, RT_CORRUPT, "position %zu has no log-probabilities", position);
}

static bool has_id(const score_context *score, size_t n, json_int_t id)
{
    for (size_t i = 0; i < n; i++)
        if ((json_int_t)score->ids[i] == id)
            return true;
    return false;
}

static rt_status read_prompt_logprobs(score_context *score, const remote_work *work, const json_t *list,
                                      rt_error *err)
{
    const json_t *ids = json_object_get(work->body, "prompt");
    const size_t count = json_array_size(ids);
    if (json_array_size(list) != count)
        return rt_error_set(err, RT_CORRUPT, "prompt_logprobs has %zu entries for %zu tokens",
                            json_array_size(list), count);
    for (size_t i = 1; i < count; i++) {
        size_t n = 0;
        if (read_object(score, json_array_get(list, i), "logprob", i, &n, err) != RT_OK)
            return err->status;
        if (!has_id(score, n, json_integer_value(json_array_get(ids, i))))
            return rt_error_set(err, RT_CORRUPT,
                                "position %zu: the server scored another text than was asked", i);
        if (give_row(score, work, i, n, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status read_echo(score_context *score, const remote_work *work, const json_t *logprobs,
                           rt_error *err)
{
    const json_t *ids = json_object_get(work->body, "prompt"), *tokens = json_object_get(logprobs, "tokens"),
                 *tops = json_object_get(logprobs, "top_logprobs");
    const size_t count = json_array_size(ids);
    if (json_array_size(tokens) < count || json_array_size(tops) != json_array_size(tokens))
        return rt_error_set(err, RT_UNSUPPORTED, "echo gave %zu tokens and %zu rows for %zu ids",
                            json_array_size(tokens), json_array_size(tops), count);
    for (size_t i = 0; i < count; i++) {
        const char *spelt = json_string_value(json_array_get(tokens, i));
        uint32_t id;
        size_t n = 0;
        if (!spelt || !read_id(&id, spelt) || strncmp(spelt, "token_id:", 9) != 0)
            return rt_error_set(err, RT_UNSUPPORTED, "the server does not spell tokens as ids");
        if ((json_int_t)id != json_integer_value(json_array_get(ids, i)))
            return rt_error_set(err, RT_CORRUPT,
                                "position %zu: the server scored another text than was asked", i);
        if (i == 0)
            continue;
        if (read_object(score, json_array_get(tops, i), NULL, i, &n, err) != RT_OK)
            return err->status;
        const json_t *own = json_array_get(json_object_get(logprobs, "token_logprobs"), i);
        if (n < TOP_MAX && json_is_number(own) &&
            !has_id(score, n, (json_int_t)id)) { /* not among the likeliest */
            score->ids[n] = id;
            score->logq[n++] = (float)json_number_value(own);
        }
        if (give_row(score, work, i, n, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status score_read(void *context, rt_answered *reply, const remote_work *work, bool streamed,
                            const char *data, size_t size, rt_error *err)
{
    score_context *score = context;
    if (streamed)
        return rt_error_set(err, RT_CORRUPT, "a stream came where none was asked for");
    json_t *json = rt_answer_json(data, size, err);
    if (!json)
        return err->status;
    const json_t *choice = json_array_get(json_object_get(json, "choices"), 0),
                 *list = json_object_get(choice, "prompt_logprobs");
    if (!json_is_array(list))
        list = json_object_get(json, "prompt_logprobs");
    rt_status status = RT_OK;
    if (!json_is_object(choice))
        status = rt_error_set(err, RT_CORRUPT, "the answer holds no choice");
    else if (score->way == WAY_PROMPT_LOGPROBS && !json_is_array(list))
        status = rt_error_set(err, RT_UNSUPPORTED, "the server ignored prompt_logprobs");
    for (int pass = 0; pass < 2 && status == RT_OK; pass++) {
        score->deliver = pass == 1;
        status = score->way == WAY_PROMPT_LOGPROBS
                     ? read_prompt_logprobs(score, work, list, err)
                     : read_echo(score, work, json_object_get(choice, "logprobs"), err);
    }
    json_decref(json);
    if (status == RT_UNSUPPORTED ||
        status == RT_STOPPED) { /* answered, if with nothing of use: not asked again */
        (void)snprintf(reply->error_text, sizeof reply->error_text, "%s", err->text);
        (void)snprintf(reply->error_code, sizeof reply->error_code, "unsupported");
        return RT_OK;
    }
    return status;
}

static bool score_refused(void *context, const remote_work *work, const rt_answered *reply)
{
    score_context *score = context;
    (void)work;
    if (reply->http_status != 400 && reply->http_status != 422)
        return false;
    if (score->top_k > 20 && strstr(reply->error_text, "logprobs")) {
        score->top_k = 20;
        rt_log(RT_LOG_WARNING, "%.100s gives at most 20 log-probabilities a token", score->self->base);
        return true;
    }
    return false;
}

static void score_done(void *context, const remote_work *work, const rt_answered *reply)
{
    score_context *score = context;
    rt_error err = {0};
    const bool unsupported = strcmp(reply->error_code, "unsupported") == 0;
    rt_status status = reply->status;
    if (status == RT_OK && unsupported)
        status = RT_UNSUPPORTED;
    if (status != RT_OK)
        (void)rt_error_set(&err, status, "%.100s: %.300s", score->self->base, reply->error_text);
    score->calls->end(score->calls->context, work->tag, status, &err);
}

/* One short sequence decides which way the server knows. */
typedef struct probe {
    const int32_t *ids;
    size_t n;
    bool asked;
    rt_status status;
    char text[300];
} probe;

static rt_next probe_next(void *context, rt_score_ask *out)
{
    probe *p = context;
    if (p->asked)
        return RT_NEXT_END;
    p->asked = true;
    *out = (rt_score_ask){.ids = p->ids, .n = p->n};
    return RT_NEXT_TAKE;
}

static void probe_end(void *context, uint64_t tag, rt_status status, const rt_error *err)
{
    probe *p = context;
    (void)tag;
    p->status = status;
    (void)snprintf(p->text, sizeof p->text, "%.299s", err->text);
}

static rt_status run(score_context *score, const rt_score_calls *calls, rt_error *err)
{
    score->calls = calls;
    const remote_job job = {.next = score_next,
                            .path = score_path,
                            .bytes = score_bytes,
                            .read = score_read,
                            .refused = score_refused,
                            .done = score_done,
                            .tick = calls->tick,
                            .tick_context = calls->context,
                            .context = score};
    return remote_run(score->self, &job, err);
}

rt_status remote_score(void *self, const rt_score_options *options, const rt_score_calls *calls,
                       rt_error *err)
{
    static const int32_t ids[] = {1, 2, 3};
    if (options->dense || options->n_draws)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "a server gives its likeliest tokens, no whole rows and no draws");
    score_context *score = calloc(1, sizeof *score);
    if (!score)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for scoring");
    *score = (score_context){.self = self, .options = options, .top_k = options->top_k ? options->top_k : 20};
    char said[300] = "";
    rt_status status = RT_OK;
    for (; score->way != WAY_NONE; score->way++) {
        probe p = {.ids = ids, .n = 3};
        const rt_score_calls probing = {.next = probe_next, .end = probe_end, .context = &p};
        status = run(score, &probing, err);
        if (status != RT_OK || p.status == RT_OK)
            break;
        memcpy(said, p.text, sizeof said);
    }
    if (status == RT_OK && score->way == WAY_NONE)
        status = rt_error_set(err, RT_UNSUPPORTED, "no log-probabilities of given tokens: %.299s", said);
    if (status == RT_OK)
        status = run(score, calls, err);
    if (status == RT_OK && score->ended != RT_OK)
        status = rt_error_set(err, score->ended, "stopped");
    free(score);
    return status;
}
