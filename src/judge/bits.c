/* judge/bits.c - see bits.h. */
#include "judge/bits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/pass.h"
#include "tensor/row.h"

enum { SCORE_ROWS = 64 };

void rt_bits_deinit(rt_bits *bits)
{
    free(bits->figures);
    *bits = (rt_bits){0};
}

static size_t length_of(const rt_documents *docs, size_t doc)
{
    return docs->begins[doc + 1] - docs->begins[doc];
}

/* -log2 p of the document's tokens with a loss. */
static double bits_of(const rt_bits_model *m, rt_pass *pass, size_t doc, float *logits)
{
    const size_t begin = m->docs->begins[doc], n = length_of(m->docs, doc), vocab = m->model->config.n_vocab,
                 real = rt_size_min(vocab, rt_tokenizer_real_size(m->tokenizer));
    const rt_segment segment = {.begin = 0, .count = n};
    const rt_batch batch = {m->docs->ids + begin, n, &segment, 1};
    double nats = 0;
    rt_forward(m->model, pass, &batch, NULL, NULL);
    size_t rows[SCORE_ROWS], count = 0;
    for (size_t at = 1; at <= n; at++) {
        if (at < n && m->docs->mask[begin + at])
            rows[count++] = at - 1;
        if (count == 0 || (count < SCORE_ROWS && at < n))
            continue;
        rt_logits(m->model, pass, rows, count, logits);
        for (size_t i = 0; i < count; i++) {
            const float *z = logits + i * vocab;
            nats += rt_log_sum_exp(z, real) - (double)z[m->docs->ids[begin + rows[i] + 1]];
        }
        count = 0;
    }
    return nats / log(2);
}

static size_t bytes_of(const rt_bits_model *m, size_t doc, size_t *tokens)
{
    size_t bytes = 0;
    for (size_t i = m->docs->begins[doc] + 1; i < m->docs->begins[doc + 1]; i++) {
        size_t size = 0;
        if (!m->docs->mask[i])
            continue;
        ++*tokens;
        (void)rt_tokenizer_token_bytes(m->tokenizer, m->docs->ids[i], &size);
        bytes += rt_tokenizer_is_end(m->tokenizer, m->docs->ids[i]) ? 0 : size;
    }
    return bytes;
}

/* Documents that every model can read whole. */
static size_t choose(uint32_t *chosen, const rt_bits_model *models, size_t n_models, size_t tokens_max)
{
    size_t n = 0;
    for (size_t doc = 0; doc < models[0].docs->n_docs; doc++) {
        size_t longest = 0, tokens = 0;
        for (size_t m = 0; m < n_models; m++)
            longest = rt_size_max(longest, length_of(models[m].docs, doc));
        if (longest <= tokens_max && bytes_of(&models[0], doc, &tokens) > 0)
            chosen[n++] = (uint32_t)doc;
    }
    return n;
}

typedef struct judging {
    const rt_bits_model *models;
    size_t n_models, n_docs, n_resamples;
    uint32_t *chosen, *draws;
    double *bits, *bytes; /* [n_models][n_docs], [n_docs] */
    double *ratios, *first;
} judging;

static rt_status score_model(judging *j, size_t m, size_t tokens_max, bool (*go_on)(void), size_t *tokens,
                             rt_error *err)
{
    const rt_bits_model *model = &j->models[m];
    rt_pass *pass = NULL;
    float *logits = malloc(SCORE_ROWS * model->model->config.n_vocab * sizeof *logits);
    rt_status status = logits
                           ? rt_pass_open(&pass, model->model, rt_size_round_up(tokens_max, 32), false, err)
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for logits");
    for (size_t i = 0; i < j->n_docs && status == RT_OK; i++) {
        j->bits[m * j->n_docs + i] = bits_of(model, pass, j->chosen[i], logits);
        (void)bytes_of(model, j->chosen[i], tokens);
        if (!isfinite(j->bits[m * j->n_docs + i]))
            status = rt_error_set(err, RT_NOT_FINITE, "%s: document %u costs infinitely many bits",
                                  model->name, (unsigned)j->chosen[i] + 1);
        else if (go_on && !go_on())
            status = rt_error_set(err, RT_STOPPED, "stopped; nothing was written");
    }
    rt_pass_close(pass);
    free(logits);
    return status;
}

static double total(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static void figures_of(judging *j, size_t m, rt_bits_figures *out)
{
    const double *bits = j->bits + m * j->n_docs, bytes = total(j->bytes, j->n_docs);
    const double value = total(bits, j->n_docs) / bytes, base = total(j->bits, j->n_docs) / bytes;
    rt_bootstrap_ratios(j->ratios, bits, j->bytes, j->n_docs, j->draws, j->n_resamples);
    if (m == 0)
        memcpy(j->first, j->ratios, j->n_resamples * sizeof *j->first);
    double *above = j->first + j->n_resamples;
    for (size_t r = 0; r < j->n_resamples; r++)
        above[r] = j->ratios[r] - j->first[r];
    out->bits = rt_interval_make(value, j->ratios, j->n_resamples);
    out->above = rt_interval_make(value - base, above, j->n_resamples);
}

static rt_status judge_all(judging *j, rt_bits *out, size_t tokens_max, uint64_t seed, bool (*go_on)(void),
                           rt_error *err)
{
    rt_bootstrap_draw(j->draws, j->n_docs, j->n_resamples, seed);
    size_t ignored = 0;
    for (size_t i = 0; i < j->n_docs; i++)
        j->bytes[i] = (double)bytes_of(&j->models[0], j->chosen[i], &ignored);
    out->bytes = total(j->bytes, j->n_docs);
    for (size_t m = 0; m < j->n_models; m++) {
        size_t tokens = 0;
        if (score_model(j, m, tokens_max, go_on, &tokens, err) != RT_OK)
            return err->status;
        figures_of(j, m, &out->figures[m]);
        out->figures[m].bytes_per_token = out->bytes / (double)rt_size_max(tokens, 1);
    }
    return RT_OK;
}

rt_status rt_bits_judge(rt_bits *out, const rt_bits_model *models, size_t n_models, size_t tokens_max,
                        size_t resamples, uint64_t seed, bool (*go_on)(void), rt_error *err)
{
    const size_t all = models[0].docs->n_docs;
    *out = (rt_bits){.n_models = n_models};
    for (size_t m = 1; m < n_models; m++)
        if (models[m].docs->n_docs != all)
            return rt_error_set(err, RT_MISMATCH, "%s makes %zu documents of the text, %s %zu",
                                models[m].name, models[m].docs->n_docs, models[0].name, all);
    judging j = {.models = models, .n_models = n_models, .n_resamples = resamples};
    j.chosen = malloc(rt_size_max(all, 1) * sizeof *j.chosen);
    if (j.chosen)
        j.n_docs = choose(j.chosen, models, n_models, tokens_max);
    const size_t n = rt_size_max(j.n_docs, 1);
    out->n_docs = j.n_docs;
    out->n_left_out = all - j.n_docs;
    out->figures = calloc(n_models, sizeof *out->figures);
    j.draws = calloc(resamples * n, sizeof *j.draws);
    j.bits = calloc(n_models * n, sizeof *j.bits);
    j.bytes = calloc(n, sizeof *j.bytes);
    j.ratios = calloc(resamples, sizeof *j.ratios);
    j.first = calloc(2 * resamples, sizeof *j.first);
    rt_status status = RT_OK;
    if (!j.chosen || !out->figures || !j.draws || !j.bits || !j.bytes || !j.ratios || !j.first)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory to judge %zu documents", all);
    else if (j.n_docs == 0)
        status = rt_error_set(err, RT_INVALID, "no document is at most %zu tokens long for every model",
                              tokens_max);
    else
        status = judge_all(&j, out, tokens_max, seed, go_on, err);
    free(j.chosen);
    free(j.draws);
    free(j.bits);
    free(j.bytes);
    free(j.ratios);
    free(j.first);
    if (status != RT_OK)
        rt_bits_deinit(out);
    return status;
}
