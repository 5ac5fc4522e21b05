/* judge/vectors_kept.c - cases of truncated teachers and of random sampling: rows of which only some ids are
 * known, by the reference in double and by the code that trains. */
#include <math.h>
#include <string.h>

#include "judge/vectors_case.h"
#include "student/kept.h"

typedef struct kept_batch { /* rows tokens, each with k ids */
    size_t rows, n_vocab, k;
    float *z, *logq, *dz;
    double *exact; /* [rows, k] */
    uint32_t *ids;
    uint16_t *counts; /* [rows, k]; NULL: top-k */
    double *grad;
    vec_array loss, ref;
    void *work;
} kept_batch;

static rt_status load_rows(vec_run *run, kept_batch *b, rt_error *err)
{
    vec_array z;
    if (vec_input(run, "z", &z, &b->z, err) != RT_OK)
        return err->status;
    if (z.n_dims != 2 || z.n == 0)
        return vec_bad(run, err, "in.z is not [tokens, ids]");
    b->rows = z.shape[0];
    b->n_vocab = z.shape[1];
    if (vec_tensor_sized(run, "out", "loss_tok", b->rows, &b->loss, err) != RT_OK ||
        vec_tensor_sized(run, "out", "grad", z.n, &b->ref, err) != RT_OK ||
        vec_room(run, &b->grad, b->n_vocab, sizeof(double), err) != RT_OK ||
        vec_room(run, &b->dz, b->n_vocab, sizeof(float), err) != RT_OK)
        return err->status;
    return RT_OK;
}

static rt_status take_entries(vec_run *run, kept_batch *b, size_t k, rt_error *err)
{
    unsigned char *work;
    b->k = k;
    if (k == 0 || k > b->n_vocab)
        return vec_bad(run, err, "keeps %zu ids of %zu", k, b->n_vocab);
    if (vec_room(run, &b->ids, b->rows * k, sizeof *b->ids, err) != RT_OK ||
        vec_room(run, &b->logq, b->rows * k, sizeof *b->logq, err) != RT_OK ||
        vec_room(run, &b->exact, b->rows * k, sizeof *b->exact, err) != RT_OK ||
        vec_room(run, &work, rt_kept_work_bytes(b->n_vocab, k), 1, err) != RT_OK)
        return err->status;
    b->work = work;
    return RT_OK;
}

static void check_row(vec_run *run, kept_batch *b, const rt_loss_spec *spec, rt_kept_row row, size_t t)
{
    const size_t v = b->n_vocab;
    const double slack = b->ref.dtype == RT_F32 ? vec_tol_stored_f32 : vec_tol_double;
    bool finite;
    row.ids = b->ids + t * b->k;
    row.logq_exact = b->exact + t * b->k;
    row.counts = b->counts ? b->counts + t * b->k : NULL;
    row.n = (uint32_t)b->k;
    const double loss = rt_kept_ref(spec, b->z + t * v, &row, RT_LABEL_NONE, v, b->grad, &finite, b->work);
    vec_check(run, loss, b->loss.x[t], vec_tol_double);
    vec_check_true(run, finite);
    for (size_t i = 0; i < v; i++)
        vec_check(run, b->grad[i], b->ref.x[t * v + i], slack);

    const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, *spec}}};
    rt_loss_stats stats;
    row.logq_exact = NULL;
    row.logq = b->logq + t * b->k;
    memcpy(b->dz, b->z + t * v, v * sizeof *b->dz);
    rt_kept_loss_row_in_place(&mix, b->dz, &row, RT_LABEL_NONE, v, 1, false, &stats, b->work);
    vec_check(run, stats.loss, b->loss.x[t], vec_tol_loss);
    vec_check_true(run, stats.finite);
    for (size_t i = 0; i < v; i++)
        vec_check(run, (double)b->dz[i], b->ref.x[t * v + i], vec_tol_grad);
}

static bool mode_of(rt_tail_mode *out, const char *name)
{
    static const struct {
        const char *name;
        rt_tail_mode mode;
    } others[] = {
        {"tail", RT_TAIL_BUCKET}, {"student_topk_tail", RT_TAIL_BUCKET}, {"uniform_tail", RT_TAIL_UNIFORM}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (strcmp(others[i].name, name) == 0) {
            *out = others[i].mode;
            return true;
        }
    }
    return rt_tail_mode_from_name(out, name) && *out != RT_TAIL_NONE;
}

static rt_status top_k(vec_run *run, bool *covered, rt_error *err)
{
    kept_batch b = {0};
    vec_array ids, logq;
    rt_loss_spec spec = {.tau = vec_param(run, "tau", 1),
                         .beta = vec_param(run, "beta", 0.5),
                         .alpha = vec_param(run, "alpha", 0.1),
                         .mu = vec_param(run, "mu", 0.5)};
    *covered =
        mode_of(&spec.tail, vec_param_text(run, "mode")) && rt_loss_kind_from_name(&spec.kind, run->loss);
    if (!*covered)
        return RT_OK;
    const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, spec}}};
    if (rt_kept_mix_check(&mix, true, false, spec.tau, err) != RT_OK)
        return rt_error_within(err, run->id);
    if (load_rows(run, &b, err) != RT_OK || vec_tensor(run, "in", "ids", &ids, err) != RT_OK ||
        vec_tensor_sized(run, "in", "logq", ids.n, &logq, err) != RT_OK)
        return err->status;
    if (ids.n % b.rows != 0)
        return vec_bad(run, err, "in.ids is not [tokens, kept]");
    if (take_entries(run, &b, ids.n / b.rows, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < ids.n; i++) {
        if (!(ids.x[i] >= 0 && ids.x[i] < (double)b.n_vocab))
            return vec_bad(run, err, "in.ids holds an id outside the vocabulary");
        b.ids[i] = (uint32_t)ids.x[i];
        b.exact[i] = logq.x[i];
        b.logq[i] = (float)logq.x[i];
    }
    const rt_kept_row row = {.n_topk = (uint32_t)b.k, .tau = spec.tau, .tail_logprob = (double)NAN};
    for (size_t t = 0; t < b.rows; t++)
        check_row(run, &b, &spec, row, t);
    return RT_OK;
}

/* ---- random sampling ---- */

typedef struct drawn {
    vec_array zt, counts, proposal;
} drawn;

/* log q of row t into exact; the constant of its proposal. */
static double row_of_teacher(const kept_batch *b, const drawn *d, size_t t, double exponent)
{
    const size_t v = b->n_vocab;
    double max = -HUGE_VAL, sum = 0, sum_t = 0;
    for (size_t i = 0; i < v; i++)
        max = fmax(max, d->zt.x[t * v + i]);
    for (size_t i = 0; i < v; i++)
        sum += exp(d->zt.x[t * v + i] - max);
    for (size_t i = 0; i < v; i++) {
        b->exact[t * v + i] = d->zt.x[t * v + i] - max - log(sum);
        b->logq[t * v + i] = (float)b->exact[t * v + i];
        sum_t += exp(exponent * b->exact[t * v + i]);
    }
    return exponent == 1 ? 0 : log(sum_t);
}

/* The moments that a case states, from the weights of single draws: E[L] = sum q (-log p), and so on. */
static rt_status check_moments(vec_run *run, kept_batch *b, const drawn *d, double rounds, rt_error *err)
{
    vec_array mean, var, unique, mean_grad, var_grad;
    const size_t v = b->n_vocab;
    double *first, *second; /* of the gradient of one draw */
    if (!vec_has(run, "out", "mean_loss"))
        return RT_OK;
    if (vec_tensor_sized(run, "out", "mean_loss", b->rows, &mean, err) != RT_OK ||
        vec_tensor_sized(run, "out", "var_loss", b->rows, &var, err) != RT_OK ||
        vec_tensor_sized(run, "out", "mean_unique", b->rows, &unique, err) != RT_OK ||
        vec_tensor_sized(run, "out", "mean_grad", b->rows * v, &mean_grad, err) != RT_OK ||
        vec_tensor_sized(run, "out", "var_grad", b->rows * v, &var_grad, err) != RT_OK ||
        vec_room(run, &first, v, sizeof *first, err) != RT_OK ||
        vec_room(run, &second, v, sizeof *second, err) != RT_OK)
        return err->status;
    const rt_loss_spec rskd = {.kind = RT_LOSS_RSKD, .tau = 1};
    for (size_t t = 0; t < b->rows; t++) {
        double sum = 0, square = 0, distinct = 0;
        bool finite;
        memset(first, 0, v * sizeof *first);
        memset(second, 0, v * sizeof *second);
        const double *q = b->exact + t * v, *s = d->proposal.x + t * v;
        for (size_t i = 0; i < v; i++) { /* one draw of id i alone is the loss -(q/s) log p_i */
            const uint32_t id = (uint32_t)i;
            const uint16_t one = 1;
            const double logq = q[i];
            const rt_kept_row row = {.ids = &id,
                                     .logq_exact = &logq,
                                     .counts = &one,
                                     .n = 1,
                                     .n_draws = 1,
                                     .tail_logprob = 0,
                                     .proposal = vec_param(run, "proposal_exponent", 1),
                                     .log_s = vec_param(run, "proposal_exponent", 1) * q[i] - log(s[i])};
            const double loss =
                rt_kept_ref(&rskd, b->z + t * v, &row, RT_LABEL_NONE, v, b->grad, &finite, b->work);
            sum += s[i] * loss;
            square += s[i] * loss * loss;
            for (size_t j = 0; j < v; j++) {
                first[j] += s[i] * b->grad[j];
                second[j] += s[i] * b->grad[j] * b->grad[j];
            }
            distinct += -expm1(rounds * log1p(-s[i]));
        }
        vec_check(run, sum, mean.x[t], vec_tol_double);
        vec_check(run, (square - sum * sum) / rounds, var.x[t], vec_tol_double);
        vec_check(run, distinct, unique.x[t], vec_tol_double);
        for (size_t j = 0; j < v; j++) {
            vec_check(run, first[j], mean_grad.x[t * v + j], vec_tol_double);
            vec_check(run, (second[j] - first[j] * first[j]) / rounds, var_grad.x[t * v + j], vec_tol_double);
        }
    }
    return RT_OK;
}

static rt_status rskd(vec_run *run, rt_error *err)
{
    kept_batch b = {0};
    drawn d;
    const double exponent = vec_param(run, "proposal_exponent", 1), rounds = vec_param(run, "rounds", 0);
    const bool self = json_is_true(json_object_get(json_object_get(run->entry, "params"), "self_normalised"));
    const rt_loss_spec spec = {
        .kind = RT_LOSS_RSKD, .tau = vec_param(run, "tau", 1), .self_normalised = self};
    const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, spec}}};
    if (!(rounds >= 1 && rounds <= 65535))
        return vec_bad(run, err, "params.rounds is no number of draws");
    if (rt_kept_mix_check(&mix, false, true, 1, err) != RT_OK)
        return rt_error_within(err, run->id);
    if (load_rows(run, &b, err) != RT_OK || take_entries(run, &b, b.n_vocab, err) != RT_OK)
        return err->status;
    const size_t all = b.rows * b.n_vocab;
    if (vec_tensor_sized(run, "in", "zt", all, &d.zt, err) != RT_OK ||
        vec_tensor_sized(run, "in", "counts", all, &d.counts, err) != RT_OK ||
        vec_tensor_sized(run, "in", "proposal", all, &d.proposal, err) != RT_OK ||
        vec_room(run, &b.counts, all, sizeof *b.counts, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < all; i++) {
        if (!(d.counts.x[i] >= 0 && d.counts.x[i] <= rounds))
            return vec_bad(run, err, "in.counts holds a number that is no count");
        b.counts[i] = (uint16_t)d.counts.x[i];
        b.ids[i] = (uint32_t)(i % b.n_vocab);
    }
    for (size_t t = 0; t < b.rows; t++) {
        const rt_kept_row row = {.n_draws = (uint32_t)rounds,
                                 .proposal = exponent,
                                 .tail_logprob = 0,
                                 .log_s = row_of_teacher(&b, &d, t, exponent)};
        check_row(run, &b, &spec, row, t);
    }
    return check_moments(run, &b, &d, rounds, err);
}

rt_status vec_kept(vec_run *run, bool *covered, rt_error *err)
{
    return strcmp(run->loss, "rskd") == 0 ? rskd(run, err) : top_k(run, covered, err);
}
