/* outputs/recorded.c - a store as teacher: what was said before is said again; see recorded.h. */
#include "outputs/recorded.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/size.h"
#include "outputs/keys.h"

typedef struct text_entry {
    unsigned char key[16]; /* of prompt or messages */
    size_t begin, size;    /* of the row in `lines` */
    size_t order;          /* in the store */
    size_t used;           /* of the first entry of a key: how many were given */
} text_entry;

typedef struct document_entry {
    uint64_t hash; /* of the ids */
    size_t index;
} document_entry;

typedef struct recorded {
    char *dir;
    rt_reader *reader;
    rt_text lines;
    text_entry *texts;
    size_t n_texts, texts_capacity;
    document_entry *documents;
    size_t n_documents;
    rt_store_document doc;
    char tokenizer_hash[65], template_hash[65];
    rt_teacher_info info;
} recorded;

/* ---- the index ---- */

/* What was asked: the prompt or the messages of a request's body; false: neither. */
static bool key_of_request(unsigned char key[16], const json_t *body)
{
    const json_t *asked = json_object_get(body, "messages");
    if (!asked)
        asked = json_object_get(body, "prompt");
    char *text = asked ? json_dumps(asked, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;
    if (!text)
        return false;
    char hex[65];
    rt_sha256_hex(hex, text, strlen(text));
    hex[32] = '\0';
    key_from_text(key, hex);
    free(text);
    return true;
}

static rt_status note_text(void *context, const json_t *row, rt_error *err)
{
    recorded *r = context;
    const json_t *request = json_object_get(row, "request"); /* collect's rows hold it whole */
    text_entry entry = {.order = r->n_texts, .begin = r->lines.size};
    if (!key_of_request(entry.key, request ? request : row))
        return RT_OK;
    char *line = json_dumps(row, JSON_COMPACT);
    if (line)
        rt_text_puts(&r->lines, line);
    free(line);
    if (!line || r->lines.failed)
        return rt_error_set(err, RT_NO_MEMORY, "%.200s: its text does not fit in memory (at most %zu MiB)",
                            r->dir, RT_RECORDED_TEXT_MAX >> 20);
    if (r->n_texts == r->texts_capacity) {
        const size_t wanted = r->texts_capacity * 2 + 256;
        text_entry *grown = realloc(r->texts, wanted * sizeof *grown);
        if (!grown)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for an index of %zu rows", wanted);
        r->texts = grown;
        r->texts_capacity = wanted;
    }
    entry.size = r->lines.size - entry.begin;
    r->texts[r->n_texts++] = entry;
    return RT_OK;
}

static int by_key(const void *a, const void *b)
{
    const text_entry *x = a, *y = b;
    const int order = memcmp(x->key, y->key, 16);
    return order ? order : (x->order > y->order) - (x->order < y->order);
}

static int by_hash(const void *a, const void *b)
{
    const document_entry *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static rt_status index_documents(recorded *r, rt_error *err)
{
    const size_t n = rt_reader_documents(r->reader);
    r->documents = calloc(rt_size_max(n, 1), sizeof *r->documents);
    if (!r->documents)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an index of %zu documents", n);
    for (size_t i = 0; i < n; i++) {
        if (rt_reader_tokens_only(r->reader, i, &r->doc, err) != RT_OK)
            return err->status;
        r->documents[r->n_documents++] =
            (document_entry){rt_hash64(r->doc.ids, r->doc.n_tokens * sizeof *r->doc.ids, 0), i};
    }
    if (n)
        qsort(r->documents, n, sizeof *r->documents, by_hash);
    return RT_OK;
}

/* ---- ask ---- */

static text_entry *find_texts(recorded *r, const unsigned char key[16], size_t *count)
{
    size_t low = 0, high = r->n_texts;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (memcmp(r->texts[middle].key, key, 16) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *count = 0;
    while (low + *count < r->n_texts && memcmp(r->texts[low + *count].key, key, 16) == 0)
        ++*count;
    return *count ? &r->texts[low] : NULL;
}

static void put_member(rt_text *out, const json_t *row, const char *name, const char *other)
{
    const json_t *value = json_object_get(row, name);
    if (!json_is_string(value) && other)
        value = json_object_get(row, other);
    if (json_is_string(value))
        rt_text_append(out, json_string_value(value), json_string_length(value));
}

static uint64_t count_of(const json_t *usage, const char *name)
{
    const json_int_t n = json_integer_value(json_object_get(usage, name));
    return n > 0 ? (uint64_t)n : 0;
}

static void refuse(rt_answered *reply, const char *code, const char *text)
{
    reply->status = RT_INVALID;
    (void)snprintf(reply->error_code, sizeof reply->error_code, "%s", code);
    (void)snprintf(reply->error_text, sizeof reply->error_text, "%s", text);
}

static void fill_reply(rt_answered *reply, const json_t *row)
{
    const json_t *usage = json_object_get(row, "usage"), *finish = json_object_get(row, "finish_reason"),
                 *model = json_object_get(row, "model");
    put_member(&reply->text, row, "text", "completion");
    put_member(&reply->reasoning, row, "reasoning", NULL);
    put_member(&reply->refusal, row, "refusal", NULL);
    reply->has_refusal = reply->refusal.size > 0;
    (void)snprintf(reply->finish, sizeof reply->finish, "%s",
                   json_is_string(finish) ? json_string_value(finish) : "stop");
    (void)snprintf(reply->model, sizeof reply->model, "%.100s",
                   json_is_string(model) ? json_string_value(model) : "");
    reply->usage = (rt_usage){.prompt = count_of(usage, "prompt_tokens"),
                              .completion = count_of(usage, "completion_tokens")};
    reply->attempts = 1;
}

static void answer(recorded *r, const json_t *body, rt_answered *reply)
{
    unsigned char key[16];
    size_t count;
    if (json_integer_value(json_object_get(body, "n")) > 1) {
        refuse(reply, "n", "n is more than 1: ask several times");
        return;
    }
    text_entry *first = key_of_request(key, body) ? find_texts(r, key, &count) : NULL;
    if (!first) {
        refuse(reply, "not_recorded", "the store has no answer to this prompt");
        return;
    }
    if (first->used == count) {
        refuse(reply, "not_recorded", "the store has no further answer to this prompt");
        return;
    }
    const text_entry *entry = &first[first->used++];
    rt_error err;
    json_t *row;
    if (rt_json_parse(&row, r->lines.data + entry->begin, entry->size, r->dir, &err) != RT_OK) {
        reply->status = err.status;
        (void)snprintf(reply->error_text, sizeof reply->error_text, "%s", err.text);
        return;
    }
    fill_reply(reply, row);
    json_decref(row);
}

/* Nothing is ever in flight: a caller that wants to wait has its reasons, so it is asked again in a while. */
static rt_status wait_a_little(rt_status (*tick)(void *, const rt_teacher_state *, rt_error *), void *context,
                               bool later, rt_error *err)
{
    const rt_teacher_state state = {.limit = 1, .notice = ""};
    if (tick && tick(context, &state, err) != RT_OK)
        return err->status;
    if (later)
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return RT_OK;
}

static rt_status ask(void *self, const rt_ask_calls *calls, rt_error *err)
{
    rt_answered reply;
    rt_answered_init(&reply);
    rt_status status = RT_OK;
    while (status == RT_OK) {
        rt_ask asked = {0};
        const rt_next next = calls->next(calls->context, &asked);
        if (next == RT_NEXT_END)
            break;
        if (next == RT_NEXT_TAKE) {
            rt_answered_reset(&reply);
            answer(self, asked.body, &reply);
            json_decref(asked.body);
            calls->done(calls->context, asked.tag, &reply);
        }
        status = wait_a_little(calls->tick, calls->context, next == RT_NEXT_LATER, err);
    }
    rt_answered_deinit(&reply);
    return status;
}

/* ---- score ---- */

/* The document with just these tokens into r->doc; RT_NOT_FOUND: there is none. */
static rt_status find_document(recorded *r, const rt_score_ask *asked, rt_error *err)
{
    const uint64_t hash = rt_hash64(asked->ids, asked->n * sizeof *asked->ids, 0);
    size_t low = 0, high = r->n_documents;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (r->documents[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < r->n_documents && r->documents[low].hash == hash; low++) {
        if (rt_reader_document(r->reader, r->documents[low].index, &r->doc, err) != RT_OK)
            return err->status;
        if (r->doc.n_tokens == asked->n && r->doc.rows.n_rows + 1 == asked->n &&
            memcmp(r->doc.ids, asked->ids, asked->n * sizeof *asked->ids) == 0)
            return RT_OK;
    }
    return rt_error_set(err, RT_NOT_FOUND, "%.200s: has no sequence of these %zu tokens with a row for each",
                        r->dir, asked->n);
}

static rt_status score_one(recorded *r, const rt_score_ask *asked, const rt_score_calls *calls, rt_error *err)
{
    rt_error why = {0};
    const rt_status found = find_document(r, asked, &why);
    for (size_t i = 0; found == RT_OK && i < r->doc.rows.n_rows; i++) {
        const rt_sparse_row row = rt_sparse_rows_at(&r->doc.rows, i);
        const rt_score_row out = {.ids = row.ids,
                                  .logq = row.logq,
                                  .counts = row.n_draws ? row.counts : NULL,
                                  .n = row.n,
                                  .n_draws = row.n_draws,
                                  .n_topk = row.n_topk,
                                  .tail_logprob = row.tail_logprob,
                                  .log_z = isfinite(row.log_z) ? row.log_z : 0};
        if (calls->row && !calls->row(calls->context, asked->tag, i + 1, &out))
            return rt_error_set(err, RT_STOPPED, "%.200s: scoring was stopped", r->dir);
    }
    calls->end(calls->context, asked->tag, found, &why);
    return RT_OK;
}

static rt_status score(void *self, const rt_score_options *options, const rt_score_calls *calls,
                       rt_error *err)
{
    recorded *r = self;
    const rt_rls_header *h = rt_reader_header(r->reader);
    if (!h || options->dense || (options->top_k && !h->topk) || (options->n_draws && !h->draws))
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "%.200s: was not recorded with what is asked for (%s); it has the top %u and %u draws", r->dir,
            options->dense ? "whole rows" : "top-k or draws", h ? (unsigned)h->topk : 0,
            h ? (unsigned)h->draws : 0);
    rt_status status = RT_OK;
    while (status == RT_OK) {
        rt_score_ask asked = {0};
        const rt_next next = calls->next(calls->context, &asked);
        if (next == RT_NEXT_END)
            break;
        if (next == RT_NEXT_TAKE)
            status = score_one(r, &asked, calls, err);
        if (status == RT_OK)
            status = wait_a_little(calls->tick, calls->context, next == RT_NEXT_LATER, err);
    }
    return status;
}

/* ---- the handle ---- */

static const rt_teacher_info *info(void *self) { return &((recorded *)self)->info; }

static void close_recorded(void *self)
{
    recorded *r = self;
    rt_reader_close(r->reader);
    rt_store_document_deinit(&r->doc);
    rt_text_deinit(&r->lines);
    free(r->texts);
    free(r->documents);
    free(r->dir);
    free(r);
}

static const char *fact(const json_t *teacher, const char *name)
{
    const char *text = json_string_value(json_object_get(teacher, name));
    return text ? text : "";
}

static void fill_info(recorded *r)
{
    const json_t *teacher = json_object_get(rt_reader_manifest(r->reader), "teacher");
    const rt_rls_header *h = rt_reader_header(r->reader);
    if (h) {
        key_to_hex(r->tokenizer_hash, h->tokenizer_hash);
        key_to_hex(r->tokenizer_hash + 32, h->tokenizer_hash + 16);
        key_to_hex(r->template_hash, h->template_hash);
        key_to_hex(r->template_hash + 32, h->template_hash + 16);
    }
    r->info =
        (rt_teacher_info){.kind = "recorded",
                          .name = fact(teacher, "name"),
                          .source = r->dir,
                          .n_vocab = h ? h->n_vocab : 0,
                          .tokenizer_hash = h ? r->tokenizer_hash : fact(teacher, "tokenizer_hash"),
                          .template_hash = h ? r->template_hash : fact(teacher, "template_hash"),
                          .end_token = h ? h->end_id : -1,
                          .licence = fact(teacher, "licence"),
                          .terms = fact(teacher, "terms"),
                          .forbids_training = json_is_true(json_object_get(teacher, "forbids_training")),
                          .fingerprint = fact(teacher, "hash")};
}

rt_status rt_recorded_open(rt_teacher **out, const char *dir, rt_error *err)
{
    static const rt_teacher_verbs verbs = {ask, score, info, close_recorded};
    *out = NULL;
    recorded *r = calloc(1, sizeof *r);
    if (!r || !(r->dir = strdup(dir))) {
        free(r);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a teacher");
    }
    r->lines.size_max = RT_RECORDED_TEXT_MAX;
    if (rt_reader_open(&r->reader, dir, err) != RT_OK ||
        rt_reader_texts(r->reader, note_text, r, err) != RT_OK || index_documents(r, err) != RT_OK) {
        close_recorded(r);
        return err->status;
    }
    if (r->n_texts)
        qsort(r->texts, r->n_texts, sizeof *r->texts, by_key);
    fill_info(r);
    return rt_teacher_open(out, &verbs, r, err);
}
