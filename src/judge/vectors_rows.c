/* judge/vectors_rows.c - cases of row losses: token by token, reduced over a batch, combined, and the notes.
 *
 * Each row goes through the reference in double (rt_loss_ref) and through the code that trains (rt_loss_row).
 */
#include <math.h>
#include <string.h>

#include "judge/vectors_case.h"
#include "student/loss.h"

typedef struct batch { /* the inputs of a case: rows of `width` logits, of which n_vocab are real */
    size_t rows, width, n_vocab;
    float *z, *zt;  /* zt may be NULL */
    size_t *labels; /* RT_LABEL_NONE without y */
    double *grad;   /* [n_vocab] of the reference */
    float *dz;      /* [width] of the trainer */
    void *work;
} batch;

static rt_status load_labels(vec_run *run, batch *b, rt_error *err)
{
    vec_array y = {0};
    if (vec_room(run, &b->labels, b->rows, sizeof *b->labels, err) != RT_OK ||
        (vec_has(run, "in", "y") && vec_tensor_sized(run, "in", "y", b->rows, &y, err) != RT_OK))
        return err->status;
    for (size_t t = 0; t < b->rows; t++) {
        if (y.x && !(y.x[t] >= 0 && y.x[t] < (double)b->n_vocab))
            return vec_bad(run, err, "label %zu is outside the vocabulary", t);
        b->labels[t] = y.x ? (size_t)y.x[t] : RT_LABEL_NONE;
    }
    return RT_OK;
}

static rt_status load_batch(vec_run *run, batch *b, rt_error *err)
{
    vec_array z, zt;
    *b = (batch){0};
    if (vec_tensor(run, "in", "z", &z, err) != RT_OK || vec_floats(run, &z, &b->z, err) != RT_OK)
        return err->status;
    if (z.n_dims < 1 || z.n == 0)
        return vec_bad(run, err, "in.z is empty");
    b->width = z.shape[z.n_dims - 1];
    b->rows = z.n / b->width;
    const double real = vec_param(run, "real_vocab", (double)b->width);
    if (!(real >= 1 && real <= (double)b->width))
        return vec_bad(run, err, "real_vocab is outside the row");
    b->n_vocab = (size_t)real;
    if (vec_has(run, "in", "zt") && (vec_tensor_sized(run, "in", "zt", z.n, &zt, err) != RT_OK ||
                                     vec_floats(run, &zt, &b->zt, err) != RT_OK))
        return err->status;
    unsigned char *work;
    if (load_labels(run, b, err) != RT_OK ||
        vec_room(run, &b->grad, b->width, sizeof(double), err) != RT_OK ||
        vec_room(run, &b->dz, b->width, sizeof(float), err) != RT_OK ||
        vec_room(run, &work, rt_loss_work_bytes(b->width), 1, err) != RT_OK)
        return err->status;
    b->work = work;
    return RT_OK;
}

static rt_status spec_of(const vec_run *run, const char *name, const batch *b, rt_loss_spec *spec,
                         rt_error *err)
{
    *spec = (rt_loss_spec){.tau = vec_param(run, "tau", 1),
                           .beta = vec_param(run, "beta", 0.5),
                           .alpha = vec_param(run, "alpha", 0),
                           .mu = vec_param(run, "mu", 0.5),
                           .t = vec_param(run, "t", 1),
                           .label_smoothing = vec_param(run, "label_smoothing", 0),
                           .z_loss = vec_param(run, "z_loss", 0)};
    if (!rt_loss_kind_from_name(&spec->kind, name))
        return vec_bad(run, err, "%.40s is no loss", name);
    const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, *spec}}};
    if (rt_loss_mix_check(&mix, err) != RT_OK)
        return rt_error_within(err, run->id);
    if ((rt_loss_mix_needs_teacher(&mix) && !b->zt) ||
        (rt_loss_mix_needs_label(&mix) && b->labels[0] == RT_LABEL_NONE))
        return vec_bad(run, err, "lacks zt or y");
    return RT_OK;
}

static const float *row_of(const float *x, const batch *b, size_t t) { return x ? x + t * b->width : NULL; }

/* Logits near 70,000 squared have no digits left for a plain float32 (README of the vectors). */
static double loosened(double tolerance, const rt_loss_spec *spec, const float *z, size_t n)
{
    float largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = isfinite(z[i]) && fabsf(z[i]) > largest ? fabsf(z[i]) : largest;
    return spec->kind == RT_LOSS_CE && spec->z_loss != 0 && largest > 1e4f ? 1e-3 : tolerance;
}

typedef struct expected { /* of a case that goes token by token */
    vec_array loss, grad, pick, l1, l2, finite;
} expected;

static rt_status load_expected(vec_run *run, const batch *b, expected *e, rt_error *err)
{
    *e = (expected){0};
    if (vec_tensor_sized(run, "out", "loss_tok", b->rows, &e->loss, err) != RT_OK)
        return err->status;
    if (vec_has(run, "out", "finite") &&
        vec_tensor_sized(run, "out", "finite", b->rows, &e->finite, err) != RT_OK)
        return err->status;
    if (!vec_has(run, "out", "grad_pick"))
        return vec_tensor_sized(run, "out", "grad", b->rows * b->width, &e->grad, err);
    if (vec_tensor(run, "in", "pick", &e->pick, err) != RT_OK ||
        vec_tensor_sized(run, "out", "grad_pick", b->rows * e->pick.n, &e->grad, err) != RT_OK ||
        vec_tensor_sized(run, "out", "grad_l1", b->rows, &e->l1, err) != RT_OK ||
        vec_tensor_sized(run, "out", "grad_l2", b->rows, &e->l2, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < e->pick.n; i++)
        if (!(e->pick.x[i] >= 0 && e->pick.x[i] < (double)b->width))
            return vec_bad(run, err, "in.pick holds an id outside the vocabulary");
    return RT_OK;
}

/* Gradient of row t, grad [width], against what the case stores of it. */
static void check_gradient(vec_run *run, const batch *b, const expected *e, size_t t, const double *grad,
                           double tolerance)
{
    if (e->grad.dtype == RT_F32 && tolerance < vec_tol_stored_f32)
        tolerance = vec_tol_stored_f32;
    if (!e->pick.x) {
        for (size_t i = 0; i < b->width; i++)
            vec_check(run, grad[i], e->grad.x[t * b->width + i], tolerance);
        return;
    }
    double l1 = 0, l2 = 0;
    for (size_t i = 0; i < b->width; i++) {
        l1 += fabs(grad[i]);
        l2 += grad[i] * grad[i];
    }
    for (size_t i = 0; i < e->pick.n; i++)
        vec_check(run, grad[(size_t)e->pick.x[i]], e->grad.x[t * e->pick.n + i], tolerance);
    vec_check(run, l1, e->l1.x[t], tolerance);
    vec_check(run, sqrt(l2), e->l2.x[t], tolerance);
}

static void check_row(vec_run *run, batch *b, const rt_loss_spec *spec, const expected *e, size_t t)
{
    const float *z = row_of(b->z, b, t), *zt = row_of(b->zt, b, t);
    const bool finite = !e->finite.x || e->finite.x[t] != 0;
    bool is_finite;
    memset(b->grad, 0, b->width * sizeof *b->grad);
    vec_check(run, rt_loss_ref(spec, z, zt, b->labels[t], b->n_vocab, b->grad, &is_finite, b->work),
              e->loss.x[t], vec_tol_double);
    vec_check_true(run, is_finite == finite);
    if (finite)
        check_gradient(run, b, e, t, b->grad, vec_tol_double);

    const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, *spec}}};
    rt_loss_stats stats;
    memset(b->dz, 0, b->width * sizeof *b->dz);
    rt_loss_row(&mix, z, zt, b->labels[t], b->n_vocab, 1, b->dz, NULL, &stats, b->work);
    vec_check(run, stats.loss, e->loss.x[t], loosened(vec_tol_loss, spec, z, b->n_vocab));
    vec_check_true(run, stats.finite == finite);
    for (size_t i = 0; i < b->width; i++)
        b->grad[i] = (double)b->dz[i];
    if (finite)
        check_gradient(run, b, e, t, b->grad, loosened(vec_tol_grad, spec, z, b->n_vocab));
}

static rt_status by_token(vec_run *run, rt_error *err)
{
    batch b;
    expected e;
    rt_loss_spec spec;
    if (load_batch(run, &b, err) != RT_OK || spec_of(run, run->loss, &b, &spec, err) != RT_OK ||
        load_expected(run, &b, &e, err) != RT_OK)
        return err->status;
    for (size_t t = 0; t < b.rows; t++)
        check_row(run, &b, &spec, &e, t);
    return RT_OK;
}

/* "token_mean_tau2" is token_mean with the factor tau^2. */
static rt_status reduction_of(const vec_run *run, rt_reduction *reduction, bool *tau2, rt_error *err)
{
    const char *text = vec_param_text(run, "reduction");
    char name[40] = {0};
    const size_t n = text ? strlen(text) : 0;
    *tau2 = n > 5 && strcmp(text + n - 5, "_tau2") == 0;
    if (n > 0 && n < sizeof name)
        memcpy(name, text, *tau2 ? n - 5 : n);
    if (!rt_reduction_from_name(reduction, name))
        return vec_bad(run, err, "has no reduction that is known here");
    return RT_OK;
}

typedef struct sequences { /* rows of a batch as sequences, with the mask */
    size_t count, length;
    double *mask; /* [count * length] */
    rt_step_counts totals;
} sequences;

static uint64_t tokens_of(const sequences *s, size_t sequence)
{
    uint64_t tokens = 0;
    for (size_t i = 0; i < s->length; i++)
        tokens += s->mask[sequence * s->length + i] != 0;
    return tokens;
}

static rt_status load_sequences(vec_run *run, const batch *b, sequences *s, rt_error *err)
{
    vec_array mask;
    if (!vec_has(run, "in", "mask")) { /* one sequence, all counts */
        *s = (sequences){.count = 1, .length = b->rows};
        if (vec_room(run, &s->mask, b->rows, sizeof(double), err) != RT_OK)
            return err->status;
        for (size_t t = 0; t < b->rows; t++)
            s->mask[t] = 1;
    } else {
        if (vec_tensor_sized(run, "in", "mask", b->rows, &mask, err) != RT_OK)
            return err->status;
        if (mask.n_dims != 2)
            return vec_bad(run, err, "in.mask is not [sequences, positions]");
        *s = (sequences){.count = mask.shape[0], .length = mask.shape[1], .mask = mask.x};
    }
    s->totals = (rt_step_counts){.sequences = s->count, .constant = vec_param(run, "const", 1)};
    for (size_t k = 0; k < s->count; k++) {
        const uint64_t tokens = tokens_of(s, k);
        s->totals.tokens += tokens;
        s->totals.sequences_with_tokens += tokens > 0;
    }
    return RT_OK;
}

/* The loss over sequences [from, to), scaled for the whole step, by the trainer's code; gradients to grads
 * [rows, width] unless NULL. */
static double reduced(batch *b, const sequences *s, const rt_loss_mix *mix, rt_reduction reduction,
                      size_t from, size_t to, float *grads)
{
    double loss = 0;
    for (size_t k = from; k < to; k++) {
        const double scale = rt_reduction_scale(reduction, &s->totals, tokens_of(s, k));
        for (size_t t = k * s->length; t < (k + 1) * s->length; t++) {
            rt_loss_stats stats;
            if (s->mask[t] == 0)
                continue;
            rt_loss_row(mix, row_of(b->z, b, t), row_of(b->zt, b, t), b->labels[t], b->n_vocab, scale,
                        grads ? grads + t * b->width : NULL, NULL, &stats, b->work);
            loss += scale * stats.loss;
        }
    }
    return loss;
}

static rt_status check_reduced(vec_run *run, batch *b, const rt_loss_mix *mix, rt_reduction reduction,
                               rt_error *err)
{
    sequences s;
    vec_array grad;
    double loss;
    float *grads;
    if (load_sequences(run, b, &s, err) != RT_OK || vec_number(run, "out", "loss", &loss, err) != RT_OK ||
        vec_tensor_sized(run, "out", "grad", b->rows * b->width, &grad, err) != RT_OK ||
        vec_room(run, &grads, grad.n, sizeof *grads, err) != RT_OK)
        return err->status;
    vec_check(run, reduced(b, &s, mix, reduction, 0, s.count, grads), loss, vec_tol_loss);
    for (size_t i = 0; i < grad.n; i++)
        vec_check(run, (double)grads[i], grad.x[i], vec_tol_grad);
    return RT_OK;
}

static rt_status by_step(vec_run *run, rt_error *err)
{
    batch b;
    rt_loss_mix mix = {.n_terms = 1, .terms = {{.weight = 1}}};
    rt_reduction reduction;
    bool tau2;
    if (load_batch(run, &b, err) != RT_OK || spec_of(run, run->loss, &b, &mix.terms[0].spec, err) != RT_OK ||
        reduction_of(run, &reduction, &tau2, err) != RT_OK)
        return err->status;
    mix.terms[0].spec.tau2 = tau2;
    return check_reduced(run, &b, &mix, reduction, err);
}

static rt_status combined(vec_run *run, rt_error *err)
{
    batch b;
    rt_reduction reduction;
    bool tau2;
    if (load_batch(run, &b, err) != RT_OK || reduction_of(run, &reduction, &tau2, err) != RT_OK)
        return err->status;
    if (!b.zt || b.labels[0] == RT_LABEL_NONE)
        return vec_bad(run, err, "lacks zt or y");
    const double share = vec_param(run, "lambda", 0.5);
    tau2 = json_is_true(json_object_get(json_object_get(run->entry, "params"), "tau2"));
    const rt_loss_mix mix = {
        .n_terms = 2,
        .terms = {{1 - share, {.kind = RT_LOSS_CE, .tau = vec_param(run, "ce_tau", 1)}},
                  {share, {.kind = RT_LOSS_FKL, .tau = vec_param(run, "tau", 1), .tau2 = tau2}}}};
    if (rt_loss_mix_check(&mix, err) != RT_OK)
        return rt_error_within(err, run->id);
    return check_reduced(run, &b, &mix, reduction, err);
}

/* Another case of the index, made the one at hand for as long as `fn` runs. */
static rt_status with_case(vec_run *run, const json_t *entry, rt_status (*fn)(vec_run *, rt_error *),
                           rt_error *err)
{
    const json_t *kept_entry = run->entry;
    const char *kept_id = run->id, *kept_loss = run->loss;
    const size_t mark = rt_arena_mark(&run->arena);
    run->entry = entry;
    run->loss = json_string_value(json_object_get(entry, "loss"));
    const rt_status status = fn(run, err);
    run->entry = kept_entry;
    run->id = kept_id;
    run->loss = kept_loss;
    rt_arena_rewind(&run->arena, mark);
    return status;
}

static rt_status equal_sides(vec_run *run, rt_error *err) /* the case's loss with z as its own teacher */
{
    batch b;
    rt_loss_spec spec;
    bool finite;
    if (load_batch(run, &b, err) != RT_OK || spec_of(run, run->loss, &b, &spec, err) != RT_OK)
        return err->status;
    const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, spec}}};
    for (size_t t = 0; t < b.rows; t++) {
        const float *z = row_of(b.z, &b, t);
        rt_loss_stats stats;
        vec_check(run, rt_loss_ref(&spec, z, z, b.labels[t], b.n_vocab, b.grad, &finite, b.work), 0,
                  vec_tol_double);
        rt_loss_row(&mix, z, z, b.labels[t], b.n_vocab, 1, b.dz, NULL, &stats, b.work);
        vec_check(run, stats.loss, 0, vec_tol_loss);
        for (size_t i = 0; i < b.n_vocab; i++) {
            vec_check(run, b.grad[i], 0, vec_tol_double);
            vec_check(run, (double)b.dz[i], 0, vec_tol_grad);
        }
    }
    return RT_OK;
}

static rt_status identity(vec_run *run, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(run->cases); i++) {
        const json_t *entry = json_array_get(run->cases, i);
        const char *id = json_string_value(json_object_get(entry, "id"));
        const char *loss = json_string_value(json_object_get(entry, "loss"));
        if (!id || !loss || strncmp(id, "small/", 6) != 0 || strcmp(loss, "ce") == 0 ||
            strcmp(loss, "*") == 0)
            continue;
        if (with_case(run, entry, equal_sides, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status empty_step(vec_run *run, rt_error *err)
{
    (void)err;
    const rt_step_counts none = {.sequences = 3, .constant = 17};
    for (int r = RT_TOKEN_MEAN; r <= RT_SUM_OVER_CONST; r++)
        vec_check(run, rt_reduction_scale((rt_reduction)r, &none, 0), 0, vec_tol_double);
    return RT_OK;
}

static const json_t *find_case(const vec_run *run, const char *id)
{
    for (size_t i = 0; i < json_array_size(run->cases); i++) {
        const json_t *entry = json_array_get(run->cases, i);
        const char *name = json_string_value(json_object_get(entry, "id"));
        if (name && strcmp(name, id) == 0)
            return entry;
    }
    return NULL;
}

/* The sum over micro-batches (row ranges `micro` of the note), each scaled by the whole step, is the step's
 * loss. */
static rt_status accumulation(vec_run *run, rt_error *err)
{
    const json_t *note = run->entry, *whole = find_case(run, "reduce/fkl/token_mean");
    const json_t *micro = json_object_get(json_object_get(note, "params"), "micro");
    if (!whole || !json_is_array(micro))
        return vec_bad(run, err, "needs the case reduce/fkl/token_mean and a list of micro-batches");
    batch b;
    sequences s;
    double loss, sum = 0;
    rt_loss_mix mix = {.n_terms = 1, .terms = {{.weight = 1}}};
    run->entry = whole;
    rt_status status = load_batch(run, &b, err);
    if (status == RT_OK)
        status = spec_of(run, "fkl", &b, &mix.terms[0].spec, err);
    if (status == RT_OK)
        status = load_sequences(run, &b, &s, err);
    if (status == RT_OK)
        status = vec_number(run, "out", "loss", &loss, err);
    run->entry = note;
    if (status != RT_OK)
        return status;
    vec_check(run, (double)s.totals.tokens, vec_param(run, "global_tokens", -1), vec_tol_double);
    for (size_t i = 0; i < json_array_size(micro); i++) {
        const json_t *range = json_array_get(micro, i);
        const json_int_t from = json_integer_value(json_array_get(range, 0));
        const json_int_t to = json_integer_value(json_array_get(range, 1));
        if (from < 0 || to < from || (size_t)to > s.count)
            return vec_bad(run, err, "micro-batch %zu is outside the batch", i);
        sum += reduced(&b, &s, &mix, RT_TOKEN_MEAN, (size_t)from, (size_t)to, NULL);
    }
    vec_check(run, sum, loss, vec_tol_loss);
    return RT_OK;
}

rt_status vec_rows(vec_run *run, bool *covered, rt_error *err)
{
    if (strcmp(run->loss, "*") == 0) {
        const bool identical = strcmp(run->id, "small/identity") == 0,
                   empty = strcmp(run->id, "reduce/empty") == 0;
        *covered = identical || empty;
        return identical ? identity(run, err) : empty ? empty_step(run, err) : RT_OK;
    }
    if (strcmp(run->loss, "combined") == 0)
        return combined(run, err);
    if (strcmp(run->id, "reduce/accumulation") == 0)
        return accumulation(run, err);
    return vec_param_text(run, "reduction") ? by_step(run, err) : by_token(run, err);
}
