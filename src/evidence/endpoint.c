/* evidence/endpoint.c - see endpoint.h. */
#include "evidence/endpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/size.h"
#include "outputs/collect.h"
#include "outputs/idmap.h"
#include "teacher/remote.h"

enum { AGAIN = 8, SEQUENCES_MAX = 1 << 24, LISTED = 20, HASH = 32 };

typedef struct sequence {
    char hash[HASH + 1];
    int32_t *ids; /* wanted and not yet scored; else NULL */
    size_t n;
    rt_scored scored; /* begin NULL: not there */
} sequence;

struct rt_endpoint {
    rt_endpoint_options o; /* texts owned */
    rt_teacher *teacher;
    FILE *journal;
    sequence *list;
    size_t count, capacity;
    uint32_t *slots; /* index + 1 by hash; 0: free */
    size_t n_slots;
    bool dry;
    size_t rows, rejected, refusals, asked_again, same_again, n_scored;
    uint64_t score_tokens, answer_tokens, prompt_tokens;
    double answer_money;
    unsigned flags;
    json_t *models, *fingerprints; /* name: count */
    /* of a fetch */
    size_t next, taken;
    bool (*stop)(void);
    rt_error failed;
    rt_text line;
    size_t in_row;
};

static char *copy(const char *text) { return strdup(text ? text : ""); }

static void hash_of(char out[HASH + 1], const int32_t *ids, size_t n)
{
    char hex[65];
    rt_sha256_hex(hex, ids, n * sizeof *ids);
    memcpy(out, hex, HASH);
    out[HASH] = '\0';
}

static uint64_t slot_hash(const char *hash) { return rt_hash64(hash, HASH, 0); }

static size_t find(const rt_endpoint *e, const char *hash)
{
    size_t at = e->n_slots ? slot_hash(hash) & (e->n_slots - 1) : 0;
    while (e->n_slots && e->slots[at] && strcmp(e->list[e->slots[at] - 1].hash, hash) != 0)
        at = (at + 1) & (e->n_slots - 1);
    return at;
}

static rt_status add(rt_endpoint *e, const char *hash, sequence **out, rt_error *err)
{
    size_t at = find(e, hash);
    if (e->n_slots && e->slots[at]) {
        *out = &e->list[e->slots[at] - 1];
        return RT_OK;
    }
    if (e->count == e->capacity) {
        const size_t more = e->capacity ? 2 * e->capacity : 256;
        sequence *list = more <= SEQUENCES_MAX ? realloc(e->list, more * sizeof *list) : NULL;
        uint32_t *slots = list ? calloc(4 * more, sizeof *slots) : NULL;
        if (list)
            e->list = list;
        if (!slots)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for more than %zu sequences", e->count);
        free(e->slots);
        e->slots = slots;
        e->n_slots = 4 * more;
        e->capacity = more;
        for (size_t i = 0; i < e->count; i++)
            e->slots[find(e, e->list[i].hash)] = (uint32_t)i + 1;
        at = find(e, hash);
    }
    *out = &e->list[e->count];
    **out = (sequence){0};
    memcpy((*out)->hash, hash, HASH + 1);
    e->slots[at] = (uint32_t)++e->count;
    return RT_OK;
}

/* ---- the journal of scores ---- */

void rt_scored_free(rt_scored *s)
{
    free(s->own);
    free(s->begin);
    free(s->ids);
    free(s->ln_p);
    *s = (rt_scored){0};
}

/* A number that can be a log-probability: rounding may put it a little above 0. */
static bool is_ln_p(const json_t *number)
{
    return json_is_number(number) && json_number_value(number) <= 0.01 && json_number_value(number) >= -1e31;
}

rt_status rt_scored_parse(rt_scored *s, const json_t *row, const char *where, rt_error *err)
{
    const json_t *own = json_object_get(row, "own"), *ids = json_object_get(row, "ids"),
                 *lp = json_object_get(row, "lp");
    const size_t places = json_array_size(own);
    size_t listed = 0;
    if (places == 0 || json_array_size(ids) != places || json_array_size(lp) != places)
        return rt_error_set(err, RT_CORRUPT, "%.280s: is no line of scores", where);
    for (size_t i = 0; i < places; i++) {
        if (json_array_size(json_array_get(ids, i)) != json_array_size(json_array_get(lp, i)))
            return rt_error_set(err, RT_CORRUPT, "%.280s: place %zu has not as many numbers as ids", where,
                                i);
        listed += json_array_size(json_array_get(ids, i));
        bool fine = json_is_null(json_array_get(own, i)) || is_ln_p(json_array_get(own, i));
        for (size_t j = 0; j < json_array_size(json_array_get(lp, i)); j++)
            fine &= is_ln_p(json_array_get(json_array_get(lp, i), j));
        if (!fine)
            return rt_error_set(err, RT_CORRUPT,
                                "%.280s: place %zu has a log-probability that is not a number of at most 0",
                                where, i);
    }
    *s = (rt_scored){.n = places + 1,
                     .own = malloc((places + 1) * sizeof(float)),
                     .begin = calloc(places + 2, sizeof(uint32_t)),
                     .ids = malloc((listed + 1) * sizeof(int32_t)),
                     .ln_p = malloc((listed + 1) * sizeof(float))};
    if (!s->own || !s->begin || !s->ids || !s->ln_p) {
        rt_scored_free(s);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu places", places);
    }
    s->own[0] = NAN;
    uint32_t at = 0;
    for (size_t i = 0; i < places; i++) {
        const json_t *number = json_array_get(own, i), *row_ids = json_array_get(ids, i),
                     *row_lp = json_array_get(lp, i);
        s->own[i + 1] = json_is_number(number) ? (float)json_number_value(number) : NAN;
        s->begin[i + 1] = at;
        for (size_t j = 0; j < json_array_size(row_ids); j++, at++) {
            s->ids[at] = (int32_t)json_integer_value(json_array_get(row_ids, j));
            s->ln_p[at] = (float)json_number_value(json_array_get(row_lp, j));
        }
    }
    s->begin[places + 1] = at;
    return RT_OK;
}

static rt_status take_line(rt_endpoint *e, const json_t *row, const char *where, rt_error *err)
{
    const char *key = json_string_value(json_object_get(row, "key"));
    sequence *s = NULL;
    rt_scored scored;
    if (!key || strlen(key) != HASH)
        return rt_error_set(err, RT_CORRUPT, "%.280s: has no key", where);
    if (rt_scored_parse(&scored, row, where, err) != RT_OK)
        return err->status;
    if (add(e, key, &s, err) != RT_OK) {
        rt_scored_free(&scored);
        return err->status;
    }
    if (!s->scored.begin)
        e->n_scored++;
    rt_scored_free(&s->scored);
    s->scored = scored;
    e->score_tokens += scored.n + 1;
    return RT_OK;
}

static rt_status identity_matches(const rt_endpoint *e, const json_t *row, const char *path, rt_error *err)
{
    const char *url = json_string_value(json_object_get(row, "url")),
               *model = json_string_value(json_object_get(row, "model"));
    if (!url || !model || strcmp(url, e->o.url) != 0 || strcmp(model, e->o.model) != 0)
        return rt_error_set(
            err, RT_MISMATCH,
            "%.200s: holds what another address or model said (%.80s %.60s); give another --work "
            "folder",
            path, url ? url : "?", model ? model : "?");
    return RT_OK;
}

/* Whole lines are kept; what follows the last newline was torn by a kill, and is cut. */
static rt_status open_journal(rt_endpoint *e, rt_error *err)
{
    char path[4096];
    char *data = NULL;
    size_t size = 0, line = 0, good = 0;
    rt_status status = RT_OK;
    if (snprintf(path, sizeof path, "%s/scores.jsonl", e->o.folder) >= (int)sizeof path)
        return rt_error_set(err, RT_INVALID, "%.200s...: is too long a path", e->o.folder);
    if (rt_path_exists(path))
        status = rt_file_read(&data, &size, path, (size_t)8 << 30, err);
    for (size_t at = 0; status == RT_OK && at < size;) {
        const char *newline = memchr(data + at, '\n', size - at);
        if (!newline)
            break;
        const size_t length = (size_t)(newline - (data + at));
        char where[320];
        json_t *row = NULL;
        (void)snprintf(where, sizeof where, "%.280s:%zu", path, ++line);
        status = rt_json_parse(&row, data + at, length, where, err);
        if (status == RT_OK)
            status = line == 1 ? identity_matches(e, row, path, err) : take_line(e, row, where, err);
        json_decref(row);
        at += length + 1;
        good = at;
    }
    free(data);
    if (status != RT_OK)
        return status;
    e->journal = fopen(path, "ae");
    if (!e->journal || ftruncate(fileno(e->journal), (off_t)good) != 0)
        return rt_error_set(err, RT_IO, "%.300s: cannot be written", path);
    if (line == 0) {
        json_t *head = json_pack("{s:s,s:s}", "url", e->o.url, "model", e->o.model);
        char *text = head ? json_dumps(head, JSON_COMPACT) : NULL;
        if (!text || fprintf(e->journal, "%s\n", text) < 0 || fflush(e->journal) != 0)
            status = rt_error_set(err, RT_IO, "%.300s: cannot be written", path);
        free(text);
        json_decref(head);
    }
    return status;
}

/* ---- opening ---- */

rt_status rt_endpoint_open(rt_endpoint **out, const rt_endpoint_options *options, rt_error *err)
{
    *out = NULL;
    rt_endpoint *e = calloc(1, sizeof *e);
    if (!e)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an endpoint");
    e->o = *options;
    e->o.url = copy(options->url);
    e->o.model = copy(options->model);
    e->o.key = copy(options->key);
    e->o.folder = copy(options->folder);
    e->o.score_top = options->score_top ? options->score_top : LISTED;
    e->models = json_object();
    e->fingerprints = json_object();
    rt_status status = e->o.url && e->o.model && e->o.key && e->o.folder && e->models && e->fingerprints
                           ? RT_OK
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for an endpoint");
    if (status == RT_OK && !rt_path_is_dir(e->o.folder))
        status = rt_dir_make(e->o.folder, err);
    if (status == RT_OK)
        status = open_journal(e, err);
    const rt_remote_options remote = {.url = e->o.url,
                                      .model = e->o.model,
                                      .key = e->o.key,
                                      .top_logprobs = e->o.top_logprobs,
                                      .patience_s = e->o.patience_s,
                                      .attempts = e->o.attempts,
                                      .n_vocab = e->o.n_vocab,
                                      .concurrency_max = 32};
    if (status == RT_OK)
        status = rt_remote_open(&e->teacher, &remote, err);
    if (status == RT_OK)
        *out = e;
    else
        rt_endpoint_close(e);
    return status;
}

void rt_endpoint_close(rt_endpoint *e)
{
    if (!e)
        return;
    rt_teacher_close(e->teacher);
    if (e->journal)
        (void)fclose(e->journal);
    for (size_t i = 0; i < e->count; i++) {
        free(e->list[i].ids);
        rt_scored_free(&e->list[i].scored);
    }
    free(e->list);
    free(e->slots);
    free((char *)(uintptr_t)e->o.url);
    free((char *)(uintptr_t)e->o.model);
    free((char *)(uintptr_t)e->o.key);
    free((char *)(uintptr_t)e->o.folder);
    json_decref(e->models);
    json_decref(e->fingerprints);
    rt_text_deinit(&e->line);
    free(e);
}

bool rt_endpoint_dry(const rt_endpoint *e) { return e->dry; }
void rt_endpoint_set_dry(rt_endpoint *e, bool dry) { e->dry = dry; }

/* ---- scores ---- */

rt_status rt_endpoint_want(rt_endpoint *e, const int32_t *ids, size_t n, rt_error *err)
{
    char hash[HASH + 1];
    sequence *s = NULL;
    hash_of(hash, ids, n);
    if (add(e, hash, &s, err) != RT_OK)
        return err->status;
    if (s->scored.begin || s->ids)
        return RT_OK;
    s->ids = malloc(n * sizeof *ids);
    if (!s->ids)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu ids", n);
    memcpy(s->ids, ids, n * sizeof *ids);
    s->n = n;
    return RT_OK;
}

const rt_scored *rt_endpoint_scored(const rt_endpoint *e, const int32_t *ids, size_t n)
{
    char hash[HASH + 1];
    hash_of(hash, ids, n);
    const size_t at = find(e, hash);
    if (!e->n_slots || !e->slots[at] || !e->list[e->slots[at] - 1].scored.begin)
        return NULL;
    const rt_scored *s = &e->list[e->slots[at] - 1].scored;
    return s->n == n ? s : NULL;
}

static bool past_limit(const rt_endpoint *e, uint64_t more)
{
    const uint64_t tokens = e->score_tokens + e->answer_tokens + e->prompt_tokens + more;
    const double money = e->answer_money + rt_price_of(&e->o.price, e->score_tokens + more, 0, 1);
    return (e->o.spend_max.tokens && tokens > e->o.spend_max.tokens) ||
           (e->o.spend_max.money > 0 && money > e->o.spend_max.money);
}

rt_endpoint_cost rt_endpoint_cost_of(const rt_endpoint *e)
{
    rt_endpoint_cost cost = {.capped = e->o.spend_max.tokens > 0 || e->o.spend_max.money > 0};
    for (size_t i = 0; i < e->count; i++)
        if (e->list[i].ids) {
            cost.texts++;
            cost.tokens += e->list[i].n + 1;
        }
    cost.money = rt_price_of(&e->o.price, cost.tokens, 0, cost.texts);
    cost.past = past_limit(e, cost.tokens);
    return cost;
}

typedef struct pending { /* a sequence's lists so far */
    rt_text own, ids, lp;
} pending;

typedef struct fetch {
    rt_endpoint *e;
    pending *lines;    /* [count] */
    uint64_t reserved; /* tokens of what is in flight */
    rt_error error;
    bool limited;
} fetch;

static rt_next next_sequence(void *context, rt_score_ask *out)
{
    fetch *f = context;
    rt_endpoint *e = f->e;
    while (e->next < e->count && !e->list[e->next].ids)
        e->next++;
    if (e->next == e->count || f->error.status != RT_OK)
        return RT_NEXT_END;
    const sequence *s = &e->list[e->next];
    if (past_limit(e, f->reserved + s->n + 1)) {
        f->limited = true;
        return RT_NEXT_END;
    }
    f->reserved += s->n + 1;
    *out = (rt_score_ask){.tag = e->next, .ids = s->ids, .n = s->n};
    e->next++;
    return RT_NEXT_TAKE;
}

static bool take_row(void *context, uint64_t tag, size_t position, const rt_score_row *row)
{
    fetch *f = context;
    const sequence *s = &f->e->list[tag];
    pending *p = &f->lines[tag];
    const char *comma = position > 1 ? "," : "";
    double own = NAN;
    for (size_t i = 0; i < row->n; i++)
        if ((int32_t)row->ids[i] == s->ids[position])
            own = (double)row->logq[i];
    if (isfinite(own))
        rt_text_printf(&p->own, "%s%.7g", comma, own);
    else
        rt_text_printf(&p->own, "%snull", comma);
    rt_text_printf(&p->ids, "%s[", comma);
    rt_text_printf(&p->lp, "%s[", comma);
    for (size_t i = 0; i < row->n; i++) {
        rt_text_printf(&p->ids, i ? ",%u" : "%u", row->ids[i]);
        rt_text_printf(&p->lp, i ? ",%.7g" : "%.7g", (double)fmaxf(row->logq[i], -1e30F));
    }
    rt_text_puts(&p->ids, "]");
    rt_text_puts(&p->lp, "]");
    return true;
}

static void end_sequence(void *context, uint64_t tag, rt_status status, const rt_error *err)
{
    fetch *f = context;
    rt_endpoint *e = f->e;
    sequence *s = &e->list[tag];
    pending *p = &f->lines[tag];
    f->reserved -= s->n + 1;
    if (status != RT_OK) {
        if (f->error.status == RT_OK)
            f->error = *err;
    } else {
        rt_text *line = &e->line;
        rt_text_clear(line);
        rt_text_printf(line, "{\"key\":\"%s\",\"own\":[%s],\"ids\":[%s],\"lp\":[%s]}", s->hash,
                       p->own.data ? p->own.data : "", p->ids.data ? p->ids.data : "",
                       p->lp.data ? p->lp.data : "");
        json_t *row = NULL;
        rt_error bad = {0};
        if (line->failed || p->own.failed || p->ids.failed || p->lp.failed)
            (void)rt_error_set(&f->error, RT_NO_MEMORY, "no memory for the scores");
        else if (rt_json_parse(&row, line->data, line->size, "scores", &bad) != RT_OK ||
                 take_line(e, row, "scores", &bad) != RT_OK)
            f->error = bad;
        else if (fprintf(e->journal, "%s\n", line->data) < 0 || fflush(e->journal) != 0)
            (void)rt_error_set(&f->error, RT_IO, "%.200s/scores.jsonl: cannot be written", e->o.folder);
        json_decref(row);
        free(e->list[tag].ids);
        e->list[tag].ids = NULL;
    }
    rt_text_deinit(&p->own);
    rt_text_deinit(&p->ids);
    rt_text_deinit(&p->lp);
}

static rt_status tick(void *context, const rt_teacher_state *state, rt_error *err)
{
    const fetch *f = context;
    (void)state;
    return f->e->stop && f->e->stop() ? rt_error_set(err, RT_STOPPED, "stopped") : RT_OK;
}

rt_status rt_endpoint_fetch(rt_endpoint *e, bool (*stop)(void), rt_error *err)
{
    size_t wanted = 0;
    for (size_t i = 0; i < e->count; i++)
        wanted += e->list[i].ids != NULL;
    if (wanted == 0)
        return RT_OK;
    pending *lines = calloc(e->count, sizeof *lines);
    if (!lines)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu sequences", e->count);
    fetch f = {.e = e, .lines = lines};
    e->next = 0;
    e->stop = stop;
    const rt_score_options options = {.top_k = e->o.score_top};
    const rt_score_calls calls = {
        .next = next_sequence, .row = take_row, .end = end_sequence, .tick = tick, .context = &f};
    rt_status status = rt_teacher_score(e->teacher, &options, &calls, err);
    for (size_t i = 0; i < e->count; i++) {
        rt_text_deinit(&lines[i].own);
        rt_text_deinit(&lines[i].ids);
        rt_text_deinit(&lines[i].lp);
    }
    free(lines);
    if (status == RT_OK && f.error.status != RT_OK) {
        *err = f.error;
        status = err->status;
    }
    if (status == RT_OK && f.limited)
        status = rt_error_set(
            err, RT_STOPPED,
            "the spending limit is reached with %zu sequences scored; with a higher one the same "
            "command goes on",
            e->n_scored);
    return status;
}

/* ---- answers ---- */

typedef struct asking {
    rt_endpoint *e;
    bool (*stop)(void);
} asking;

static rt_status progress(void *context, const rt_collect_progress *p, rt_error *err)
{
    const asking *a = context;
    (void)p;
    return a->stop && a->stop() ? rt_error_set(err, RT_STOPPED, "stopped") : RT_OK;
}

static rt_status collect(rt_endpoint *e, const char *file, const char *prompts, size_t rows_max,
                         size_t samples, size_t answer_tokens, double temperature, bool (*stop)(void),
                         char **path, rt_error *err)
{
    rt_text name = {0};
    const char *input = prompts;
    asking a = {e, stop};
    rt_text_printf(&name, "%s/%s.jsonl", e->o.folder, file);
    json_t *params =
        json_pack("{s:f,s:I}", "temperature", temperature, "max_tokens", (json_int_t)answer_tokens);
    json_t *settings =
        json_pack("{s:s,s:s,s:I,s:f,s:I,s:I,s:I}", "url", e->o.url, "model", e->o.model, "samples",
                  (json_int_t)samples, "temperature", temperature, "max_tokens", (json_int_t)answer_tokens,
                  "rows_max", (json_int_t)rows_max, "top_logprobs", (json_int_t)e->o.top_logprobs);
    rt_collect_report report = {0};
    rt_status status = RT_OK;
    if (name.failed || !params || !settings) {
        status = rt_error_set(err, RT_NO_MEMORY, "no memory to ask");
    } else {
        rt_collect_options o = {.out = name.data,
                                .inputs = {.items = &input, .count = 1},
                                .params = params,
                                .settings = settings,
                                .samples = samples,
                                .rows_max = rows_max,
                                .ordered = true,
                                .price = e->o.price,
                                .spend_max = e->o.spend_max,
                                .progress = progress,
                                .context = &a};
        const uint64_t before = e->score_tokens + e->answer_tokens + e->prompt_tokens;
        const double money = e->answer_money + rt_price_of(&e->o.price, e->score_tokens, 0, 0);
        if (o.spend_max.tokens) /* of all that this folder holds */
            o.spend_max.tokens = before < o.spend_max.tokens ? o.spend_max.tokens - before : 1;
        if (o.spend_max.money > 0)
            o.spend_max.money = fmax(o.spend_max.money - money, 1e-9);
        status = rt_collect(e->teacher, &o, &report, err);
        e->answer_tokens += report.totals.usage.completion;
        e->prompt_tokens += report.totals.usage.prompt;
        e->answer_money += report.totals.money;
        e->rejected += report.totals.rejected;
        e->refusals += report.refusals;
        e->rows += report.totals.rows;
        e->flags |= report.flags;
    }
    json_decref(params);
    json_decref(settings);
    if (path && !name.failed)
        *path = name.data;
    else
        rt_text_deinit(&name);
    return status;
}

static rt_status count_rows(const char *path, json_t *texts, json_t *models, json_t *prints, rt_error *err)
{
    char *data = NULL;
    size_t size = 0;
    if (rt_file_read(&data, &size, path, (size_t)8 << 30, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    for (size_t at = 0; status == RT_OK && at < size;) {
        const char *newline = memchr(data + at, '\n', size - at);
        const size_t length = newline ? (size_t)(newline - (data + at)) : size - at;
        json_t *row = NULL;
        status = length ? rt_json_parse(&row, data + at, length, path, err) : RT_OK;
        static const char *const names[2] = {"model", "fingerprint"};
        json_t *counts[2] = {models, prints};
        for (size_t i = 0; i < 2 && row; i++) {
            const char *text = json_string_value(json_object_get(row, names[i]));
            if (counts[i] && text && text[0] && json_object_size(counts[i]) < 64)
                (void)json_object_set_new(
                    counts[i], text, json_integer(json_integer_value(json_object_get(counts[i], text)) + 1));
        }
        const char *id = json_string_value(json_object_get(row, "id"));
        if (texts && id)
            (void)json_object_set(texts, id, json_object_get(row, "response"));
        json_decref(row);
        at += length + 1;
    }
    free(data);
    return status;
}

/* The same questions at temperature 0, early and late: a server that is what it was says the same. */
static rt_status compare(rt_endpoint *e, const char *early, const char *late, rt_error *err)
{
    json_t *a = json_object(), *b = json_object();
    const char *id;
    json_t *text;
    rt_status status = count_rows(early, a, e->models, e->fingerprints, err);
    if (status == RT_OK)
        status = count_rows(late, b, e->models, e->fingerprints, err);
    e->asked_again = e->same_again = 0;
    json_object_foreach(a, id, text)
    {
        const json_t *other = json_object_get(b, id);
        e->asked_again += other != NULL;
        e->same_again += other && json_equal(text, other);
    }
    json_decref(a);
    json_decref(b);
    return status;
}

rt_status rt_endpoint_answers(rt_endpoint *e, const char *name, const char *prompts, size_t tokens,
                              size_t answer_tokens, double temperature, bool (*stop)(void), char **path,
                              rt_error *err)
{
    rt_collect_survey survey;
    char *early = NULL, *late = NULL;
    const bool again = strcmp(name, "answers") == 0;
    *path = NULL;
    const rt_collect_options look = {.inputs = {.items = &prompts, .count = 1}};
    rt_status status = rt_collect_survey_files(&survey, &look, err);
    if (status == RT_OK && survey.prompts == 0)
        status = rt_error_set(err, RT_INVALID, "%.300s: holds no question", prompts);
    if (status != RT_OK)
        return status;
    const size_t rows = rt_size_ceil_div(tokens, rt_size_max(answer_tokens, 1));
    const size_t samples = rt_size_max(rt_size_ceil_div(rows, survey.prompts), 1);
    const size_t most = rows < survey.prompts ? rt_size_max(rows, 1) : 0;
    const size_t again_tokens = rt_size_min(answer_tokens, 64);
    if (again)
        status = collect(e, "early", prompts, AGAIN, 1, again_tokens, 0, stop, &early, err);
    if (status == RT_OK)
        status = collect(e, name, prompts, most, samples, answer_tokens, temperature, stop, path, err);
    if (status == RT_OK && again)
        status = collect(e, "late", prompts, AGAIN, 1, again_tokens, 0, stop, &late, err);
    if (status == RT_OK)
        status = count_rows(*path, NULL, e->models, e->fingerprints, err);
    if (status == RT_OK && again)
        status = compare(e, early, late, err);
    free(early);
    free(late);
    if (status != RT_OK) {
        free(*path);
        *path = NULL;
    }
    return status;
}

json_t *rt_endpoint_json(const rt_endpoint *e)
{
    json_t *flags = json_array();
    unsigned cursor = 0;
    for (const char *text; (text = rt_answered_flag_text(e->flags, &cursor));)
        (void)json_array_append_new(flags, json_string(text));
    return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:f,s:{s:I,s:I},s:O,s:O,s:o}", "url", e->o.url, "model",
                     e->o.model, "rows", (json_int_t)e->rows, "rejected", (json_int_t)e->rejected, "refusals",
                     (json_int_t)e->refusals, "scored", (json_int_t)e->n_scored, "tokens",
                     (json_int_t)(e->score_tokens + e->answer_tokens + e->prompt_tokens), "money",
                     e->answer_money + rt_price_of(&e->o.price, e->score_tokens, 0, 0), "again", "asked",
                     (json_int_t)e->asked_again, "same", (json_int_t)e->same_again, "models", e->models,
                     "fingerprints", e->fingerprints, "flags", flags);
}
