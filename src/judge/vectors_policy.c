/* judge/vectors_policy.c - cases on the student's own samples: policy losses, MiniLLM, DistiLLM-2. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "judge/vectors_case.h"
#include "student/policy.h"

typedef struct samples {
    size_t n, n_vocab;
    vec_array z, zt, y, old;
    float *z_f, *zt_f, *dz;
    double *logp, *logq, *grad, *room;
    void *work;
} samples;

static double log_prob(const float *z, size_t n, size_t label)
{
    double max = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)z[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)z[i] - max);
    return (double)z[label] - max - log(sum);
}

static rt_status load(vec_run *run, samples *s, rt_error *err)
{
    unsigned char *work;
    if (vec_input(run, "z", &s->z, &s->z_f, err) != RT_OK ||
        vec_input(run, "zt", &s->zt, &s->zt_f, err) != RT_OK)
        return err->status;
    if (s->z.n_dims != 2 || s->z.n == 0 || s->zt.n != s->z.n)
        return vec_bad(run, err, "z and zt are not of the same [tokens, ids]");
    s->n = s->z.shape[0];
    s->n_vocab = s->z.shape[1];
    if (vec_tensor_sized(run, "in", "y", s->n, &s->y, err) != RT_OK ||
        vec_tensor_sized(run, "in", "logp_old", s->n, &s->old, err) != RT_OK ||
        vec_room(run, &s->logp, s->n, sizeof(double), err) != RT_OK ||
        vec_room(run, &s->logq, s->n, sizeof(double), err) != RT_OK ||
        vec_room(run, &s->grad, s->n_vocab, sizeof(double), err) != RT_OK ||
        vec_room(run, &s->room, s->n_vocab, sizeof(double), err) != RT_OK ||
        vec_room(run, &s->dz, s->n_vocab, sizeof(float), err) != RT_OK ||
        vec_room(run, &work, rt_loss_work_bytes(s->n_vocab), 1, err) != RT_OK)
        return err->status;
    s->work = work;
    for (size_t t = 0; t < s->n; t++) {
        if (!(s->y.x[t] >= 0 && s->y.x[t] < (double)s->n_vocab))
            return vec_bad(run, err, "in.y holds an id outside the vocabulary");
        s->logp[t] = log_prob(s->z_f + t * s->n_vocab, s->n_vocab, (size_t)s->y.x[t]);
        s->logq[t] = log_prob(s->zt_f + t * s->n_vocab, s->n_vocab, (size_t)s->y.x[t]);
    }
    return RT_OK;
}

static rt_status check_list(vec_run *run, const char *role, const double *x, size_t n, rt_error *err)
{
    vec_array ref;
    if (!vec_has(run, "out", role))
        return RT_OK;
    if (vec_tensor_sized(run, "out", role, n, &ref, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < n; i++)
        vec_check(run, x[i], ref.x[i], vec_tol_double);
    return RT_OK;
}

typedef struct expected {
    vec_array loss, grad;
} expected;

static rt_status load_expected(vec_run *run, const samples *s, expected *e, rt_error *err)
{
    if (vec_tensor_sized(run, "out", "loss_tok", s->n, &e->loss, err) != RT_OK)
        return err->status;
    return vec_tensor_sized(run, "out", "grad", s->z.n, &e->grad, err);
}

static void check_row(vec_run *run, const samples *s, const expected *e, size_t t, double ref, double fast)
{
    vec_check(run, ref, e->loss.x[t], vec_tol_double);
    vec_check(run, fast, e->loss.x[t], vec_tol_loss);
    for (size_t i = 0; i < s->n_vocab; i++) {
        vec_check(run, s->grad[i], e->grad.x[t * s->n_vocab + i], vec_tol_double);
        vec_check(run, (double)s->dz[i], e->grad.x[t * s->n_vocab + i], vec_tol_grad);
    }
}

static rt_status policy(vec_run *run, rt_error *err)
{
    samples s = {0};
    expected e;
    double *advantage;
    const rt_policy p = {.kind = strcmp(run->loss, "policy_is") == 0     ? RT_POLICY_IS
                                 : strcmp(run->loss, "policy_clip") == 0 ? RT_POLICY_CLIP
                                                                         : RT_POLICY_TRUNCATED,
                         .clip_low = vec_param(run, "clip_low", 0.2),
                         .clip_high = vec_param(run, "clip_high", 0.2),
                         .cap = vec_param(run, "cap", 2)};
    if (load(run, &s, err) != RT_OK || load_expected(run, &s, &e, err) != RT_OK ||
        vec_room(run, &advantage, s.n, sizeof *advantage, err) != RT_OK)
        return err->status;
    rt_policy_advantages(advantage, s.logq, s.old.x, s.n, vec_param(run, "discount", 0));
    for (size_t t = 0; t < s.n; t++) {
        const float *z = s.z_f + t * s.n_vocab;
        rt_loss_stats stats;
        const double ref =
            rt_policy_ref(&p, z, (size_t)s.y.x[t], s.n_vocab, s.old.x[t], advantage[t], s.grad, s.work);
        const double fast = rt_policy_row(&p, z, (size_t)s.y.x[t], s.n_vocab, s.old.x[t], advantage[t], 1,
                                          s.dz, &stats, s.work);
        check_row(run, &s, &e, t, ref, fast);
    }
    return check_list(run, "advantage", advantage, s.n, err);
}

static rt_status estimators(vec_run *run, rt_error *err)
{
    samples s = {0};
    double *k[3];
    if (load(run, &s, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < 3; i++)
        if (vec_room(run, &k[i], s.n, sizeof(double), err) != RT_OK)
            return err->status;
    for (size_t t = 0; t < s.n; t++) {
        double out[3];
        rt_kl_estimators(out, s.logp[t], s.logq[t]);
        for (size_t i = 0; i < 3; i++)
            k[i][t] = out[i];
    }
    if (check_list(run, "k1", k[0], s.n, err) != RT_OK || check_list(run, "k2", k[1], s.n, err) != RT_OK)
        return err->status;
    return check_list(run, "k3", k[2], s.n, err);
}

static rt_status minillm(vec_run *run, bool *covered, rt_error *err)
{
    samples s = {0};
    expected e;
    double *weight, *ret;
    const json_t *params = json_object_get(run->entry, "params");
    *covered = !json_is_false(json_object_get(params, "length_norm")) &&
               !json_is_number(json_object_get(params, "clip"));
    if (!*covered)
        return RT_OK;
    if (load(run, &s, err) != RT_OK || load_expected(run, &s, &e, err) != RT_OK ||
        vec_room(run, &weight, s.n, sizeof *weight, err) != RT_OK ||
        vec_room(run, &ret, s.n, sizeof *ret, err) != RT_OK)
        return err->status;
    rt_minillm_terms(weight, ret, s.logq, s.old.x, s.n, vec_param(run, "mix_alpha", 0.2));
    for (size_t t = 0; t < s.n; t++) {
        const float *z = s.z_f + t * s.n_vocab, *zt = s.zt_f + t * s.n_vocab;
        const size_t y = (size_t)s.y.x[t];
        rt_loss_stats stats;
        const double ref =
            rt_minillm_ref(z, zt, y, s.n_vocab, s.old.x[t], weight[t], ret[t], s.grad, s.room, s.work);
        const double fast =
            rt_minillm_row(z, zt, y, s.n_vocab, s.old.x[t], weight[t], ret[t], 1, s.dz, &stats, s.work);
        check_row(run, &s, &e, t, ref, fast);
    }
    if (check_list(run, "importance", weight, s.n, err) != RT_OK)
        return err->status;
    return check_list(run, "long_return", ret, s.n, err);
}

/* One side of DistiLLM-2: adds factor * mean loss to both sums and compares the gradient. */
static rt_status side(vec_run *run, const char *who, const rt_loss_spec *spec, double factor, double *ref,
                      double *fast, rt_error *err)
{
    char z_role[40], zt_role[40], grad_role[40];
    vec_array z, zt, right;
    float *z_f, *zt_f, *dz;
    double *grad;
    unsigned char *work;
    (void)snprintf(z_role, sizeof z_role, "z_%s_resp", who);
    (void)snprintf(zt_role, sizeof zt_role, "zt_%s_resp", who);
    (void)snprintf(grad_role, sizeof grad_role, "grad_%s_resp", who);
    if (vec_input(run, z_role, &z, &z_f, err) != RT_OK || vec_input(run, zt_role, &zt, &zt_f, err) != RT_OK ||
        vec_tensor_sized(run, "out", grad_role, z.n, &right, err) != RT_OK)
        return err->status;
    if (z.n_dims != 2 || z.n == 0 || zt.n != z.n)
        return vec_bad(run, err, "%s and %s are not of the same [tokens, ids]", z_role, zt_role);
    const size_t n = z.shape[0], v = z.shape[1];
    if (vec_room(run, &grad, v, sizeof *grad, err) != RT_OK ||
        vec_room(run, &dz, v, sizeof *dz, err) != RT_OK ||
        vec_room(run, &work, rt_loss_work_bytes(v), 1, err) != RT_OK)
        return err->status;
    const double scale = factor / (double)n;
    const rt_loss_mix mix = {.n_terms = 1, .terms = {{1, *spec}}};
    for (size_t t = 0; t < n; t++) {
        rt_loss_stats stats;
        bool finite;
        *ref += scale * rt_loss_ref(spec, z_f + t * v, zt_f + t * v, RT_LABEL_NONE, v, grad, &finite, work);
        rt_loss_row(&mix, z_f + t * v, zt_f + t * v, RT_LABEL_NONE, v, scale, dz, NULL, &stats, work);
        *fast += scale * stats.loss;
        for (size_t i = 0; i < v; i++) {
            vec_check(run, scale * grad[i], right.x[t * v + i], vec_tol_double);
            vec_check(run, (double)dz[i], right.x[t * v + i], vec_tol_grad);
        }
    }
    return RT_OK;
}

static rt_status distillm2(vec_run *run, rt_error *err)
{
    const double beta = vec_param(run, "beta", 1);
    const rt_loss_spec skl = {.kind = RT_LOSS_SKL, .tau = 1, .alpha = vec_param(run, "alpha_teacher", 0.1)};
    const rt_loss_spec srkl = {.kind = RT_LOSS_SRKL, .tau = 1, .alpha = vec_param(run, "alpha_student", 0.1)};
    double loss, ref = 0, fast = 0;
    if (vec_number(run, "out", "loss", &loss, err) != RT_OK ||
        side(run, "teacher", &skl, 2 - beta, &ref, &fast, err) != RT_OK ||
        side(run, "student", &srkl, beta, &ref, &fast, err) != RT_OK)
        return err->status;
    vec_check(run, ref, loss, vec_tol_double);
    vec_check(run, fast, loss, vec_tol_loss);
    return RT_OK;
}

rt_status vec_policy(vec_run *run, bool *covered, rt_error *err)
{
    if (strcmp(run->loss, "kl_estimators") == 0)
        return estimators(run, err);
    if (strcmp(run->loss, "minillm") == 0)
        return minillm(run, covered, err);
    return strcmp(run->loss, "distillm2") == 0 ? distillm2(run, err) : policy(run, err);
}
