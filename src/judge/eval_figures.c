/* judge/eval_figures.c - figures and their intervals from the documents' sums.
 *
 * A draw of documents gives one value of every figure of every model; a task makes one draw, so that draws
 * are shared out over threads and each value has one place.  An interval is widened where needed to hold its
 * own figure: calibration error is a mean of absolute values, which drawing again tends to raise. */
#include <math.h>
#include <stdlib.h>

#include "base/size.h"
#include "judge/eval_internal.h"

static const rt_metrics_figure figure_of[RT_EVAL_FIGURES] = {
#define RT_EVAL_FIGURE_FUNCTION(name, figure, text) figure,
    RT_EVAL_FIGURE_MAP(RT_EVAL_FIGURE_FUNCTION)
#undef RT_EVAL_FIGURE_FUNCTION
};

/* Of a model: the figures, then three of each group. */
enum { GROUP_VALUES = 3, VALUES = RT_EVAL_FIGURES + EVAL_GROUPS * GROUP_VALUES };

typedef struct bootstrap {
    const eval_record *records; /* [n_models][n_docs] */
    size_t n_models, n_docs, n_resamples;
    const uint32_t *resamples; /* [n_resamples][n_docs] */
    double *values;            /* [n_models][VALUES][n_resamples]; NAN: no such token was drawn */
    double *scratch;           /* [n_resamples] */
} bootstrap;

static void add_record(eval_record *sum, const eval_record *other)
{
    rt_metrics_add(&sum->sum, &other->sum);
    for (size_t g = 0; g < EVAL_GROUPS; g++) {
        sum->groups[g].tokens += other->groups[g].tokens;
        sum->groups[g].kl += other->groups[g].kl;
        sum->groups[g].tvd += other->groups[g].tvd;
        sum->groups[g].top1 += other->groups[g].top1;
    }
}

static void values_of(double out[VALUES], const eval_record *sum)
{
    const bool any = sum->sum.tokens > 0;
    for (size_t f = 0; f < RT_EVAL_FIGURES; f++)
        out[f] = any ? figure_of[f](&sum->sum) : (double)NAN;
    for (size_t g = 0; g < EVAL_GROUPS; g++) {
        const eval_group_sum *s = &sum->groups[g];
        double *group = out + RT_EVAL_FIGURES + g * GROUP_VALUES;
        group[0] = s->tokens > 0 ? s->kl / s->tokens : (double)NAN;
        group[1] = s->tokens > 0 ? 1 - s->tvd / s->tokens : (double)NAN;
        group[2] = s->tokens > 0 ? s->top1 / s->tokens : (double)NAN;
    }
}

static void draw_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const bootstrap *b = context;
    const size_t model = index / b->n_resamples, draw = index % b->n_resamples;
    const uint32_t *docs = b->resamples + draw * b->n_docs;
    eval_record sum = {0};
    double values[VALUES];
    for (size_t i = 0; i < b->n_docs; i++)
        add_record(&sum, &b->records[model * b->n_docs + docs[i]]);
    values_of(values, &sum);
    for (size_t v = 0; v < VALUES; v++)
        b->values[(model * VALUES + v) * b->n_resamples + draw] = values[v];
}

/* The interval of scratch[0..n) around value; draws without the token are left out. */
static rt_interval interval(const bootstrap *b, double value)
{
    size_t n = 0;
    for (size_t r = 0; r < b->n_resamples; r++)
        if (!isnan(b->scratch[r]))
            b->scratch[n++] = b->scratch[r];
    if (n == 0 || b->n_docs < 2)
        return (rt_interval){.value = value, .lo = (double)NAN, .hi = (double)NAN};
    rt_interval out = rt_interval_make(value, b->scratch, n);
    out.lo = fmin(out.lo, value);
    out.hi = fmax(out.hi, value);
    return out;
}

static rt_interval interval_of(const bootstrap *b, size_t model, size_t v, double value)
{
    const double *draws = b->values + (model * VALUES + v) * b->n_resamples;
    for (size_t r = 0; r < b->n_resamples; r++)
        b->scratch[r] = draws[r];
    return interval(b, value);
}

static rt_interval difference_of(const bootstrap *b, size_t model, size_t other, size_t v, double value)
{
    const double *a = b->values + (model * VALUES + v) * b->n_resamples;
    const double *o = b->values + (other * VALUES + v) * b->n_resamples;
    for (size_t r = 0; r < b->n_resamples; r++)
        b->scratch[r] = a[r] - o[r];
    return interval(b, value);
}

/* Mean nll is the log of perplexity, in each draw too. */
static rt_interval nll_above_teacher(const bootstrap *b, size_t model, const rt_eval_figures *figures)
{
    const size_t v = RT_EVAL_perplexity;
    const double *own = b->values + (model * VALUES + v) * b->n_resamples,
                 *teacher = b->values + v * b->n_resamples;
    for (size_t r = 0; r < b->n_resamples; r++)
        b->scratch[r] = log(own[r] / teacher[r]);
    return interval(b, log(figures[model].figures[v].value / figures[0].figures[v].value));
}

static void fill_group(rt_eval_group *out, const bootstrap *b, size_t model, size_t g,
                       const eval_group_sum *sum, const double *values)
{
    const size_t v = RT_EVAL_FIGURES + g * GROUP_VALUES;
    *out =
        (rt_eval_group){.tokens = sum->tokens, .kl_sum = sum->kl, .tvd_sum = sum->tvd, .top1_sum = sum->top1};
    if (!(sum->tokens > 0))
        return;
    out->kl = interval_of(b, model, v, values[v]);
    out->acceptance = interval_of(b, model, v + 1, values[v + 1]);
    out->top1 = interval_of(b, model, v + 2, values[v + 2]);
}

static void fill_figures(rt_eval_result *result, const bootstrap *b)
{
    for (size_t m = 0; m < b->n_models; m++) {
        rt_eval_figures *out = &result->figures[m];
        eval_record sum = {0};
        double values[VALUES];
        for (size_t d = 0; d < b->n_docs; d++)
            add_record(&sum, &b->records[m * b->n_docs + d]);
        values_of(values, &sum);
        out->total = sum.sum;
        for (size_t f = 0; f < RT_EVAL_FIGURES; f++)
            out->figures[f] = interval_of(b, m, f, values[f]);
        for (size_t g = 0; g < EVAL_GROUPS; g++)
            fill_group(g < RT_EVAL_POSITIONS ? &out->positions[g] : &out->kinds[g - RT_EVAL_POSITIONS], b, m,
                       g, &sum.groups[g], values);
    }
    for (size_t m = 1; m < b->n_models; m++)
        result->figures[m].nll_above_teacher = nll_above_teacher(b, m, result->figures);
    for (size_t m = 2; m < b->n_models; m++) {
        rt_eval_figures *first = &result->figures[1], *out = &result->figures[m];
        const rt_eval_figure_id kl = RT_EVAL_kl_teacher_student, acceptance = RT_EVAL_acceptance;
        out->kl_difference = difference_of(b, m, 1, kl, out->figures[kl].value - first->figures[kl].value);
        out->acceptance_difference = difference_of(
            b, m, 1, acceptance, out->figures[acceptance].value - first->figures[acceptance].value);
    }
}

rt_status rt_eval_summarise(rt_eval_result *result, const eval_record *records, rt_pool *pool, rt_error *err)
{
    const size_t models = result->n_models, docs = result->n_docs, draws = result->resamples;
    size_t n_drawn, n_values;
    uint32_t *resamples = NULL;
    bootstrap b = {.records = records, .n_models = models, .n_docs = docs, .n_resamples = draws};
    if (rt_size_mul(docs, draws, &n_drawn) && rt_size_mul(models * VALUES, draws, &n_values)) {
        resamples = calloc(n_drawn, sizeof *resamples);
        b.values = calloc(n_values, sizeof *b.values);
        b.scratch = calloc(draws, sizeof *b.scratch);
    }
    const bool ok = resamples && b.values && b.scratch;
    if (ok) {
        b.resamples = resamples;
        rt_bootstrap_draw(resamples, docs, draws, result->seed);
        rt_pool_run(pool, models * draws, draw_task, &b);
        fill_figures(result, &b);
    }
    free(resamples);
    free(b.values);
    free(b.scratch);
    return ok ? RT_OK
              : rt_error_set(err, RT_NO_MEMORY,
                             "no memory to draw %zu documents %zu times; take fewer "
                             "--resamples",
                             docs, draws);
}
