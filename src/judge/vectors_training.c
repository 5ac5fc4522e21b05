/* judge/vectors_training.c - cases of the optimiser and the schedules. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "judge/vectors_case.h"
#include "student/optimiser.h"
#include "student/schedule.h"

typedef struct parameter { /* one tensor under AdamW */
    size_t n;
    float *master, *m, *v, *grad;
    rt_bf16 *weights;
} parameter;

static rt_status load_parameter(vec_run *run, const char *role, parameter *p, rt_error *err)
{
    vec_array start;
    *p = (parameter){0};
    if (vec_tensor(run, "in", role, &start, err) != RT_OK ||
        vec_floats(run, &start, &p->master, err) != RT_OK)
        return err->status;
    p->n = start.n;
    if (vec_room(run, &p->m, p->n, sizeof(float), err) != RT_OK ||
        vec_room(run, &p->v, p->n, sizeof(float), err) != RT_OK ||
        vec_room(run, &p->weights, p->n, sizeof(rt_bf16), err) != RT_OK)
        return err->status;
    return RT_OK;
}

static rt_status check_floats(vec_run *run, const char *role, const float *x, size_t n, rt_error *err)
{
    vec_array ref;
    if (!vec_has(run, "out", role))
        return RT_OK;
    if (vec_tensor_sized(run, "out", role, n, &ref, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < n; i++)
        vec_check(run, (double)x[i], ref.x[i], vec_tol_grad);
    return RT_OK;
}

/* The bf16 weights must be the rounding of a master within the tolerance of the right one. */
static rt_status check_rounded(vec_run *run, const char *role, const parameter *p, rt_error *err)
{
    vec_array ref;
    if (!vec_has(run, "out", role))
        return RT_OK;
    if (vec_tensor_sized(run, "out", role, p->n, &ref, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < p->n; i++) {
        const float slack = (float)vec_tol_grad * (1 + fabsf(p->master[i]));
        const double lo = (double)rt_bf16_to_f32(rt_f32_to_bf16(p->master[i] - slack));
        const double hi = (double)rt_bf16_to_f32(rt_f32_to_bf16(p->master[i] + slack));
        vec_check_true(run,
                       p->weights[i] == rt_f32_to_bf16(p->master[i]) && ref.x[i] >= lo && ref.x[i] <= hi);
    }
    return RT_OK;
}

/* The roles of a parameter: numbered ones p0, g1.0, step1.p0, m0, v0; a single one, in bf16 with a float32
 * master, p, g1, master1, p1. */
static void role_of(char role[48], const char *numbered, const char *single, uint64_t step, int number)
{
    const char *format = number < 0 ? single : numbered;
    size_t n = 0;
    for (const char *c = format; *c && n < 24; c++) { /* S: the step, N: the parameter's number */
        if (*c == 'S' || *c == 'N')
            n += (size_t)snprintf(role + n, 48 - n, "%u", *c == 'S' ? (unsigned)step : (unsigned)number);
        else
            role[n++] = *c;
    }
    role[n] = '\0';
}

static uint64_t steps_of(const vec_run *run, int number)
{
    char role[48];
    uint64_t steps = 0;
    do
        role_of(role, "gS.N", "gS", ++steps, number);
    while (steps < 1000 && vec_has(run, "in", role));
    return steps - 1;
}

/* In vectors that kept a view of the parameter instead of a copy, every step's tensor holds the last step's
 * values: then only the last step can be compared. */
static rt_status all_steps_equal(vec_run *run, uint64_t steps, int number, bool *equal, rt_error *err)
{
    char role[48];
    vec_array first = {0}, next;
    *equal = steps > 1;
    for (uint64_t s = 1; s <= steps && *equal; s++) {
        role_of(role, "stepS.pN", "masterS", s, number);
        if (vec_tensor(run, "out", role, &next, err) != RT_OK)
            return err->status;
        first = s == 1 ? next : first;
        *equal = next.n == first.n && memcmp(next.x, first.x, next.n * sizeof *next.x) == 0;
    }
    return RT_OK;
}

static rt_status check_step(vec_run *run, const parameter *p, uint64_t step, int number, bool master_too,
                            rt_error *err)
{
    char role[48];
    role_of(role, "stepS.pN", "masterS", step, number);
    if (master_too && check_floats(run, role, p->master, p->n, err) != RT_OK)
        return err->status;
    role_of(role, "", "pS", step, number);
    return check_rounded(run, role, p, err);
}

static rt_status run_parameter(vec_run *run, const rt_adamw_options *options, int number, rt_error *err)
{
    char role[48];
    parameter p;
    vec_array g;
    bool only_last;
    const uint64_t steps = steps_of(run, number);
    role_of(role, "pN", "p", 0, number);
    if (load_parameter(run, role, &p, err) != RT_OK ||
        all_steps_equal(run, steps, number, &only_last, err) != RT_OK)
        return err->status;
    for (uint64_t s = 1; s <= steps; s++) {
        role_of(role, "gS.N", "gS", s, number);
        if (vec_tensor_sized(run, "in", role, p.n, &g, err) != RT_OK ||
            vec_floats(run, &g, &p.grad, err) != RT_OK)
            return err->status;
        const rt_adamw_step step = rt_adamw_step_make(options, s, 1, 1);
        rt_adamw_update(&step, p.grad, p.master, p.m, p.v, p.weights, 0, p.n);
        if (check_step(run, &p, s, number, s == steps || !only_last, err) != RT_OK)
            return err->status;
    }
    role_of(role, "mN", "m", 0, number);
    if (check_floats(run, role, p.m, p.n, err) != RT_OK)
        return err->status;
    role_of(role, "vN", "v", 0, number);
    return check_floats(run, role, p.v, p.n, err);
}

static rt_status adamw(vec_run *run, rt_error *err)
{
    const json_t *betas = json_object_get(json_object_get(run->entry, "params"), "betas");
    const rt_adamw_options options = {.lr = vec_param(run, "lr", 0),
                                      .beta1 = json_number_value(json_array_get(betas, 0)),
                                      .beta2 = json_number_value(json_array_get(betas, 1)),
                                      .eps = vec_param(run, "eps", 1e-8),
                                      .weight_decay = vec_param(run, "weight_decay", 0)};
    if (vec_has(run, "in", "p"))
        return run_parameter(run, &options, -1, err);
    for (int i = 0; i < 1000; i++) {
        char role[32];
        (void)snprintf(role, sizeof role, "p%d", i);
        if (!vec_has(run, "in", role))
            break;
        if (run_parameter(run, &options, i, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status clip(vec_run *run, rt_error *err)
{
    enum { TENSORS_MAX = 64 };
    vec_array g[TENSORS_MAX], c;
    double sums[TENSORS_MAX], norm;
    size_t count = 0;
    char role[32];
    if (vec_number(run, "out", "norm", &norm, err) != RT_OK)
        return err->status;
    for (; count < TENSORS_MAX; count++) {
        float *x;
        (void)snprintf(role, sizeof role, "g%zu", count);
        if (!vec_has(run, "in", role))
            break;
        if (vec_tensor(run, "in", role, &g[count], err) != RT_OK ||
            vec_floats(run, &g[count], &x, err) != RT_OK)
            return err->status;
        if (rt_norm_chunks(g[count].n) > 1)
            return vec_bad(run, err, "in.%s has more values than are compared here", role);
        sums[count] = rt_norm_chunk(x, g[count].n, 0);
    }
    const double total = rt_norm_total(sums, count);
    const double factor = rt_clip_factor(total, vec_param(run, "max_norm", 0));
    vec_check(run, total, norm, vec_tol_double);
    for (size_t k = 0; k < count; k++) {
        (void)snprintf(role, sizeof role, "c%zu", k);
        if (vec_tensor_sized(run, "out", role, g[k].n, &c, err) != RT_OK)
            return err->status;
        for (size_t i = 0; i < c.n; i++)
            vec_check(run, factor * g[k].x[i], c.x[i], vec_tol_double);
    }
    return RT_OK;
}

/* "cosine", "cosine_floor0.1", "linear", "wsd_sqrt", ... */
static bool schedule_from_name(const char *name, rt_schedule *s)
{
    char words[64], *rest = NULL;
    (void)snprintf(words, sizeof words, "%s", name);
    const char *word = strtok_r(words, "_", &rest);
    if (!word || !rt_schedule_kind_from_name(&s->kind, word))
        return false;
    while ((word = strtok_r(NULL, "_", &rest)) != NULL) {
        char *end;
        if (strncmp(word, "floor", 5) == 0) {
            s->floor = strtod(word + 5, &end);
            if (*end || end == word + 5)
                return false;
        } else if (s->kind != RT_SCHEDULE_WSD || !rt_decay_shape_from_name(&s->shape, word)) {
            return false;
        }
    }
    return true;
}

static rt_status schedules(vec_run *run, bool *covered, rt_error *err)
{
    const json_t *all = json_object_get(run->entry, "multiplier");
    const double warmup = vec_param(run, "warmup", 0), total = vec_param(run, "total", 0);
    const double decay = vec_param(run, "wsd_decay", 0);
    if (!json_is_object(all) ||
        !(warmup >= 0 && warmup < 1e15 && total >= 0 && total < 1e15 && decay >= 0 && decay < 1e15))
        return vec_bad(run, err, "has no multipliers, or steps that are no counts");
    const char *name;
    json_t *values;
    json_object_foreach((json_t *)(size_t)all, name, values)
    {
        rt_schedule s = {.warmup = (uint64_t)warmup, .total = (uint64_t)total, .decay = (uint64_t)decay};
        if (!schedule_from_name(name, &s)) {
            *covered = false;
            return RT_OK;
        }
        for (size_t i = 0; i < json_array_size(values); i++)
            vec_check(run, rt_schedule_at(&s, i), json_number_value(json_array_get(values, i)),
                      vec_tol_double);
    }
    return RT_OK;
}

static rt_status taid(vec_run *run, rt_error *err)
{
    const json_t *losses = json_object_get(run->entry, "losses"), *t = json_object_get(run->entry, "t");
    const double total = vec_param(run, "total", 0);
    if (json_array_size(losses) != json_array_size(t) || !(total >= 1 && total < 1e15))
        return vec_bad(run, err, "has not one weight for each loss, or no total");
    rt_taid a =
        rt_taid_make(vec_param(run, "t_start", 0.4), vec_param(run, "t_end", 1),
                     vec_param(run, "alpha", 5e-4), vec_param(run, "momentum", 0.99), (uint64_t)total);
    for (size_t i = 0; i < json_array_size(t); i++) {
        vec_check(run, a.t, json_number_value(json_array_get(t, i)), vec_tol_double);
        rt_taid_observe(&a, json_number_value(json_array_get(losses, i)));
    }
    return RT_OK;
}

rt_status vec_training(vec_run *run, bool *covered, rt_error *err)
{
    if (strcmp(run->loss, "adamw") == 0)
        return adamw(run, err);
    if (strcmp(run->loss, "clip") == 0)
        return clip(run, err);
    if (strcmp(run->loss, "schedule") == 0)
        return schedules(run, covered, err);
    return taid(run, err);
}
