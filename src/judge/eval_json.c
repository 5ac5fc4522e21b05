/* judge/eval_json.c - the result as docs/report-format.md describes eval.json.
 */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "judge/eval.h"

static const char *const figure_names[RT_EVAL_FIGURES] = {
#define RT_EVAL_FIGURE_NAME(name, figure, text) #name,
    RT_EVAL_FIGURE_MAP(RT_EVAL_FIGURE_NAME)
#undef RT_EVAL_FIGURE_NAME
};

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

/* The more is accepted, the more tokens: the interval's ends go over. */
static json_t *rounds_json(const rt_interval *acceptance)
{
    const rt_interval rounds = {.value = rt_tokens_per_round(acceptance->value, RT_EVAL_DRAFTS),
                                .lo = rt_tokens_per_round(acceptance->lo, RT_EVAL_DRAFTS),
                                .hi = rt_tokens_per_round(acceptance->hi, RT_EVAL_DRAFTS)};
    return rt_interval_json(&rounds);
}

static json_t *positions_json(const rt_eval_figures *f, size_t longest)
{
    json_t *list = json_array();
    for (size_t b = 0; b < RT_EVAL_POSITIONS; b++) {
        const rt_eval_group *g = &f->positions[b];
        size_t from, to;
        rt_eval_position_bin(b, longest, &from, &to);
        if (!(g->tokens > 0))
            continue;
        (void)json_array_append_new(
            list, json_pack("{s:I,s:I,s:I,s:o,s:o,s:o,s:o,s:o}", "from", (json_int_t)from, "to",
                            (json_int_t)to, "tokens", (json_int_t)g->tokens, "top1", number(g->top1.value),
                            "low", number(g->top1.lo), "high", number(g->top1.hi), "kl",
                            rt_interval_json(&g->kl), "acceptance", rt_interval_json(&g->acceptance)));
    }
    return list;
}

static json_t *kinds_json(const rt_eval_figures *f)
{
    json_t *list = json_array();
    for (size_t k = 0; k < RT_KIND_COUNT; k++) {
        const rt_eval_group *g = &f->kinds[k];
        if (!(g->tokens > 0))
            continue;
        (void)json_array_append_new(
            list, json_pack("{s:s,s:I,s:o,s:o,s:o}", "kind", rt_token_kind_name((rt_token_kind)k), "tokens",
                            (json_int_t)g->tokens, "kl", rt_interval_json(&g->kl), "acceptance",
                            rt_interval_json(&g->acceptance), "top1", rt_interval_json(&g->top1)));
    }
    return list;
}

static json_t *reliability_json(const rt_metrics_sum *sum)
{
    json_t *list = json_array();
    for (size_t b = 0; b < RT_ECE_BINS; b++) {
        const double n = sum->bin_count[b];
        if (n > 0)
            (void)json_array_append_new(
                list, json_pack("{s:o,s:o,s:I}", "confidence", number(sum->bin_confidence[b] / n), "accuracy",
                                number(sum->bin_correct[b] / n), "count", (json_int_t)n));
    }
    return list;
}

static const char *precision_name(rt_precision precision)
{
    return precision == RT_PRECISION_F32 ? "f32" : precision == RT_PRECISION_INT8 ? "int8" : "bf16";
}

static json_t *model_json(const rt_eval_result *r, size_t m)
{
    const rt_eval_figures *f = &r->figures[m];
    const rt_eval_model *model = &r->models[m];
    json_t *out = json_object();
    (void)json_object_set_new(out, "label", rt_json_text(model->label, strlen(model->label)));
    for (size_t i = 0; i < RT_EVAL_FIGURES; i++)
        (void)json_object_set_new(out, figure_names[i], rt_interval_json(&f->figures[i]));
    (void)json_object_set_new(out, "tokens_per_round", rounds_json(&f->figures[RT_EVAL_acceptance]));
    if (model->shortlist)
        (void)json_object_set_new(out, "draft_ids", json_integer((json_int_t)model->shortlist->n));
    if (m)
        (void)json_object_set_new(out, "nll_above_teacher", rt_interval_json(&f->nll_above_teacher));
    if (isfinite(f->decode_tokens_per_s))
        (void)json_object_set_new(out, "decode_tokens_per_s", json_real(f->decode_tokens_per_s));
    (void)json_object_set_new(out, "bytes", json_integer((json_int_t)model->file_bytes));
    (void)json_object_set_new(out, "memory_bytes", json_integer((json_int_t)f->memory_bytes));
    (void)json_object_set_new(out, "precision", json_string(precision_name(model->model->precision)));
    (void)json_object_set_new(out, "parameters",
                              json_integer((json_int_t)rt_model_config_parameters(&model->model->config)));
    (void)json_object_set_new(out, "by_position", positions_json(f, r->longest));
    if (r->has_kinds)
        (void)json_object_set_new(out, "by_kind", kinds_json(f));
    (void)json_object_set_new(out, "reliability", reliability_json(&f->total));
    return out;
}

static json_t *differences_json(const rt_eval_result *r)
{
    json_t *list = json_array();
    for (size_t m = 2; m < r->n_models; m++)
        (void)json_array_append_new(
            list, json_pack("{s:s,s:s,s:o,s:o}", "model", r->models[m].name, "less", r->models[1].name,
                            "kl_teacher_student", rt_interval_json(&r->figures[m].kl_difference),
                            "acceptance", rt_interval_json(&r->figures[m].acceptance_difference)));
    return list;
}

json_t *rt_eval_json(const rt_eval_result *r)
{
    json_t *models = json_object();
    for (size_t m = 0; m < r->n_models; m++)
        (void)json_object_set_new(models, r->models[m].name, model_json(r, m));
    json_t *out = json_pack("{s:I,s:I,s:I,s:f,s:I,s:I,s:I,s:o}", "documents", (json_int_t)r->n_docs, "tokens",
                            (json_int_t)r->n_targets, "tokens_read", (json_int_t)r->n_tokens, "interval",
                            0.95, "resamples", (json_int_t)r->resamples, "seed", (json_int_t)r->seed,
                            "n_vocab", (json_int_t)r->n_vocab, "models", models);
    if (out && r->n_models > 2)
        (void)json_object_set_new(out, "differences", differences_json(r));
    if (out && json_object_size(models) != r->n_models) { /* one could not be allocated */
        json_decref(out);
        return NULL;
    }
    return out;
}
