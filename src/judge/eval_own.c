/* judge/eval_own.c - see eval_own.h.  Students are taken one after the other: it answers all prompts, and its
 * text goes through the same machinery as any other (eval.c) with it and the teacher alone. */
#include "judge/eval_own.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "judge/eval_internal.h"
#include "model/generate.h"

typedef struct own_judging {
    const rt_eval_model *models;
    const rt_tokenizer *tokenizer;
    const rt_documents *docs;
    const rt_eval_options *options;
    size_t answer_max, n_models, n_prompts, longest; /* longest: prompt with an answer */
    uint32_t *documents;                             /* [n_prompts] whose prompts are asked */
    rt_metrics_sum *sums;                            /* [n_models][n_prompts] */
    /* the student at hand */
    size_t student, n_answered;
    int32_t **said; /* [n_prompts] prompt and answer, owned */
    size_t *n_said;
    size_t ended;
    rt_error *err;
} own_judging;

/* Which prompts, within every model's context. */
static rt_status choose(own_judging *j, rt_error *err)
{
    size_t context = SIZE_MAX, targets = 0;
    for (size_t m = 0; m < j->n_models; m++)
        context = rt_size_min(context, j->models[m].model->config.n_context);
    j->documents = calloc(rt_size_max(j->docs->n_docs, 1), sizeof *j->documents);
    if (!j->documents)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu prompts", j->docs->n_docs);
    for (size_t d = 0; d < j->docs->n_docs; d++) {
        const size_t begin = j->docs->begins[d], size = j->docs->begins[d + 1] - begin,
                     n = rt_documents_prompt(j->docs, d);
        targets += rt_eval_count_targets(j->docs->mask + begin, size);
        if (j->options->tokens && j->n_prompts && targets > j->options->tokens)
            break;
        if (n == 0 || n == size || context < j->answer_max || n > context - j->answer_max)
            continue;
        j->longest = rt_size_max(j->longest, n + j->answer_max);
        j->documents[j->n_prompts++] = (uint32_t)d;
    }
    if (j->n_prompts == 0)
        return rt_error_set(
            err, RT_INVALID,
            "none of the %zu documents has a prompt that leaves room for an answer of %zu "
            "tokens in the models' context of %zu: the students cannot answer; give rows with "
            "prompt and completion, or shorter answers",
            j->docs->n_docs, j->answer_max, context);
    return RT_OK;
}

static bool go_on(const own_judging *j, size_t answered)
{
    const size_t done = (j->student - 1) * j->n_prompts + answered, all = (j->n_models - 1) * j->n_prompts;
    return !j->options->progress || j->options->progress(j->options->context, done, all);
}

static bool keep_answer(void *context, const rt_answer *answer)
{
    own_judging *j = context;
    const size_t begin = j->docs->begins[j->documents[answer->index]],
                 n = rt_documents_prompt(j->docs, j->documents[answer->index]);
    int32_t *ids = malloc((n + answer->n + 1) * sizeof *ids);
    if (!ids) {
        (void)rt_error_set(j->err, RT_NO_MEMORY, "no memory for an answer of %zu tokens", answer->n);
        return false;
    }
    memcpy(ids, j->docs->ids + begin, n * sizeof *ids);
    memcpy(ids + n, answer->ids, answer->n * sizeof *ids);
    size_t total = n + answer->n;
    const int32_t end = j->tokenizer ? rt_tokenizer_eos(j->tokenizer) : -1;
    if (answer->finish == RT_FINISH_STOP && end >= 0)
        ids[total++] = end; /* that it ends here is said too */
    j->ended += answer->finish == RT_FINISH_STOP;
    j->said[answer->index] = ids;
    j->n_said[answer->index] = total;
    return go_on(j, ++j->n_answered);
}

static rt_status ask(own_judging *j, rt_error *err)
{
    rt_prompt *prompts = calloc(j->n_prompts, sizeof *prompts);
    if (!prompts)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu prompts", j->n_prompts);
    for (size_t i = 0; i < j->n_prompts; i++)
        prompts[i] = (rt_prompt){.ids = j->docs->ids + j->docs->begins[j->documents[i]],
                                 .n = rt_documents_prompt(j->docs, j->documents[i]),
                                 .tokens_max = j->answer_max,
                                 .stream = i};
    rt_generate_options options = {.sampling = rt_sampling_default(),
                                   .n_positions = j->longest + 1,
                                   .answer = keep_answer,
                                   .context = j};
    options.sampling.temperature = 1;
    options.sampling.seed = j->options->seed;
    rt_generate_stats stats;
    j->err = err;
    j->n_answered = j->ended = 0;
    rt_status status =
        rt_generate(j->models[j->student].model, j->tokenizer, prompts, j->n_prompts, &options, &stats, err);
    free(prompts);
    if (status == RT_STOPPED)
        status = rt_error_set(err, RT_STOPPED,
                              "stopped before the students had answered; there are no figures of their own "
                              "text, start it again for them");
    return status;
}

/* The answers become a text; a document without a target (an empty answer that did not end) has no tokens. */
static rt_status read_said(own_judging *j, rt_eval_text *text, rt_error *err)
{
    uint8_t *mask = malloc(j->longest + 2);
    if (!mask)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an answer");
    rt_status status = RT_OK;
    for (size_t i = 0; i < j->n_prompts && status == RT_OK; i++) {
        const size_t n = rt_documents_prompt(j->docs, j->documents[i]);
        memset(mask, 0, n);
        memset(mask + n, 1, j->n_said[i] - n);
        status = rt_documents_add(&text->docs, j->said[i], mask, j->n_said[i], err);
    }
    free(mask);
    return status;
}

static rt_status judge_student(own_judging *j, rt_eval_own_figures *figures, rt_error *err)
{
    rt_eval_text text = {0};
    rt_eval_result result;
    eval_record *records = NULL;
    const rt_eval_model pair[2] = {j->models[0], j->models[j->student]};
    const rt_eval_options options = {.n_vocab = j->options->n_vocab,
                                     .batch_tokens = j->options->batch_tokens};
    rt_status status = ask(j, err);
    if (status == RT_OK)
        status = read_said(j, &text, err);
    if (status == RT_OK)
        status = rt_eval_gather(&result, &records, pair, 2, &text, &options, err);
    for (size_t i = 0; i < j->n_prompts && status == RT_OK; i++) {
        j->sums[j->student * j->n_prompts + i] = records[j->n_prompts + i].sum;
        rt_metrics_add(&figures->total, &records[j->n_prompts + i].sum);
    }
    figures->ended = j->ended;
    for (size_t i = 0; i < j->n_prompts; i++) {
        free(j->said[i]);
        j->said[i] = NULL;
    }
    free(records);
    rt_eval_text_deinit(&text);
    return status;
}

static rt_interval alone(double value) { return (rt_interval){value, (double)NAN, (double)NAN}; }

static void fill_figures(const own_judging *j, rt_eval_own_result *r, const uint32_t *draws, double *scratch)
{
    static const rt_metrics_figure reverse = rt_metrics_kl_reverse, forward = rt_metrics_kl_forward,
                                   top1 = rt_metrics_top1_agree;
    const rt_metrics_sum *first = j->sums + j->n_prompts;
    const size_t n = j->n_prompts, k = r->resamples;
    for (size_t m = 1; m < j->n_models; m++) {
        rt_eval_own_figures *f = &r->figures[m];
        const rt_metrics_sum *sums = j->sums + m * n;
        if (n < 2) { /* no interval of a single prompt */
            const rt_metrics_sum *one = &r->figures[1].total;
            f->kl_student_teacher = alone(reverse(&f->total));
            f->kl_teacher_student = alone(forward(&f->total));
            f->top1 = alone(top1(&f->total));
            f->difference = alone(reverse(&f->total) - reverse(one));
            f->forward_difference = alone(forward(&f->total) - forward(one));
            continue;
        }
        f->kl_student_teacher = rt_bootstrap_figure(reverse, sums, n, draws, k, scratch);
        f->kl_teacher_student = rt_bootstrap_figure(forward, sums, n, draws, k, scratch);
        f->top1 = rt_bootstrap_figure(top1, sums, n, draws, k, scratch);
        f->difference = rt_bootstrap_difference(reverse, sums, first, n, draws, k, scratch);
        f->forward_difference = rt_bootstrap_difference(forward, sums, first, n, draws, k, scratch);
    }
}

static rt_status summarise(const own_judging *j, rt_eval_own_result *r, rt_error *err)
{
    size_t n_drawn;
    uint32_t *draws = NULL;
    double *scratch = calloc(r->resamples, sizeof *scratch);
    if (rt_size_mul(j->n_prompts, r->resamples, &n_drawn))
        draws = calloc(n_drawn, sizeof *draws);
    const bool ok = draws && scratch;
    if (ok) {
        rt_bootstrap_draw(draws, j->n_prompts, r->resamples, j->options->seed);
        fill_figures(j, r, draws, scratch);
    }
    free(draws);
    free(scratch);
    return ok ? RT_OK
              : rt_error_set(err, RT_NO_MEMORY,
                             "no memory to draw %zu prompts %zu times; take fewer --resamples", j->n_prompts,
                             r->resamples);
}

static rt_status judge_all(own_judging *j, rt_eval_own_result *r, rt_error *err)
{
    if (choose(j, err) != RT_OK)
        return err->status;
    j->said = calloc(j->n_prompts, sizeof *j->said);
    j->n_said = calloc(j->n_prompts, sizeof *j->n_said);
    j->sums = calloc(j->n_models * j->n_prompts, sizeof *j->sums);
    r->figures = calloc(j->n_models, sizeof *r->figures);
    if (!j->said || !j->n_said || !j->sums || !r->figures)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the answers to %zu prompts", j->n_prompts);
    for (j->student = 1; j->student < j->n_models; j->student++)
        if (judge_student(j, &r->figures[j->student], err) != RT_OK)
            return rt_error_within(err, j->models[j->student].name);
    return summarise(j, r, err);
}

rt_status rt_eval_own(rt_eval_own_result *out, const rt_eval_model *models, size_t n_models,
                      const rt_eval_text *text, const rt_tokenizer *tokenizer, size_t answer_max,
                      const rt_eval_options *options, rt_error *err)
{
    own_judging j = {.models = models,
                     .tokenizer = tokenizer,
                     .docs = &text->docs,
                     .options = options,
                     .answer_max = answer_max,
                     .n_models = n_models};
    rt_eval_own_result r = {.models = models,
                            .n_models = n_models,
                            .answer_max = answer_max,
                            .resamples = options->resamples ? options->resamples : 1000};
    *out = (rt_eval_own_result){0};
    const rt_status status = judge_all(&j, &r, err);
    r.n_prompts = j.n_prompts;
    free(j.documents);
    free(j.said);
    free(j.n_said);
    free(j.sums);
    if (status != RT_OK) {
        rt_eval_own_deinit(&r);
        return status;
    }
    *out = r;
    return RT_OK;
}

void rt_eval_own_deinit(rt_eval_own_result *result)
{
    free(result->figures);
    *result = (rt_eval_own_result){0};
}

json_t *rt_eval_own_json(const rt_eval_own_result *r)
{
    json_t *models = json_object(), *differences = json_array();
    for (size_t m = 1; m < r->n_models; m++) {
        const rt_eval_own_figures *f = &r->figures[m];
        (void)json_object_set_new(models, r->models[m].name,
                                  json_pack("{s:o, s:o, s:o, s:I, s:I}", "kl_student_teacher",
                                            rt_interval_json(&f->kl_student_teacher), "kl_teacher_student",
                                            rt_interval_json(&f->kl_teacher_student), "top1",
                                            rt_interval_json(&f->top1), "tokens", (json_int_t)f->total.tokens,
                                            "ended", (json_int_t)f->ended));
        if (m > 1)
            (void)json_array_append_new(differences,
                                        json_pack("{s:s, s:s, s:o, s:o}", "model", r->models[m].name, "less",
                                                  r->models[1].name, "kl_student_teacher",
                                                  rt_interval_json(&f->difference), "kl_teacher_student",
                                                  rt_interval_json(&f->forward_difference)));
    }
    if (json_object_size(models) + 1 != r->n_models) { /* one could not be allocated */
        json_decref(models);
        json_decref(differences);
        return NULL;
    }
    return json_pack("{s:I, s:I, s:I, s:o, s:o}", "prompts", (json_int_t)r->n_prompts, "answer_max",
                     (json_int_t)r->answer_max, "resamples", (json_int_t)r->resamples, "models", models,
                     "differences", differences);
}
