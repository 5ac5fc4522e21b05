/* student/own.c - see own.h. */
#include "student/own.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/size.h"
#include "model/generate.h"
#include "tensor/row.h"

enum { SCORE_ROWS = 64, STREAM_CHANCE = 0x6f776e };

rt_status rt_own_open(rt_own *own, const rt_own_options *options, const rt_documents *texts,
                      const rt_tokenizer *tokenizer, size_t batch_tokens, rt_error *err)
{
    *own =
        (rt_own){.options = *options, .texts = texts, .tokenizer = tokenizer, .batch_tokens = batch_tokens};
    own->prompts = calloc(rt_size_max(texts->n_docs, 1), sizeof *own->prompts);
    own->order = calloc(rt_size_max(texts->n_docs, 1), sizeof *own->order);
    own->row_logp = calloc(batch_tokens, sizeof *own->row_logp);
    if (!own->prompts || !own->order || !own->row_logp) {
        rt_own_close(own);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu prompts", texts->n_docs);
    }
    for (size_t i = 0; i < texts->n_docs; i++) {
        const size_t n = rt_documents_prompt(texts, i);
        if (n > 0 && n + options->tokens_max <= options->document_max)
            own->prompts[own->n_prompts++] = (uint32_t)i;
    }
    if (own->n_prompts == 0) {
        rt_own_close(own);
        return rt_error_set(err, RT_INVALID,
                            "on_policy: none of the %zu documents begins with a prompt that leaves room for "
                            "an answer of %zu tokens in %zu",
                            texts->n_docs, options->tokens_max, options->document_max);
    }
    return RT_OK;
}

void rt_own_close(rt_own *own)
{
    rt_dealer_deinit(&own->dealer);
    rt_documents_deinit(&own->docs);
    free(own->prompts);
    free(own->order);
    free(own->row_logp);
    free(own->logp_old);
    *own = (rt_own){0};
}

bool rt_own_step(const rt_own *own, uint64_t step)
{
    rt_rng rng = rt_rng_make(own->options.seed, STREAM_CHANCE);
    rng.index = step * 4;
    return rt_rng_uniform(&rng) < own->options.share;
}

/* ---- sampling a set ---- */

typedef struct sampling {
    rt_own *own;
    const uint32_t *documents; /* of the prompts */
    int32_t *ids;              /* [document_max + 1] */
    uint8_t *mask;
    rt_documents docs;
    rt_error *err;
} sampling;

/* A padded vocabulary has ids that mean nothing, to the teacher least of all. */
static size_t meaningful(const rt_own *own, const rt_answer *answer)
{
    size_t n = 0;
    const size_t known = own->tokenizer ? rt_tokenizer_size(own->tokenizer) : SIZE_MAX;
    while (n < answer->n && (size_t)answer->ids[n] < known)
        n++;
    return n;
}

static bool keep_answer(void *context, const rt_answer *answer)
{
    sampling *s = context;
    rt_own *own = s->own;
    const size_t doc = s->documents[answer->index], n = rt_documents_prompt(own->texts, doc);
    const int32_t end = own->tokenizer ? rt_tokenizer_eos(own->tokenizer) : -1;
    const size_t count = meaningful(own, answer);
    size_t total = n + count;
    memcpy(s->ids, own->texts->ids + own->texts->begins[doc], n * sizeof *s->ids);
    memcpy(s->ids + n, answer->ids, count * sizeof *s->ids);
    if (answer->finish == RT_FINISH_STOP && count == answer->n && end >= 0)
        s->ids[total++] = end;
    own->stopped += answer->finish == RT_FINISH_STOP;
    memset(s->mask, 0, n);
    memset(s->mask + n, 1, total - n);
    return rt_documents_add(&s->docs, s->ids, s->mask, rt_size_min(total, own->options.document_max),
                            s->err) == RT_OK;
}

/* The next prompts in an order that is shuffled anew each time round. */
static void choose_prompts(const rt_own *own, uint32_t *documents, size_t n)
{
    uint64_t round = UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        const uint64_t at = own->asked + i;
        if (at / own->n_prompts != round) {
            round = at / own->n_prompts;
            rt_rng rng = rt_rng_make(own->options.seed, STREAM_CHANCE + 1 + round);
            for (size_t k = 0; k < own->n_prompts; k++) {
                const size_t j = (size_t)rt_rng_below(&rng, k + 1);
                own->order[k] = own->order[j];
                own->order[j] = own->prompts[k];
            }
        }
        documents[i] = own->order[at % own->n_prompts];
    }
}

static rt_status sample_set(sampling *s, const rt_model *student, uint64_t step, rt_prompt *prompts,
                            uint32_t *documents, rt_error *err)
{
    const rt_own *own = s->own;
    const rt_own_options *o = &own->options;
    choose_prompts(own, documents, o->answers);
    for (size_t i = 0; i < o->answers; i++)
        prompts[i] = (rt_prompt){.ids = own->texts->ids + own->texts->begins[documents[i]],
                                 .n = rt_documents_prompt(own->texts, documents[i]),
                                 .tokens_max = o->tokens_max,
                                 .stream = own->asked + i};
    rt_generate_options options = {.sampling = rt_sampling_default(),
                                   .n_slots = o->answers,
                                   .n_positions = o->document_max,
                                   .answer = keep_answer,
                                   .context = s};
    options.sampling.temperature = o->temperature;
    options.sampling.top_p = o->top_p;
    options.sampling.seed = o->seed ^ (step * 0x9e3779b97f4a7c15U);
    rt_generate_stats stats;
    return rt_generate(student, own->tokenizer, prompts, o->answers, &options, &stats, err);
}

/* log p of the targets of docs under the student as it is, by the same pass that training takes. */
static rt_status score_set(rt_own *own, const rt_trainer *t, rt_error *err)
{
    const size_t vocab = t->config.n_vocab;
    float *logits = malloc(SCORE_ROWS * vocab * sizeof *logits);
    own->logp_old = calloc(own->docs.n_tokens, sizeof *own->logp_old);
    if (!logits || !own->logp_old) {
        free(logits);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the log-probabilities of %zu tokens",
                            own->docs.n_tokens);
    }
    for (size_t doc = 0; doc < own->docs.n_docs; doc++) {
        const size_t begin = own->docs.begins[doc], n = own->docs.begins[doc + 1] - begin;
        const rt_segment segment = {.begin = 0, .count = n};
        const rt_batch batch = {own->docs.ids + begin, n, &segment, 1};
        rt_forward(t->student, t->pass, &batch, NULL, NULL);
        for (size_t at = 0, count; at + 1 < n; at += count) {
            count = rt_size_min(SCORE_ROWS, n - 1 - at);
            size_t rows[SCORE_ROWS];
            for (size_t i = 0; i < count; i++)
                rows[i] = at + i;
            rt_logits(t->student, t->pass, rows, count, logits);
            for (size_t i = 0; i < count; i++) {
                const float *z = logits + i * vocab;
                const int32_t id = own->docs.ids[begin + at + i + 1];
                own->logp_old[begin + at + i + 1] = (float)((double)z[id] - rt_log_sum_exp(z, vocab));
            }
        }
    }
    free(logits);
    return RT_OK;
}

/* Makes docs the set at hand, not dealt yet. */
static rt_status take_set(rt_own *own, rt_documents *docs, rt_error *err)
{
    rt_documents_deinit(&own->docs);
    free(own->logp_old);
    own->logp_old = NULL; /* of the set that was */
    own->docs = *docs;
    *docs = (rt_documents){0};
    rt_dealer_deinit(&own->dealer);
    return rt_dealer_init(&own->dealer, &own->docs, own->options.seed ^ own->asked, own->batch_tokens, err);
}

rt_status rt_own_refill(rt_own *own, const rt_trainer *trainer, rt_error *err)
{
    if (own->docs.n_docs && own->dealer.cursor < own->docs.n_docs)
        return RT_OK;
    const double from = rt_clock_seconds();
    const rt_own_options *o = &own->options;
    uint32_t *documents = calloc(o->answers, sizeof *documents);
    rt_prompt *prompts = calloc(o->answers, sizeof *prompts);
    sampling s = {.own = own,
                  .documents = documents,
                  .ids = malloc((o->document_max + 1) * sizeof *s.ids),
                  .mask = malloc(o->document_max + 1),
                  .err = err};
    rt_status status = RT_OK;
    if (!documents || !prompts || !s.ids || !s.mask)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for %zu answers", o->answers);
    for (size_t tries = 0; status == RT_OK && s.docs.n_targets == 0 && tries < 8; tries++) {
        status = sample_set(&s, trainer->student, trainer->step, prompts, documents, err);
        own->asked += o->answers;
        own->answers += o->answers;
    }
    if (status == RT_OK)
        status = take_set(own, &s.docs, err);
    if (status == RT_OK && o->sampled)
        status = score_set(own, trainer, err);
    rt_documents_deinit(&s.docs);
    free(documents);
    free(prompts);
    free(s.ids);
    free(s.mask);
    own->seconds += rt_clock_seconds() - from;
    return status;
}

void rt_own_fill(rt_own *own, const rt_trainer *trainer, rt_loss_mix *mix, rt_deal *deal)
{
    const rt_own_options *o = &own->options;
    if (!o->sampled) {
        rt_course_at(mix, &o->objective.mix, &o->objective.course, trainer->step,
                     trainer->options.schedule.total, 0);
        deal->targets.mix = mix;
        return;
    }
    size_t row = 0, at = 0;
    for (size_t i = 0; i < deal->n_documents; i++) {
        const size_t begin = own->docs.begins[deal->documents[i]],
                     n = own->docs.begins[deal->documents[i] + 1] - begin;
        for (; row < deal->targets.n && deal->rows[row] < at + n; row++)
            own->row_logp[row] = own->logp_old[begin + (deal->rows[row] - at) + 1];
        at += n;
    }
    deal->targets.policy = &o->policy;
    deal->targets.logp_old = own->row_logp;
}

void rt_own_words(const rt_own *own, int64_t words[RT_OWN_WORDS])
{
    words[0] = (int64_t)own->asked;
    words[1] = (int64_t)own->dealer.cursor;
    words[2] = (int64_t)own->answers;
    words[3] = (int64_t)own->stopped;
    words[4] = (int64_t)(own->seconds * 1000);
}

rt_status rt_own_restore(rt_own *own, const int64_t words[RT_OWN_WORDS], const int32_t *ids,
                         const uint8_t *mask, const float *logp_old, size_t n_tokens, const int64_t *begins,
                         size_t n_docs, rt_error *err)
{
    rt_documents docs = {0};
    rt_status status = RT_OK;
    for (size_t i = 0; i < n_docs && status == RT_OK; i++) {
        if (begins[i] < 0 || begins[i + 1] <= begins[i] || (uint64_t)begins[i + 1] > n_tokens)
            status = rt_error_set(err, RT_CORRUPT, "the student's own answers are damaged");
        else
            status = rt_documents_add(&docs, ids + begins[i], mask + begins[i],
                                      (size_t)(begins[i + 1] - begins[i]), err);
    }
    if (status == RT_OK && docs.n_tokens != n_tokens)
        status = rt_error_set(err, RT_CORRUPT, "the student's own answers are damaged");
    own->asked = (uint64_t)words[0];
    own->answers = (size_t)words[2];
    own->stopped = (size_t)words[3];
    own->seconds = (double)words[4] / 1000;
    if (status == RT_OK && n_docs)
        status = take_set(own, &docs, err);
    if (status == RT_OK && n_docs)
        own->dealer.cursor = (uint64_t)words[1];
    if (status == RT_OK && n_docs && own->options.sampled) {
        own->logp_old = malloc(rt_size_max(n_tokens, 1) * sizeof *own->logp_old);
        if (!own->logp_old)
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for %zu tokens", n_tokens);
        else
            memcpy(own->logp_old, logp_old, n_tokens * sizeof *logp_old);
    }
    rt_documents_deinit(&docs);
    return status;
}
