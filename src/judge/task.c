/* judge/task.c - see task.h. */
#include "judge/task.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"

enum { RESAMPLES = 2000 };

double rt_pass_at(size_t n, size_t c, size_t k)
{
    if (n - c < k)
        return 1;
    double none = 1;
    for (size_t i = 0; i < k; i++)
        none *= (double)(n - c - i) / (double)(n - i);
    return 1 - none;
}

typedef struct tally { /* one problem */
    size_t problem, n, right;
    bool majority; /* the most frequent final answer is right */
} tally;

/* The first of the answers [first, end) of one problem that are said most often.  Answers without a final one
 * do not vote. */
static bool majority_right(const rt_task_answer *const *list, size_t n)
{
    size_t best = 0;
    bool right = false;
    for (size_t i = 0; i < n; i++) {
        size_t votes = 0;
        if (!list[i]->final[0])
            continue;
        for (size_t k = 0; k < n; k++)
            votes += strcmp(list[k]->final, list[i]->final) == 0;
        if (votes > best) {
            best = votes;
            right = list[i]->verdict == RT_VERDICT_RIGHT;
        }
    }
    return right;
}

static int by_problem(const void *a, const void *b)
{
    const rt_task_answer *x = *(const rt_task_answer *const *)a, *y = *(const rt_task_answer *const *)b;
    if (x->problem != y->problem)
        return x->problem < y->problem ? -1 : 1;
    return x < y ? -1 : x > y; /* the order in which they were said */
}

typedef struct work {
    const rt_task_answer **sorted; /* [n] */
    tally *tallies;                /* [problems with an answer] */
    uint32_t *resamples;
    double *num, *den, *out;
    size_t count;
} work;

static rt_status open_work(work *w, size_t n, size_t problems, rt_error *err)
{
    w->sorted = calloc(rt_size_max(n, 1), sizeof *w->sorted);
    w->tallies = calloc(rt_size_max(problems, 1), sizeof *w->tallies);
    w->resamples = calloc(rt_size_max(problems, 1) * RESAMPLES, sizeof *w->resamples);
    w->num = calloc(rt_size_max(problems, 1), sizeof *w->num);
    w->den = calloc(rt_size_max(problems, 1), sizeof *w->den);
    w->out = calloc(RESAMPLES, sizeof *w->out);
    return w->sorted && w->tallies && w->resamples && w->num && w->den && w->out
               ? RT_OK
               : rt_error_set(err, RT_NO_MEMORY, "no memory for the figures of %zu answers", n);
}

static void close_work(work *w)
{
    free(w->sorted);
    free(w->tallies);
    free(w->resamples);
    free(w->num);
    free(w->den);
    free(w->out);
}

/* Mean of num over den of the problems, as w holds them. */
static rt_interval interval(work *w)
{
    double num = 0, den = 0;
    for (size_t i = 0; i < w->count; i++) {
        num += w->num[i];
        den += w->den[i];
    }
    if (den == 0)
        return (rt_interval){0, 0, 0};
    rt_bootstrap_ratios(w->out, w->num, w->den, w->count, w->resamples, RESAMPLES);
    return rt_interval_make(num / den, w->out, RESAMPLES);
}

static void count_problems(work *w, rt_task_figures *out, const rt_task_answer *answers, size_t n)
{
    for (size_t i = 0; i < n; i++)
        w->sorted[i] = &answers[i];
    qsort(w->sorted, n, sizeof *w->sorted, by_problem);
    out->least = SIZE_MAX;
    for (size_t at = 0, end; at < n; at = end) {
        tally *t = &w->tallies[w->count++];
        t->problem = w->sorted[at]->problem;
        for (end = at; end < n && w->sorted[end]->problem == w->sorted[at]->problem; end++)
            t->right += w->sorted[end]->verdict == RT_VERDICT_RIGHT;
        t->n = end - at;
        t->majority = majority_right(w->sorted + at, t->n);
        out->least = rt_size_min(out->least, t->n);
        out->most = rt_size_max(out->most, t->n);
    }
    out->problems = w->count;
    out->least = w->count ? out->least : 0;
}

static rt_interval pass_at(work *w, size_t k)
{
    for (size_t i = 0; i < w->count; i++) {
        const tally *t = &w->tallies[i];
        w->den[i] = t->n >= k;
        w->num[i] = t->n >= k ? rt_pass_at(t->n, t->right, k) : 0;
    }
    return interval(w);
}

static void make_figures(work *w, rt_task_figures *out)
{
    for (size_t i = 0; i < w->count; i++) {
        w->den[i] = 1;
        w->num[i] = (double)w->tallies[i].right / (double)w->tallies[i].n;
    }
    out->accuracy = interval(w);
    for (size_t i = 0; i < w->count; i++)
        w->num[i] = w->tallies[i].majority;
    out->majority = interval(w);
    for (size_t k = 1; k < out->least && out->n_pass + 1 < RT_PASS_MAX; k *= 2)
        out->pass_k[out->n_pass++] = k;
    if (out->least)
        out->pass_k[out->n_pass++] = out->least;
    for (size_t i = 0; i < out->n_pass; i++)
        out->pass[i] = pass_at(w, out->pass_k[i]);
}

rt_status rt_task_count(rt_task_figures *out, const rt_task_answer *answers, size_t n, size_t n_problems,
                        uint64_t seed, rt_error *err)
{
    *out = (rt_task_figures){.answers = n};
    work w = {0};
    if (open_work(&w, n, rt_size_min(n, n_problems), err) != RT_OK) {
        close_work(&w);
        return err->status;
    }
    for (size_t i = 0; i < n; i++) {
        out->right += answers[i].verdict == RT_VERDICT_RIGHT;
        out->wrong += answers[i].verdict == RT_VERDICT_WRONG;
        out->none += answers[i].verdict == RT_VERDICT_NONE;
        out->stopped += answers[i].verdict == RT_VERDICT_STOPPED;
    }
    count_problems(&w, out, answers, n);
    if (w.count) {
        rt_bootstrap_draw(w.resamples, w.count, RESAMPLES, seed);
        make_figures(&w, out);
    }
    close_work(&w);
    return RT_OK;
}

/* Both arrays of tallies are in the order of problems: a->num and b->num become the differences. */
static void make_differences(work *a, work *b, rt_task_difference *out, uint64_t seed)
{
    size_t at = 0, both = 0;
    for (size_t i = 0; i < a->count; i++) {
        const tally *mine = &a->tallies[i];
        while (at < b->count && b->tallies[at].problem < mine->problem)
            at++;
        if (at == b->count || b->tallies[at].problem != mine->problem)
            continue;
        const tally *theirs = &b->tallies[at];
        a->den[both] = 1;
        a->num[both] = (double)mine->right / (double)mine->n - (double)theirs->right / (double)theirs->n;
        b->num[both++] = (double)mine->majority - (double)theirs->majority;
    }
    out->problems = a->count = both;
    if (!both)
        return;
    rt_bootstrap_draw(a->resamples, both, RESAMPLES, seed);
    out->accuracy = interval(a);
    memcpy(a->num, b->num, both * sizeof *a->num);
    out->majority = interval(a);
}

rt_status rt_task_compare(rt_task_difference *out, const rt_task_answer *answers, size_t n,
                          const rt_task_answer *before, size_t n_before, size_t n_problems, uint64_t seed,
                          rt_error *err)
{
    *out = (rt_task_difference){0};
    work a = {0}, b = {0};
    rt_task_figures unused = {0};
    rt_status status = open_work(&a, n, rt_size_min(n, n_problems), err);
    if (status == RT_OK)
        status = open_work(&b, n_before, n_problems, err);
    if (status == RT_OK) {
        count_problems(&a, &unused, answers, n);
        count_problems(&b, &unused, before, n_before);
        make_differences(&a, &b, out, seed);
    }
    close_work(&a);
    close_work(&b);
    return status;
}
