/* evidence/look_foreign.c - reading marked text with a suspect whose tokenizer is another
 * (METHODS-evidence 4.4).
 *
 * The text is the same bytes to both.  A place of T's ids is used where the suspect's tokens, too, have a
 * border before it: its row there is over its own tokens, and those whose bytes are exactly one of T's carry
 * their probability over.  Neither choice knows the key, so the null holds as it does for one tokenizer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "evidence/look.h"
#include "outputs/idmap.h"
#include "tensor/ops.h"

typedef struct speaker { /* suspect or reference */
    rt_subject *s;       /* NULL: none */
    size_t vocab;
    int32_t *to_t; /* [vocab] T's id with the same bytes, or -1 */
    float *p;      /* [n_t] by T's ids */
    /* of one text */
    rt_token_list prompt, ids;
    size_t *starts; /* [ids.count] byte offsets */
    float *rows;
    size_t first, n;
} speaker;

typedef struct foreign {
    rt_look *look;
    const rt_tokenizer *t;
    size_t n_t;
    speaker who[2]; /* suspect, reference */
} foreign;

/* T's tokens by their bytes; bytes that two tokens share name neither. */
static rt_status index_tokens(rt_idmap *map, const rt_tokenizer *t, size_t n, rt_error *err)
{
    for (size_t id = 0; id < n; id++) {
        size_t size = 0;
        const char *bytes = rt_tokenizer_token_bytes(t, (int32_t)id, &size);
        if (!bytes || size == 0 || rt_tokenizer_is_special(t, (int32_t)id))
            continue;
        const rt_idkey key = rt_idkey_of(bytes, size);
        const uint64_t value = rt_idmap_get(map, key) ? UINT64_MAX : id + 1;
        if (rt_idmap_put(map, key, value, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status open_speaker(speaker *w, rt_subject *s, const rt_idmap *map, size_t n_t, rt_error *err)
{
    w->s = s;
    w->vocab = s->model->config.n_vocab;
    w->to_t = malloc((w->vocab + 1) * sizeof *w->to_t);
    w->p = malloc((n_t + 1) * sizeof *w->p);
    if (!w->to_t || !w->p)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a vocabulary of %zu", w->vocab);
    const size_t real = rt_size_min(w->vocab, rt_tokenizer_real_size(s->tokenizer));
    for (size_t id = 0; id < w->vocab; id++) {
        size_t size = 0;
        w->to_t[id] = -1;
        if (id >= real || rt_tokenizer_is_special(s->tokenizer, (int32_t)id))
            continue;
        const char *bytes = rt_tokenizer_token_bytes(s->tokenizer, (int32_t)id, &size);
        const uint64_t at = bytes && size ? rt_idmap_get(map, rt_idkey_of(bytes, size)) : 0;
        if (at && at != UINT64_MAX)
            w->to_t[id] = (int32_t)(at - 1);
    }
    return RT_OK;
}

/* Byte offsets at which tokens begin, as far as their bytes are the text's; the rest is left.  A blank that a
 * tokenizer puts before the first word stands for nothing. */
static size_t walk(size_t *starts, const rt_tokenizer *tokenizer, const rt_token_list *ids, const char *text,
                   size_t size)
{
    size_t at = 0, i = 0;
    for (; i < ids->count; i++) {
        size_t n = 0;
        const char *bytes = rt_tokenizer_token_bytes(tokenizer, ids->ids[i], &n);
        if (bytes && i == 0 && n > 0 && bytes[0] == ' ' && (size == 0 || text[0] != ' ')) {
            bytes++;
            n--;
        }
        if (!bytes || rt_tokenizer_is_special(tokenizer, ids->ids[i]) || n > size - at ||
            memcmp(bytes, text + at, n) != 0)
            break;
        starts[i] = at;
        at += n;
    }
    return i;
}

static rt_status read_speaker(speaker *w, const char *prompt, const char *text, size_t size, rt_error *err)
{
    w->prompt.count = w->ids.count = 0;
    if (!w->s)
        return RT_OK;
    if (rt_subject_prompt(w->s, prompt, &w->prompt, err) != RT_OK ||
        rt_tokenizer_encode(w->s->tokenizer, text, size, false, &w->ids, err) != RT_OK)
        return err->status;
    free(w->starts);
    w->starts = malloc((w->ids.count + 1) * sizeof *w->starts);
    if (!w->starts)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a text");
    const size_t known = walk(w->starts, w->s->tokenizer, &w->ids, text, size);
    w->n = 0;
    if (known == 0)
        return RT_OK;
    const rt_status status =
        rt_subject_logits(w->s, &w->prompt, w->ids.ids, known, &w->rows, &w->first, &w->n, err);
    for (size_t i = 0; status == RT_OK && i < w->n; i++)
        (void)rt_ops_get()->softmax(w->rows + i * w->vocab, w->vocab, 1);
    return status;
}

/* The row from which the token at this byte would be drawn; NULL: no token of this speaker begins there. */
static const float *row_at(const speaker *w, size_t byte)
{
    size_t low = w->first, high = w->first + w->n;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        if (w->starts[mid] < byte)
            low = mid + 1;
        else
            high = mid;
    }
    return low < w->first + w->n && w->starts[low] == byte ? w->rows + (low - w->first) * w->vocab : NULL;
}

/* The row over T's ids; returns the probability that it keeps. */
static double carry(speaker *w, const float *row, size_t n_t)
{
    double kept = 0;
    memset(w->p, 0, n_t * sizeof *w->p);
    for (size_t id = 0; id < w->vocab; id++)
        if (w->to_t[id] >= 0) {
            w->p[w->to_t[id]] += row[id];
            kept += (double)row[id];
        }
    return kept;
}

static rt_status read_places(foreign *f, const rt_token_list *prefix, size_t prompt, const size_t *starts,
                             size_t n, rt_error *err)
{
    rt_look *look = f->look;
    for (size_t i = look->h; i < n; i++) {
        const float *rows[2] = {NULL, NULL};
        for (size_t k = 0; k < 2; k++)
            rows[k] = f->who[k].s ? row_at(&f->who[k], starts[i]) : NULL;
        if (!rows[0] || (f->who[1].s && !rows[1])) {
            look->apart++;
            continue;
        }
        look->borders++;
        if (rt_look_seen_before(prefix->ids, prompt + i, look->h)) {
            look->skipped++;
            continue;
        }
        look->mass++;
        look->mass_kept += carry(&f->who[0], rows[0], f->n_t);
        if (rows[1])
            (void)carry(&f->who[1], rows[1], f->n_t);
        const rt_place at = {.p = f->who[0].p, .other = rows[1] ? f->who[1].p : NULL, .n = f->n_t};
        if (rt_look_place(look, prefix->ids + prompt + i - look->h, &at, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status read_text(foreign *f, const rt_text_item *item, size_t most, rt_error *err)
{
    rt_text text = {0};
    rt_token_list prefix = {0};
    const rt_token_list answer = {item->ids.ids, rt_size_min(item->ids.count, most), 0};
    size_t *starts = malloc((answer.count + 1) * sizeof *starts);
    rt_status status = starts ? rt_tokenizer_decode(f->t, answer.ids, answer.count, true, &text, err)
                              : rt_error_set(err, RT_NO_MEMORY, "no memory for a text");
    const char *bytes = text.data ? text.data : "";
    const size_t n = status == RT_OK ? walk(starts, f->t, &answer, bytes, text.size) : 0;
    for (size_t k = 0; status == RT_OK && k < 2; k++)
        status = read_speaker(&f->who[k], item->prompt, bytes, text.size, err);
    if (status == RT_OK && item->prompt)
        status = rt_tokenizer_encode(f->t, item->prompt, strlen(item->prompt), false, &prefix, err);
    const size_t prompt = prefix.count;
    if (status == RT_OK) {
        int32_t *ids = realloc(prefix.ids, (prompt + answer.count + 1) * sizeof *ids);
        if (ids) {
            prefix.ids = ids;
            if (answer.count)
                memcpy(ids + prompt, answer.ids, answer.count * sizeof *ids);
            status = read_places(f, &prefix, prompt, starts, n, err);
        } else {
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for a text");
        }
    }
    rt_token_list_deinit(&prefix);
    rt_text_deinit(&text);
    free(starts);
    return status;
}

rt_status rt_look_foreign(rt_look *look, rt_subject *suspect, rt_subject *reference,
                          const rt_tokenizer *tokenizer, const rt_texts *texts, size_t tokens,
                          bool (*stop)(void), rt_error *err)
{
    if (!suspect->model || (reference && !reference->model))
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "reading with another tokenizer needs model files: a server's rows are over tokens that "
            "are not known");
    foreign f = {.look = look, .t = tokenizer, .n_t = rt_tokenizer_size(tokenizer)};
    rt_idmap map = {0};
    rt_status status = index_tokens(&map, tokenizer, f.n_t, err);
    if (status == RT_OK)
        status = open_speaker(&f.who[0], suspect, &map, f.n_t, err);
    if (status == RT_OK && reference)
        status = open_speaker(&f.who[1], reference, &map, f.n_t, err);
    size_t read = 0;
    for (size_t i = 0; status == RT_OK && i < texts->count && read < tokens; i++) {
        status = read_text(&f, &texts->list[i], tokens - read, err);
        read += texts->list[i].ids.count;
        if (status == RT_OK && stop && stop())
            status = rt_error_set(err, RT_STOPPED, "stopped after %zu texts", i + 1);
    }
    for (size_t k = 0; k < 2; k++) {
        free(f.who[k].to_t);
        free(f.who[k].p);
        free(f.who[k].starts);
        rt_token_list_deinit(&f.who[k].prompt);
        rt_token_list_deinit(&f.who[k].ids);
    }
    rt_idmap_deinit(&map);
    return status == RT_OK ? rt_look_end(look, err) : status;
}
