/* evidence/look.c - reading marked text with a suspect, teacher-forced; see subject.h.
 *
 * A place is skipped when its context stood earlier in the same prefix: there the suspect could copy the
 * marked continuation, and a(c, .) must be made from prefixes that never consulted the key at c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "evidence/subject.h"
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
static bool seen_before(const int32_t *ids, size_t end, size_t h)
{
    if (h == 0)
        return false;
    for (size_t i = h; i < end; i++)
        if (ids[i - 1] == ids[end - 1] && memcmp(ids + i - h, ids + end - h, h * sizeof *ids) == 0)
            return true;
    return false;
}

static rt_status pool_place(rt_look *look, const int32_t *context, const float *ps, const float *pb, size_t n,
                            rt_error *err)
{
    size_t best = 0;
    for (size_t v = 0; v < n; v++) {
        best = ps[v] > ps[best] ? v : best;
        if (!(ps[v] <= 1))
            return rt_error_set(err, RT_NOT_FINITE, "a probability is not a number");
        if (ps[v] >= listed_min &&
            rt_reading_add(look->soft, context, (int32_t)v, (double)ps[v], err) != RT_OK)
            return err->status;
        if (pb && fabsf(ps[v] - pb[v]) >= listed_min &&
            rt_reading_add(look->diff, context, (int32_t)v, (double)ps[v] - (double)pb[v], err) != RT_OK)
            return err->status;
    }
    int32_t gram[RT_PRF_CONTEXT_MAX + 1];
    if (look->h)
        memcpy(gram, context, look->h * sizeof *gram);
    gram[look->h] = (int32_t)best;
    look->places++;
    return rt_pairs_add_gram(look->hard, gram, err);
}

static rt_status read_text(rt_look *look, rt_subject *s, rt_subject *b, const rt_text_item *item, size_t most,
                           rt_error *err)
{
    rt_token_list prompt = {0}, prefix = {0};
    float *ps = NULL, *pb = NULL;
    size_t first = 0, n = 0, n_b = 0;
    const size_t answer = rt_size_min(item->ids.count, most), vocab = s->model->config.n_vocab;
    rt_status status = rt_subject_prompt(s, item->prompt, &prompt, err);
    if (status == RT_OK)
        status = rt_subject_logits(s, &prompt, item->ids.ids, answer, &ps, &first, &n, err);
    if (status == RT_OK && b)
        status = rt_subject_logits(b, &prompt, item->ids.ids, answer, &pb, &first, &n_b, err);
    if (b)
        n = rt_size_min(n, n_b);
    if (status == RT_OK && n > 0) {
        prefix.ids = malloc((prompt.count + answer + 1) * sizeof *prefix.ids);
        if (!prefix.ids) {
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for a text");
        } else {
            memcpy(prefix.ids, prompt.ids, prompt.count * sizeof *prefix.ids);
            memcpy(prefix.ids + prompt.count, item->ids.ids, answer * sizeof *prefix.ids);
        }
    }
    for (size_t i = rt_size_max(look->h, first); status == RT_OK && i < n + first; i++) {
        float *row = ps + (i - first) * vocab, *row_b = pb ? pb + (i - first) * vocab : NULL;
        if (seen_before(prefix.ids, prompt.count + i, look->h)) {
            look->skipped++;
            continue;
        }
        (void)rt_ops_get()->softmax(row, vocab, 1);
        if (row_b)
            (void)rt_ops_get()->softmax(row_b, vocab, 1);
        status = pool_place(look, item->ids.ids + i - look->h, row, row_b, vocab, err);
    }
    rt_token_list_deinit(&prompt);
    rt_token_list_deinit(&prefix);
    return status;
}

rt_status rt_look_read(rt_look *look, rt_subject *s, rt_subject *b, const rt_texts *texts, size_t tokens,
                       bool (*stop)(void), rt_error *err)
{
    if (b && b->model->config.n_vocab != s->model->config.n_vocab)
        return rt_error_set(err, RT_MISMATCH, "suspect and reference have vocabularies of %zu and %zu",
                            s->model->config.n_vocab, b->model->config.n_vocab);
    size_t read = 0;
    for (size_t i = 0; i < texts->count && read < tokens; i++) {
        if (read_text(look, s, b, &texts->list[i], tokens - read, err) != RT_OK)
            return err->status;
        read += texts->list[i].ids.count;
        if (stop && stop())
            return rt_error_set(err, RT_STOPPED, "stopped after %zu texts", i + 1);
    }
    if (look->places == 0)
        return rt_error_set(err, RT_INVALID, "the texts to read hold no place with a context of %zu ids",
                            look->h);
    if (rt_reading_freeze(look->soft, 1e-4, err) != RT_OK)
        return err->status;
    return look->diff ? rt_reading_freeze(look->diff, 1e-4, err) : RT_OK;
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
