/* evidence/look.c - reading marked text with a suspect, teacher-forced; see subject.h.
 *
 * A place is skipped when its context stood earlier in the same prefix: there the suspect could copy the
 * marked continuation, and a(c, .) must be made from prefixes that never consulted the key at c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "evidence/look.h"
#include "tensor/ops.h"

/* Entries below this share are left out of the pooled sums: a choice that does not know the key. */
static const float listed_min = 3e-4F;

rt_status rt_look_open(rt_look *out, size_t h, bool with_reference, rt_error *err)
{
    *out = (rt_look){.h = h};
    if (rt_pairs_open(&out->hard, h, RT_DEDUP_CONTEXT, err) != RT_OK ||
        rt_reading_open(&out->soft, h, err) != RT_OK ||
        (with_reference && rt_reading_open(&out->diff, h, err) != RT_OK)) {
        rt_look_close(out);
        return err->status;
    }
    return RT_OK;
}

void rt_look_close(rt_look *look)
{
    rt_pairs_close(look->hard);
    rt_reading_close(look->soft);
    rt_reading_close(look->diff);
    *look = (rt_look){0};
}

/* Does the window before `end` stand earlier in ids? */
bool rt_look_seen_before(const int32_t *ids, size_t end, size_t h)
{
    if (h == 0)
        return false;
    for (size_t i = h; i < end; i++)
        if (ids[i - 1] == ids[end - 1] && memcmp(ids + i - h, ids + end - h, h * sizeof *ids) == 0)
            return true;
    return false;
}

rt_status rt_look_place(rt_look *look, const int32_t *context, const rt_place *at, rt_error *err)
{
    size_t best = 0;
    for (size_t i = 0; i < at->n; i++) {
        const float p = at->p[i];
        const int32_t id = at->ids ? at->ids[i] : (int32_t)i;
        best = p > at->p[best] ? i : best;
        if (!(p <= 1.0001F))
            return rt_error_set(err, RT_NOT_FINITE, "a probability is not a number");
        if (p >= listed_min && rt_reading_add(look->soft, context, id, (double)p, err) != RT_OK)
            return err->status;
        if (at->other && fabsf(p - at->other[id]) >= listed_min &&
            rt_reading_add(look->diff, context, id, (double)p - (double)at->other[id], err) != RT_OK)
            return err->status;
    }
    if (at->n == 0)
        return RT_OK;
    int32_t gram[RT_PRF_CONTEXT_MAX + 1];
    if (look->h)
        memcpy(gram, context, look->h * sizeof *gram);
    gram[look->h] = at->ids ? at->ids[best] : (int32_t)best;
    look->places++;
    return rt_pairs_add_gram(look->hard, gram, err);
}

/* Probabilities of a server's listed tokens; ids that the reference has not are left out. */
static size_t list_place(const rt_scored *scored, size_t position, size_t vocab, int32_t *ids, float *p,
                         size_t room)
{
    size_t n = 0;
    for (uint32_t i = scored->begin[position]; i < scored->begin[position + 1] && n < room; i++)
        if (scored->ids[i] >= 0 && (size_t)scored->ids[i] < vocab) {
            ids[n] = scored->ids[i];
            p[n++] = expf(scored->ln_p[i]);
        }
    return n;
}

enum { LISTED_MAX = 4096 };

typedef struct reader {           /* a text before both models */
    rt_token_list prompt, prefix; /* prefix: prompt and answer */
    float *ps, *pb;
    const rt_scored *scored;
    size_t first, n;
} reader;

static rt_status read_with(reader *r, rt_subject *s, rt_subject *b, const rt_text_item *item, size_t answer,
                           rt_error *err)
{
    size_t n_b = 0;
    rt_status status = rt_subject_prompt(s, item->prompt, &r->prompt, err);
    if (status == RT_OK && s->endpoint) {
        status = rt_subject_scores(s, &r->prompt, item->ids.ids, answer, &r->scored, err);
        r->first = r->prompt.count == 0;
        r->n = r->scored ? r->scored->n - r->prompt.count - r->first : 0;
    } else if (status == RT_OK) {
        status = rt_subject_logits(s, &r->prompt, item->ids.ids, answer, &r->ps, &r->first, &r->n, err);
    }
    if (status == RT_OK && b && r->n > 0) {
        status = rt_subject_logits(b, &r->prompt, item->ids.ids, answer, &r->pb, &r->first, &n_b, err);
        r->n = rt_size_min(r->n, n_b);
    }
    if (status != RT_OK || r->n == 0)
        return status;
    r->prefix.ids = malloc((r->prompt.count + answer + 1) * sizeof *r->prefix.ids);
    if (!r->prefix.ids)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a text");
    if (r->prompt.count)
        memcpy(r->prefix.ids, r->prompt.ids, r->prompt.count * sizeof *r->prefix.ids);
    memcpy(r->prefix.ids + r->prompt.count, item->ids.ids, answer * sizeof *r->prefix.ids);
    return RT_OK;
}

static rt_status read_text(rt_look *look, rt_subject *s, rt_subject *b, const rt_text_item *item, size_t most,
                           rt_error *err)
{
    const size_t answer = rt_size_min(item->ids.count, most),
                 vocab = s->endpoint ? rt_tokenizer_size(s->tokenizer) : s->model->config.n_vocab,
                 real = rt_size_min(vocab, rt_tokenizer_real_size(s->tokenizer)); /* padding counts nowhere */
    reader r = {.n = 0};
    int32_t ids[LISTED_MAX];
    float p[LISTED_MAX];
    rt_status status = read_with(&r, s, b, item, answer, err);
    for (size_t i = rt_size_max(look->h, r.first); status == RT_OK && i < r.n + r.first; i++) {
        float *row_b = r.pb ? r.pb + (i - r.first) * vocab : NULL;
        if (rt_look_seen_before(r.prefix.ids, r.prompt.count + i, look->h)) {
            look->skipped++;
            continue;
        }
        rt_place at = {.other = row_b, .n = real};
        if (r.scored) {
            at.n = list_place(r.scored, r.prompt.count + i, real, ids, p, LISTED_MAX);
            at.ids = ids;
            at.p = p;
        } else {
            float *row = r.ps + (i - r.first) * vocab;
            (void)rt_ops_get()->softmax(row, vocab, 1);
            at.p = row;
        }
        if (row_b)
            (void)rt_ops_get()->softmax(row_b, vocab, 1);
        status = rt_look_place(look, item->ids.ids + i - look->h, &at, err);
    }
    rt_token_list_deinit(&r.prompt);
    rt_token_list_deinit(&r.prefix);
    return status;
}

rt_status rt_look_end(rt_look *look, rt_error *err)
{
    if (look->places == 0)
        return rt_error_set(err, RT_INVALID, "the texts to read hold no place with a context of %zu ids",
                            look->h);
    if (rt_reading_freeze(look->soft, 1e-4, err) != RT_OK)
        return err->status;
    return look->diff ? rt_reading_freeze(look->diff, 1e-4, err) : RT_OK;
}

rt_status rt_look_read(rt_look *look, rt_subject *s, rt_subject *b, const rt_texts *texts, size_t tokens,
                       bool (*stop)(void), rt_error *err)
{
    const size_t vocab = s->model ? s->model->config.n_vocab : rt_tokenizer_size(s->tokenizer);
    if (b && !b->model)
        return rt_error_set(err, RT_UNSUPPORTED, "the reference of a reading must be a model file");
    if (b && b->model->config.n_vocab != vocab)
        return rt_error_set(err, RT_MISMATCH, "suspect and reference have vocabularies of %zu and %zu", vocab,
                            b->model->config.n_vocab);
    size_t read = 0;
    for (size_t i = 0; i < texts->count && read < tokens; i++) {
        if (read_text(look, s, b, &texts->list[i], tokens - read, err) != RT_OK)
            return err->status;
        read += texts->list[i].ids.count;
        if (stop && stop())
            return rt_error_set(err, RT_STOPPED, "stopped after %zu texts", i + 1);
    }
    return s->endpoint && rt_endpoint_dry(s->endpoint) ? RT_OK : rt_look_end(look, err);
}

/* ---- the suspect's own answers ---- */

typedef struct token_bytes {
    char bytes[64];
    size_t n;
} token_bytes;

static bool bytes_of(token_bytes *out, const json_t *entry)
{
    const json_t *bytes = json_object_get(entry, "bytes"), *token = json_object_get(entry, "token");
    out->n = 0;
    if (json_is_array(bytes)) {
        for (; out->n < json_array_size(bytes) && out->n < sizeof out->bytes; out->n++)
            out->bytes[out->n] = (char)json_integer_value(json_array_get(bytes, out->n));
        return out->n == json_array_size(bytes) && out->n > 0;
    }
    if (!json_is_string(token) || json_string_length(token) > sizeof out->bytes)
        return false;
    memcpy(out->bytes, json_string_value(token), out->n = json_string_length(token));
    return out->n > 0;
}

/* The one token with exactly these bytes: encoding them must give one id; -1: there is none. */
static int32_t id_of(const rt_tokenizer *tokenizer, const json_t *entry)
{
    token_bytes t;
    rt_token_list ids = {0};
    rt_error err = {0};
    int32_t id = -1;
    if (bytes_of(&t, entry) && rt_tokenizer_encode(tokenizer, t.bytes, t.n, false, &ids, &err) == RT_OK &&
        ids.count == 1) {
        size_t n = 0;
        const char *said = rt_tokenizer_token_bytes(tokenizer, ids.ids[0], &n);
        if (said && n == t.n && memcmp(said, t.bytes, n) == 0)
            id = ids.ids[0];
    }
    rt_token_list_deinit(&ids);
    return id;
}

static rt_status own_answer(rt_look *look, rt_subject *s, rt_subject *b, const rt_text_item *item,
                            size_t most, size_t *read, rt_error *err)
{
    const size_t n = rt_size_min(json_array_size(item->logprobs), most);
    reader r = {.n = 0};
    rt_text_item told = {.prompt = item->prompt, .ids = {calloc(n + 1, sizeof(int32_t)), n, n + 1}};
    int32_t ids[LISTED_MAX];
    float p[LISTED_MAX];
    bool whole = true;
    rt_status status = told.ids.ids ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu places", n);
    for (size_t i = 0; status == RT_OK && i < n; i++) {
        told.ids.ids[i] = id_of(s->tokenizer, json_array_get(item->logprobs, i));
        whole &= told.ids.ids[i] >= 0;
    }
    if (status == RT_OK && b && whole)
        status = read_with(&r, b, NULL, &told, n, err);
    const size_t vocab = b ? b->model->config.n_vocab : rt_tokenizer_size(s->tokenizer);
    for (size_t i = rt_size_max(look->h, b ? r.first : 0); status == RT_OK && i < n; i++) {
        bool known = true;
        for (size_t j = i - look->h; j < i; j++)
            known &= told.ids.ids[j] >= 0;
        if (!known || rt_look_seen_before(told.ids.ids, i, look->h) ||
            (b && (i < r.first || i - r.first >= r.n))) {
            look->skipped++;
            continue;
        }
        const json_t *top = json_object_get(json_array_get(item->logprobs, i), "top"), *entry;
        size_t j;
        rt_place at = {.ids = ids, .p = p};
        json_array_foreach(top, j, entry)
        {
            const int32_t id = id_of(s->tokenizer, entry);
            const json_t *ln_p = json_object_get(entry, "logprob");
            look->listed++;
            if (id >= 0 && (size_t)id < vocab && json_is_number(ln_p) && at.n < LISTED_MAX) {
                ids[at.n] = id;
                p[at.n++] = (float)exp(json_number_value(ln_p));
            } else {
                look->foreign++;
            }
        }
        if (b) {
            float *row = r.ps + (i - r.first) * vocab;
            (void)rt_ops_get()->softmax(row, vocab, 1);
            at.other = row;
        }
        status = rt_look_place(look, told.ids.ids + i - look->h, &at, err);
    }
    *read += n;
    rt_token_list_deinit(&told.ids);
    rt_token_list_deinit(&r.prompt);
    rt_token_list_deinit(&r.prefix);
    return status;
}

rt_status rt_look_own(rt_look *look, rt_subject *s, rt_subject *b, const rt_texts *answers, size_t tokens,
                      bool (*stop)(void), rt_error *err)
{
    if (b && !b->model)
        return rt_error_set(err, RT_UNSUPPORTED, "the reference of a reading must be a model file");
    size_t read = 0;
    for (size_t i = 0; i < answers->count && read < tokens; i++) {
        if (answers->list[i].logprobs &&
            own_answer(look, s, b, &answers->list[i], tokens - read, &read, err) != RT_OK)
            return err->status;
        if (stop && stop())
            return rt_error_set(err, RT_STOPPED, "stopped after %zu answers", i + 1);
    }
    return rt_look_end(look, err);
}

static rt_status add_counts(rt_reading *r, size_t h, const rt_texts *texts, double sign, rt_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < texts->count; i++)
        n += texts->list[i].ids.count > h ? texts->list[i].ids.count - h : 0;
    for (size_t i = 0; i < texts->count; i++) {
        const int32_t *ids = texts->list[i].ids.ids;
        for (size_t j = h; j < texts->list[i].ids.count; j++)
            if (rt_reading_add(r, ids + j - h, ids[j], sign / (double)n, err) != RT_OK)
                return err->status;
    }
    return RT_OK;
}

rt_status rt_look_difference(rt_reading **out, size_t h, const rt_texts *suspect, const rt_texts *reference,
                             rt_error *err)
{
    if (rt_reading_open(out, h, err) != RT_OK)
        return err->status;
    rt_status status = add_counts(*out, h, suspect, 1, err);
    if (status == RT_OK)
        status = add_counts(*out, h, reference, -1, err);
    if (status == RT_OK)
        status = rt_reading_freeze(*out, 0, err);
    return status;
}
