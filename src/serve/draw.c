/* serve/draw.c - see draw.h.
 *
 * Order: grammar, penalties and biases, temperature, top_k, top_p, min_p, the draw.  Log-probabilities are
 * those of the logits before any of it. */
#include "serve/draw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/ops.h"

double rt_log_sum(const float *logits, size_t n, float *scratch)
{
    float top = logits[0];
    for (size_t i = 1; i < n; i++)
        top = logits[i] > top ? logits[i] : top;
    for (size_t i = 0; i < n; i++)
        scratch[i] = logits[i] - top;
    return (double)top + (double)rt_ops_get()->softmax(scratch, n, 1.0f);
}

/* Is a before b in the order of likelihood? */
static bool before(const rt_top *a, const rt_top *b)
{
    return a->logprob != b->logprob ? a->logprob > b->logprob : a->id < b->id;
}

/* A heap whose root is the last of the best so far. */
static void sift_down(rt_top *heap, size_t n, size_t at)
{
    for (;;) {
        size_t worst = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < n; child++)
            if (before(&heap[worst], &heap[child]))
                worst = child;
        if (worst == at)
            return;
        const rt_top swap = heap[at];
        heap[at] = heap[worst];
        heap[worst] = swap;
        at = worst;
    }
}

static int by_likelihood(const void *a, const void *b)
{
    const rt_top *x = a, *y = b;
    return before(x, y) ? -1 : before(y, x);
}

void rt_top_logprobs(const float *logits, size_t n, double lse, rt_top *out, size_t k)
{
    if (k == 0)
        return;
    for (size_t i = 0; i < k; i++)
        out[i] = (rt_top){(int32_t)i, logits[i]};
    for (size_t i = k / 2; i-- > 0;)
        sift_down(out, k, i);
    for (size_t i = k; i < n; i++) {
        if (!(logits[i] > out[0].logprob))
            continue;
        out[0] = (rt_top){(int32_t)i, logits[i]};
        sift_down(out, k, 0);
    }
    qsort(out, k, sizeof *out, by_likelihood);
    for (size_t i = 0; i < k; i++)
        out[i].logprob = (float)((double)out[i].logprob - lse);
}

void rt_score_id(const float *logits, size_t n, double lse, int32_t id, rt_scored *out)
{
    uint32_t rank = 1;
    const float z = logits[id];
    for (size_t i = 0; i < n; i++)
        rank += logits[i] > z;
    out->id = id;
    out->logprob = (float)((double)z - lse);
    out->rank = rank;
}

rt_status rt_drawer_init(rt_drawer *d, const rt_tokenizer *tokenizer, size_t n_vocab, rt_error *err)
{
    *d = (rt_drawer){.tokenizer = tokenizer,
                     .raw = malloc(n_vocab * sizeof(float)),
                     .scratch = malloc(n_vocab * sizeof(float)),
                     .counts = calloc(n_vocab, sizeof(uint32_t))};
    if (d->raw && d->scratch && d->counts && rt_sampler_open(&d->sampler, n_vocab, err) == RT_OK) {
        rt_sampler_limit(d->sampler, rt_tokenizer_real_size(tokenizer));
        return RT_OK;
    }
    rt_drawer_deinit(d);
    return rt_error_set(err, RT_NO_MEMORY, "no memory to sample from %zu ids", n_vocab);
}

void rt_drawer_deinit(rt_drawer *d)
{
    rt_sampler_close(d->sampler);
    rt_constrainer_close(d->constrainer);
    free(d->raw);
    free(d->scratch);
    free(d->counts);
    *d = (rt_drawer){0};
}

/* Leaves the tokens that the grammar lets come; false: none. */
static bool constrain(rt_drawer *d, const rt_grammar *grammar, const rt_choice *choice, float *logits,
                      size_t n_vocab)
{
    rt_error err = {0};
    if (!d->constrainer && rt_constrainer_open(&d->constrainer, d->tokenizer, n_vocab, &err) != RT_OK)
        return false;
    return rt_constrain(d->constrainer, grammar, choice->state, logits) > 0;
}

void rt_draw_token(rt_drawer *d, const rt_job_options *options, const rt_choice *choice, float *logits,
                   size_t n_vocab, const int32_t *ids, size_t n_prompt, size_t n_answer, rt_scored *out,
                   rt_top *top)
{
    const bool scored = options->top_logprobs >= 0;
    *out = (rt_scored){.id = -1};
    if (scored)
        memcpy(d->raw, logits, n_vocab * sizeof *logits);
    if (options->grammar && !constrain(d, options->grammar, choice, logits, n_vocab))
        return;
    rt_penalise(&options->penalties, logits, n_vocab, ids, n_prompt, ids + n_prompt, n_answer, d->counts);
    out->id =
        rt_sample(d->sampler, &options->sampling, logits, ids, n_prompt + n_answer, choice->index, n_answer);
    if (options->grammar && !rt_tokenizer_is_end(d->tokenizer, out->id) &&
        !rt_constrain_accept(d->constrainer, options->grammar, choice->state, out->id))
        out->id = -1; /* a bias has lifted what may not come */
    if (!scored || out->id < 0)
        return;
    const double lse = rt_log_sum(d->raw, n_vocab, d->scratch);
    rt_score_id(d->raw, n_vocab, lse, out->id, out);
    out->n_top = (uint32_t)options->top_logprobs;
    rt_top_logprobs(d->raw, n_vocab, lse, top, out->n_top);
}
