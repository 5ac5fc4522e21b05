/* student/kept_text.c - text rows of a store as training text, with an API's log-probabilities where asked.
 *
 * An API names tokens by their bytes.  Where a token of its answer and a token of the student's own
 * tokenisation begin and end at the same bytes, its alternatives become ids of the student by their bytes;
 * those that are no token of the student are left to the tail. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "student/kept_source_internal.h"

enum { PIECE_MAX = 512 }; /* bytes of a token */

/* ---- ids by bytes ---- */

typedef struct byte_index {
    const rt_tokenizer *tokenizer;
    uint32_t *order; /* ids, ascending by bytes, then by id */
    size_t n;
} byte_index;

static int compare_bytes(const char *a, size_t n, const char *b, size_t m)
{
    const int c = memcmp(a, b, rt_size_min(n, m));
    return c ? c : n < m ? -1 : n > m;
}

static int by_bytes(const void *x, const void *y, void *context)
{
    const uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    size_t n, m;
    const char *p = rt_tokenizer_token_bytes(context, (int32_t)a, &n);
    const char *q = rt_tokenizer_token_bytes(context, (int32_t)b, &m);
    const int c = compare_bytes(p, n, q, m);
    return c ? c : a < b ? -1 : a > b;
}

static rt_status index_make(byte_index *out, const rt_tokenizer *tokenizer, size_t n_vocab, rt_error *err)
{
    *out = (byte_index){.tokenizer = tokenizer, .n = rt_size_min(rt_tokenizer_size(tokenizer), n_vocab)};
    out->order = malloc(rt_size_max(out->n, 1) * sizeof *out->order);
    if (!out->order)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an index of %zu tokens", out->n);
    for (size_t i = 0; i < out->n; i++)
        out->order[i] = (uint32_t)i;
    qsort_r(out->order, out->n, sizeof *out->order, by_bytes, (void *)(size_t)tokenizer);
    return RT_OK;
}

static bool index_find(const byte_index *index, const char *bytes, size_t size, uint32_t *id)
{
    size_t lo = 0, hi = index->n, m;
    while (lo < hi) {
        const size_t middle = lo + (hi - lo) / 2;
        const char *q = rt_tokenizer_token_bytes(index->tokenizer, (int32_t)index->order[middle], &m);
        if (compare_bytes(q, m, bytes, size) < 0)
            lo = middle + 1;
        else
            hi = middle;
    }
    if (lo == index->n)
        return false;
    *id = index->order[lo];
    const char *q = rt_tokenizer_token_bytes(index->tokenizer, (int32_t)*id, &m);
    return size > 0 && compare_bytes(q, m, bytes, size) == 0 &&
           !rt_tokenizer_is_special(index->tokenizer, (int32_t)*id);
}

/* ---- an answer's log-probabilities ---- */

static bool piece_of(const json_t *entry, char out[PIECE_MAX], size_t *size)
{
    const json_t *bytes = json_object_get(entry, "bytes"), *token = json_object_get(entry, "token");
    *size = 0;
    if (json_is_array(bytes)) {
        *size = json_array_size(bytes);
        for (size_t i = 0; i < *size && *size <= PIECE_MAX; i++)
            out[i] = (char)json_integer_value(json_array_get(bytes, i));
        return *size <= PIECE_MAX;
    }
    if (!json_is_string(token) || json_string_length(token) > PIECE_MAX)
        return false;
    *size = json_string_length(token);
    memcpy(out, json_string_value(token), *size);
    return true;
}

static const json_t *entries_of(const json_t *row)
{
    const json_t *logprobs = json_object_get(row, "logprobs");
    return json_is_object(logprobs) ? json_object_get(logprobs, "content") : logprobs;
}

typedef struct candidates { /* a row under way */
    uint32_t ids[RT_KEPT_MAX];
    float logq[RT_KEPT_MAX];
    uint16_t counts[RT_KEPT_MAX];
    uint32_t n;
    double mass;
} candidates;

static void add_candidate(candidates *c, rt_kept_source *s, const byte_index *index, const json_t *entry)
{
    char piece[PIECE_MAX];
    size_t size;
    uint32_t id;
    const json_t *value = json_object_get(entry, "logprob");
    const double logq = json_is_number(value) ? json_number_value(value) : (double)NAN;
    if (!(logq <= 1e-4) || !isfinite(logq) || c->n == RT_KEPT_MAX)
        return;
    s->counts.candidates++;
    if (!piece_of(entry, piece, &size) || !index_find(index, piece, size, &id)) {
        s->counts.unmapped++;
        return;
    }
    for (uint32_t i = 0; i < c->n; i++)
        if (c->ids[i] == id)
            return;
    c->ids[c->n] = id;
    c->logq[c->n] = (float)(logq < 0 ? logq : 0);
    c->counts[c->n++] = 0;
    c->mass += exp(logq < 0 ? logq : 0);
}

static rt_status add_taught_row(rt_kept_source *s, candidates *c, const byte_index *index,
                                const json_t *entry, rt_error *err)
{
    const json_t *top = json_object_get(entry, "top");
    size_t i;
    const json_t *alternative;
    c->n = 0;
    c->mass = 0;
    if (!top)
        top = json_object_get(entry, "top_logprobs");
    json_array_foreach((json_t *)(size_t)top, i, alternative) add_candidate(c, s, index, alternative);
    add_candidate(c, s, index, entry);
    const double left = 1 - c->mass;
    const rt_sparse_row row = {.ids = c->ids,
                               .logq = c->logq,
                               .counts = c->counts,
                               .n = c->n,
                               .n_topk = c->n,
                               .tail_logprob = left > 1e-7 ? (float)log(left) : -INFINITY,
                               .log_z = NAN};
    s->n_max = rt_size_max(s->n_max, c->n);
    s->counts.taught++;
    return rt_sparse_rows_add(&s->memory, &row, err);
}

static rt_status add_empty_row(rt_kept_source *s, rt_error *err)
{
    const rt_sparse_row none = {.tail_logprob = 0, .log_z = NAN};
    return rt_sparse_rows_add(&s->memory, &none, err);
}

/* ---- rows ---- */

typedef struct text_reader {
    rt_kept_source *source;
    rt_documents *docs;
    const rt_tokenizer *tokenizer;
    const rt_chat_template *chat_template;
    const rt_document_options *options;
    bool only_taught;
    byte_index index;
    rt_token_list ids;
    const json_t **entry; /* [capacity] of each token: the API's entry, or NULL */
    uint8_t *mask;
    size_t capacity;
    candidates *row;
} text_reader;

static bool is_answer(const json_t *row) /* not a refusal, not empty */
{
    const json_t *answer = json_object_get(row, "completion");
    return !json_is_string(json_object_get(row, "refusal")) && json_string_length(answer) > 0;
}

static rt_status plain_row(void *context, const json_t *row, rt_error *err)
{
    text_reader *r = context;
    r->source->counts.texts++;
    if (!is_answer(row)) {
        r->source->counts.without++;
        return RT_OK;
    }
    return rt_documents_add_row(r->docs, row, r->tokenizer, r->chat_template, r->options, err);
}

static rt_status text_room(text_reader *r, size_t n, rt_error *err)
{
    if (n <= r->capacity)
        return RT_OK;
    const json_t **entry = realloc(r->entry, n * sizeof *entry);
    if (entry)
        r->entry = entry;
    uint8_t *mask = realloc(r->mask, n);
    if (mask)
        r->mask = mask;
    if (!entry || !mask)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an answer of %zu tokens", n);
    r->capacity = n;
    return RT_OK;
}

static rt_status list_room(rt_token_list *list, rt_error *err) /* for the end token */
{
    if (list->count < list->capacity)
        return RT_OK;
    int32_t *grown = realloc(list->ids, (list->count + 1) * sizeof *grown);
    if (!grown)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an answer of %zu tokens", list->count);
    list->ids = grown;
    list->capacity = list->count + 1;
    return RT_OK;
}

/* Which of the API's tokens covers exactly the bytes of each of the student's. */
static void match_tokens(text_reader *r, size_t prompt, const json_t *entries)
{
    char piece[PIECE_MAX];
    size_t j = 0, begin_j = 0, end_j = 0, begin_i = 0, size;
    const size_t n = json_array_size(entries);
    for (size_t i = prompt; i < r->ids.count; i++) {
        (void)rt_tokenizer_token_bytes(r->tokenizer, r->ids.ids[i], &size);
        const size_t end_i = begin_i + size;
        while (j < n && end_j < end_i) {
            begin_j = end_j;
            if (!piece_of(json_array_get(entries, j++), piece, &size))
                return;
            end_j += size;
        }
        const bool same = end_j == end_i && begin_j == begin_i && j > 0;
        r->entry[i] = same ? json_array_get(entries, j - 1) : NULL;
        r->source->counts.apart += !same;
        begin_i = end_i;
    }
}

static rt_status taught_document(text_reader *r, size_t prompt, bool finished, rt_error *err)
{
    rt_kept_source *s = r->source;
    const int32_t end = rt_tokenizer_eos(r->tokenizer);
    size_t n = r->ids.count;
    if (finished && end >= 0) {
        r->ids.ids[n] = end; /* text_room and the list have one more */
        r->entry[n++] = NULL;
    }
    s->counts.positions += n - prompt;
    r->docs->n_cut += n > r->options->tokens_max;
    n = rt_size_min(n, r->options->tokens_max);
    size_t targets = 0;
    for (size_t i = 0; i < n; i++) {
        r->mask[i] = r->entry[i] || (!r->only_taught && (i >= prompt || r->options->loss_on_all));
        targets += i > 0 && r->mask[i];
    }
    const size_t before = r->docs->n_docs, first = s->memory.n_rows;
    if (n < 2 || targets == 0)
        return RT_OK;
    if (rt_documents_add(r->docs, r->ids.ids, r->mask, n, err) != RT_OK)
        return err->status;
    if (r->docs->n_docs == before)
        return RT_OK;
    for (size_t i = 1; i < n; i++) {
        if (!r->mask[i])
            continue;
        const rt_status status =
            r->entry[i] ? add_taught_row(s, r->row, &r->index, r->entry[i], err) : add_empty_row(s, err);
        if (status != RT_OK)
            return status;
    }
    return kept_source_note(s, first, err);
}

static rt_status taught_row(void *context, const json_t *row, rt_error *err)
{
    text_reader *r = context;
    const json_t *answer, *entries = entries_of(row);
    json_t *messages = NULL;
    bool finished;
    r->source->counts.texts++;
    if (!is_answer(row) || json_array_size(entries) == 0 ||
        !rt_document_row_parts(row, &messages, &answer, &finished)) {
        r->source->counts.without++;
        return RT_OK;
    }
    r->ids.count = 0;
    rt_status status = messages ? rt_render_prompt(r->tokenizer, r->chat_template, messages, &r->ids, err)
                                : rt_error_set(err, RT_NO_MEMORY, "no memory for the messages");
    json_decref(messages);
    const size_t prompt = r->ids.count;
    if (status == RT_OK)
        status = rt_tokenizer_encode(r->tokenizer, json_string_value(answer), json_string_length(answer),
                                     false, &r->ids, err);
    const size_t n = r->ids.count;
    if (status != RT_OK || list_room(&r->ids, err) != RT_OK || text_room(r, n + 1, err) != RT_OK)
        return err->status;
    memset(r->entry, 0, (n + 1) * sizeof *r->entry);
    match_tokens(r, prompt, entries);
    return taught_document(r, prompt, finished, err);
}

rt_status rt_kept_source_texts(rt_kept_source *source, rt_documents *docs, const rt_tokenizer *tokenizer,
                               const rt_chat_template *chat_template, const rt_document_options *options,
                               rt_error *err)
{
    text_reader r = {.source = source,
                     .docs = docs,
                     .tokenizer = tokenizer,
                     .chat_template = chat_template,
                     .options = options};
    if (rt_reader_texts(source->reader, plain_row, &r, err) != RT_OK)
        return err->status;
    return docs->n_docs ? RT_OK : rt_error_set(err, RT_INVALID, "the store holds no answer to learn from");
}

rt_status rt_kept_source_logprobs(rt_kept_source *source, rt_documents *docs, const rt_tokenizer *tokenizer,
                                  const rt_chat_template *chat_template, const rt_document_options *options,
                                  bool only_taught, rt_error *err)
{
    text_reader r = {.source = source,
                     .docs = docs,
                     .tokenizer = tokenizer,
                     .chat_template = chat_template,
                     .options = options,
                     .only_taught = only_taught,
                     .row = malloc(sizeof *r.row)};
    rt_status status = r.row ? index_make(&r.index, tokenizer, source->n_vocab, err)
                             : rt_error_set(err, RT_NO_MEMORY, "no memory for a row");
    source->from_text = true;
    source->topk = true;
    if (status == RT_OK)
        status = rt_reader_texts(source->reader, taught_row, &r, err);
    if (status == RT_OK && source->counts.taught == 0)
        status = rt_error_set(err, RT_INVALID,
                              "no row of the store brings log-probabilities that fit the student's tokens "
                              "(%zu rows, %zu without "
                              "any): collect them with --logprobs, or learn the text alone with loss: [ce]",
                              source->counts.texts, source->counts.without);
    rt_token_list_deinit(&r.ids);
    free(r.index.order);
    free(r.entry);
    free(r.mask);
    free(r.row);
    return status;
}
