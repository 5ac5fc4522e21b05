/* judge/choice.c - see choice.h. */
#include "judge/choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "tensor/row.h"

enum { POSITIONS = 2048, ROWS = 64 };

struct rt_chooser {
    const rt_model *model;
    const rt_tokenizer *tokenizer;
    rt_session *session;
    rt_token_list context, all, before; /* before: what the session holds */
    float *logits;                      /* [ROWS, n_vocab] */
};

rt_status rt_chooser_open(rt_chooser **out, const rt_model *model, const rt_tokenizer *tokenizer,
                          rt_error *err)
{
    *out = NULL;
    rt_chooser *c = calloc(1, sizeof *c);
    if (!c)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a task");
    c->model = model;
    c->tokenizer = tokenizer;
    c->logits = malloc(ROWS * model->config.n_vocab * sizeof *c->logits);
    rt_status status = c->logits ? rt_session_open(&c->session, model, 1,
                                                   rt_size_min(POSITIONS, model->config.n_context), err)
                                 : rt_error_set(err, RT_NO_MEMORY, "no memory for logits");
    if (status != RT_OK) {
        rt_chooser_close(c);
        return status;
    }
    *out = c;
    return RT_OK;
}

void rt_chooser_close(rt_chooser *c)
{
    if (!c)
        return;
    rt_session_close(c->session);
    rt_token_list_deinit(&c->context);
    rt_token_list_deinit(&c->all);
    rt_token_list_deinit(&c->before);
    free(c->logits);
    free(c);
}

static rt_status encode(const rt_chooser *c, rt_token_list *out, const char *context, const char *ending,
                        rt_error *err)
{
    rt_text text = {0};
    rt_text_puts(&text, context);
    rt_text_puts(&text, ending);
    out->count = 0;
    rt_status status = text.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for a problem")
                                   : rt_tokenizer_encode(c->tokenizer, text.data, text.size, false, out, err);
    rt_text_deinit(&text);
    return status;
}

/* The tokens that the model reads: BOS where it wants one, and the end of a text that is too long. */
static void fit(const rt_chooser *c, size_t *first, bool *bos)
{
    const size_t room = rt_session_capacity(c->session);
    *bos = rt_tokenizer_adds_bos(c->tokenizer) && rt_tokenizer_bos(c->tokenizer) >= 0;
    const size_t n = c->all.count + *bos;
    *first = n > room ? n - room : 0;
}

static bool remember(rt_token_list *list, const int32_t *ids, size_t n)
{
    if (n > list->capacity) {
        int32_t *grown = realloc(list->ids, n * sizeof *grown);
        if (!grown)
            return false;
        list->ids = grown;
        list->capacity = n;
    }
    memcpy(list->ids, ids, n * sizeof *ids);
    list->count = n;
    return true;
}

/* sum of log p of ids[from..n) given those before; the part that the session already holds is not run again.
 */
static rt_status score(rt_chooser *c, const int32_t *ids, size_t n, size_t from, double *out, rt_error *err)
{
    size_t known = 0;
    while (known < c->before.count && known + 1 < from && c->before.ids[known] == ids[known])
        known++;
    rt_session_truncate(c->session, 0, known);
    if (from - 1 > known &&
        rt_session_prefill(c->session, 0, ids + known, from - 1 - known, NULL, err) != RT_OK)
        return err->status;
    *out = 0;
    for (size_t at = from - 1; at + 1 < n;) {
        const size_t count = rt_size_min(ROWS, n - 1 - at);
        if (rt_session_score(c->session, 0, ids + at, count, c->logits, err) != RT_OK)
            return err->status;
        for (size_t i = 0; i < count; i++) {
            const float *z = c->logits + i * c->model->config.n_vocab;
            *out += (double)z[ids[at + i + 1]] - rt_log_sum_exp(z, c->model->config.n_vocab);
        }
        at += count;
    }
    return remember(&c->before, ids, n - 1) ? RT_OK
                                            : rt_error_set(err, RT_NO_MEMORY, "no memory for a problem");
}

static rt_status score_choice(rt_chooser *c, const rt_problem *p, size_t i, double *out, rt_error *err)
{
    size_t first, begin;
    bool bos;
    if (encode(c, &c->context, p->contexts[i], "", err) != RT_OK ||
        encode(c, &c->all, p->contexts[i], p->endings[i], err) != RT_OK)
        return err->status;
    fit(c, &first, &bos);
    if (c->all.count <= c->context.count)
        return rt_error_set(err, RT_INVALID, "line %zu: choice %zu has no token of its own", p->line, i + 1);
    const size_t n = c->all.count + bos;
    int32_t *ids = malloc(n * sizeof *ids);
    if (!ids)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a problem");
    if (bos)
        ids[0] = rt_tokenizer_bos(c->tokenizer);
    memcpy(ids + bos, c->all.ids, c->all.count * sizeof *ids);
    begin = c->context.count + bos;
    begin = begin > first ? begin - first : 0;
    /* something must stand in front of the first token that is scored */
    const rt_status status = score(c, ids + first, n - first, rt_size_max(begin, 1), out, err);
    free(ids);
    return status;
}

rt_status rt_chooser_ask(rt_chooser *c, const rt_problem *p, rt_choice_result *out, rt_error *err)
{
    *out = (rt_choice_result){0};
    size_t best = 0, best_per_byte = 0;
    double per_byte = -INFINITY;
    for (size_t i = 0; i < p->n_choices; i++) {
        if (score_choice(c, p, i, &out->log_p[i], err) != RT_OK)
            return err->status;
        const double mean = out->log_p[i] / (double)strlen(p->endings[i]);
        if (out->log_p[i] > out->log_p[best])
            best = i;
        if (mean > per_byte) {
            per_byte = mean;
            best_per_byte = i;
        }
    }
    out->right = best == p->right;
    out->right_per_byte = best_per_byte == p->right;
    return RT_OK;
}
