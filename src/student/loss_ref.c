/* student/loss_ref.c - the meaning of every loss, in double, straight from the formulas of loss.h.
 *
 * One rule gives the gradients: with g_i = dL/dp_i as if the p_i were free,
 *     dL/dz_i = p_i (g_i - sum_j p_j g_j) / tau                                        (R)
 * Each kind fills p_i g_i in the form in which nothing is divided by p_i, and fold() does the rest.
 * Everything is kept as log p, log q: exps of both would lose ids that lie 745 nats down. */
#include "student/loss_internal.h"

#include <math.h>

typedef struct rows { /* views into the caller's scratch, each [n] */
    const rt_loss_spec *spec;
    size_t n, support;
    double tau;
    const float *z, *zt;    /* the logits, or */
    const double *zd, *ztd; /* the same in double */
    bool has_teacher;
    double *lp, *lq; /* log p, log q; -inf for p = 0 */
    double *pg;      /* p g, then the gradient */
    uint32_t *heap;
} rows;

/* 0 log 0 = 0 */
static double times_log(double p, double log_ratio) { return p > 0 ? p * log_ratio : 0.0; }

static double log_add(double a, double b)
{
    const double hi = a > b ? a : b, lo = a > b ? b : a;
    return lo == -HUGE_VAL ? hi : hi + log1p(exp(lo - hi));
}

static double z_at(const rows *r, size_t i) { return r->zd ? r->zd[i] : (double)r->z[i]; }
static double zt_at(const rows *r, size_t i) { return r->zd ? r->ztd[i] : (double)r->zt[i]; }

static bool in_support(const rows *r, size_t i)
{
    return z_at(r, i) != -HUGE_VAL || (r->has_teacher && zt_at(r, i) != -HUGE_VAL);
}

/* out = log softmax(x/tau), x = a z + b zt; returns log sum exp(x/tau). */
static double log_softmax(double *out, const rows *r, double a, double b)
{
    double max = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < r->n; i++) {
        const double x = (a != 0 ? a * z_at(r, i) : 0) + (b != 0 ? b * zt_at(r, i) : 0);
        out[i] = in_support(r, i) ? x / r->tau : -HUGE_VAL;
        max = out[i] > max || isnan(out[i]) ? out[i] : max;
    }
    for (size_t i = 0; i < r->n; i++)
        sum += out[i] == -HUGE_VAL ? 0 : exp(out[i] - max);
    const double log_sum = log(sum);
    for (size_t i = 0; i < r->n; i++)
        out[i] = out[i] == -HUGE_VAL ? -HUGE_VAL : out[i] - max - log_sum;
    return max + log_sum;
}

static void fold(rows *r, double factor) /* rule R, times factor */
{
    double sum = 0;
    for (size_t i = 0; i < r->n; i++)
        sum += r->pg[i];
    for (size_t i = 0; i < r->n; i++)
        r->pg[i] = factor * (r->pg[i] - exp(r->lp[i]) * sum) / r->tau;
}

static double cross_entropy(rows *r, size_t label, double lse)
{
    const double e = r->spec->label_smoothing, c = r->spec->z_loss, v = (double)r->support;
    double sum = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (!in_support(r, i)) {
            r->pg[i] = 0;
            continue;
        }
        sum += r->lp[i];
        const double p = exp(r->lp[i]);
        r->pg[i] = (p + 2 * c * lse * p - (i == label ? 1 - e : 0) - e / v) / r->tau;
    }
    double loss = -(1 - e) * r->lp[label] + c * lse * lse;
    if (e != 0)
        loss -= e * sum / v;
    return loss;
}

static double forward_kl(rows *r)
{
    double loss = 0;
    for (size_t i = 0; i < r->n; i++) {
        const double q = exp(r->lq[i]);
        loss += times_log(q, r->lq[i] - r->lp[i]);
        r->pg[i] = (exp(r->lp[i]) - q) / r->tau;
    }
    return loss;
}

static double reverse_kl(rows *r)
{
    double loss = 0;
    for (size_t i = 0; i < r->n; i++)
        loss += r->pg[i] = times_log(exp(r->lp[i]), r->lp[i] - r->lq[i]);
    fold(r, 1);
    return loss;
}

/* b KL(q||m) + (1-b) KL(p||m) for 0 < b < 1 */
static double jensen_shannon(rows *r, double factor)
{
    const double b = r->spec->beta, log_b = log(b), log_1b = log1p(-b);
    double loss = 0;
    for (size_t i = 0; i < r->n; i++) {
        const double lm = log_add(r->lq[i] + log_b, r->lp[i] + log_1b);
        r->pg[i] = (1 - b) * times_log(exp(r->lp[i]), r->lp[i] - lm);
        loss += b * times_log(exp(r->lq[i]), r->lq[i] - lm) + r->pg[i];
    }
    fold(r, factor);
    return factor * loss;
}

static double jsd(rows *r)
{
    const double b = r->spec->beta;
    if (b == 0)
        return forward_kl(r);
    if (b == 1)
        return reverse_kl(r);
    return jensen_shannon(r, r->spec->kind == RT_LOSS_JSD_NORM ? 1 / (b * (1 - b)) : 1);
}

static double skew_kl(rows *r) /* KL(q || a q + (1-a) p) */
{
    const double a = r->spec->alpha, log_a = log(a), log_1a = log1p(-a);
    double loss = 0;
    for (size_t i = 0; i < r->n; i++) {
        const double lm = log_add(r->lq[i] + log_a, r->lp[i] + log_1a);
        loss += times_log(exp(r->lq[i]), r->lq[i] - lm);
        const double pqm = r->lp[i] == -HUGE_VAL || r->lq[i] == -HUGE_VAL ? 0 : exp(r->lp[i] + r->lq[i] - lm);
        r->pg[i] = -(1 - a) * pqm;
    }
    fold(r, 1);
    return loss;
}

static double skew_reverse_kl(rows *r) /* KL(p || (1-a) q + a p) */
{
    const double a = r->spec->alpha, log_a = log(a), log_1a = log1p(-a);
    double loss = 0;
    for (size_t i = 0; i < r->n; i++) {
        const double lp = r->lp[i], lm = log_add(r->lq[i] + log_1a, lp + log_a);
        const double term = times_log(exp(lp), lp - lm);
        loss += term;
        r->pg[i] = lp == -HUGE_VAL || a == 0 ? term : term - a * exp(2 * lp - lm);
    }
    fold(r, 1);
    return loss;
}

static double total_variation(rows *r)
{
    double loss = 0;
    for (size_t i = 0; i < r->n; i++) {
        const double p = exp(r->lp[i]), d = p - exp(r->lq[i]);
        loss += 0.5 * fabs(d);
        r->pg[i] = 0.5 * p * ((d > 0) - (d < 0));
    }
    fold(r, 1);
    return loss;
}

/* One id's part of the alpha-beta divergence, a the teacher's exponent, b the student's. */
static double alpha_beta_part(double a, double b, double lp, double lq)
{
    if (a == 0 && b == 0)
        return 0.5 * (lq - lp) * (lq - lp);
    if (b == 0)
        return (times_log(exp(a * lq), a * (lq - lp)) - exp(a * lq) + exp(a * lp)) / (a * a);
    if (a == 0)
        return (times_log(exp(b * lp), b * (lp - lq)) - exp(b * lp) + exp(b * lq)) / (b * b);
    if (a + b == 0)
        return (a * (lp - lq) + exp(a * (lq - lp)) - 1) / (a * a);
    return -(exp(a * lq) * exp(b * lp) - a / (a + b) * exp((a + b) * lq) - b / (a + b) * exp((a + b) * lp)) /
           (a * b);
}

static double alpha_beta(rows *r)
{
    const double a = r->spec->alpha, b = r->spec->beta;
    double loss = 0;
    for (size_t i = 0; i < r->n; i++) {
        r->pg[i] = 0;
        if (!in_support(r, i))
            continue;
        const double lp = r->lp[i], lq = r->lq[i], pb = b == 0 ? 1 : exp(b * lp);
        loss += alpha_beta_part(a, b, lp, lq);
        r->pg[i] = a == 0 ? times_log(pb, lp - lq) : pb * (exp(a * lp) - exp(a * lq)) / a;
    }
    fold(r, 1);
    return loss;
}

/* h of the adaptive KL: ids leave a heap in the teacher's order (ties: lower id first) while the running mass
 * is at most mu, the first in any case.  A full sort is not needed: the head is short. */
static bool before(const rows *r, uint32_t a, uint32_t b)
{
    return r->lq[a] > r->lq[b] || (r->lq[a] == r->lq[b] && a < b);
}

static void sift_down(const rows *r, size_t root, size_t count)
{
    uint32_t *heap = r->heap;
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && before(r, heap[child + 1], heap[child]))
            child++;
        if (!before(r, heap[child], heap[root]))
            return;
        const uint32_t kept = heap[root];
        heap[root] = heap[child];
        heap[child] = kept;
    }
}

static double head_weight(const rows *r)
{
    size_t count = r->n;
    double all = 0, head = 0, mass = 0;
    for (size_t i = 0; i < r->n; i++) {
        r->heap[i] = (uint32_t)i;
        all += fabs(exp(r->lp[i]) - exp(r->lq[i]));
    }
    for (size_t i = count / 2; i-- > 0;)
        sift_down(r, i, count);
    for (bool first = true; count > 0; first = false) {
        const uint32_t id = r->heap[0];
        mass += exp(r->lq[id]);
        if (mass > r->spec->mu && !first)
            break;
        head += fabs(exp(r->lp[id]) - exp(r->lq[id]));
        r->heap[0] = r->heap[--count];
        sift_down(r, 0, count);
    }
    return all > 0 ? head / all : 0.5;
}

static double adaptive_kl(rows *r)
{
    const double h = head_weight(r);
    const double reverse = reverse_kl(r); /* pg is its gradient now */
    double forward = 0;
    for (size_t i = 0; i < r->n; i++) {
        const double q = exp(r->lq[i]);
        forward += times_log(q, r->lq[i] - r->lp[i]);
        r->pg[i] = h * (exp(r->lp[i]) - q) / r->tau + (h < 1 ? (1 - h) * r->pg[i] : 0);
    }
    return (h > 0 ? h * forward : 0) + (h < 1 ? (1 - h) * reverse : 0);
}

static double squared_error(rows *r)
{
    const double v = (double)r->support;
    double mean = 0, loss = 0;
    for (size_t i = 0; i < r->n; i++) {
        r->pg[i] = in_support(r, i) ? z_at(r, i) - zt_at(r, i) : 0;
        mean += r->pg[i] / v;
    }
    if (r->spec->kind == RT_LOSS_MSE)
        mean = 0;
    for (size_t i = 0; i < r->n; i++) {
        const double d = in_support(r, i) ? r->pg[i] - mean : 0;
        loss += d * d / v;
        r->pg[i] = 2 * d / v;
    }
    return loss;
}

static double compute(rows *r, size_t label)
{
    const rt_loss_kind kind = r->spec->kind;
    if (kind == RT_LOSS_MSE || kind == RT_LOSS_MSE_CENTRED)
        return squared_error(r);
    const double lse = log_softmax(r->lp, r, 1, 0);
    if (kind == RT_LOSS_CE)
        return cross_entropy(r, label, lse);
    const double t = kind == RT_LOSS_TAID ? r->spec->t : 1;
    (void)log_softmax(r->lq, r, 1 - t, t);
    switch (kind) {
    case RT_LOSS_FKL:
    case RT_LOSS_TAID: /* its teacher is the mixture */
        return forward_kl(r);
    case RT_LOSS_RKL:
        return reverse_kl(r);
    case RT_LOSS_JSD:
    case RT_LOSS_JSD_NORM:
        return jsd(r);
    case RT_LOSS_SKL:
        return skew_kl(r);
    case RT_LOSS_SRKL:
        return skew_reverse_kl(r);
    case RT_LOSS_TVD:
        return total_variation(r);
    case RT_LOSS_AB:
        return alpha_beta(r);
    default:
        return adaptive_kl(r);
    }
}

size_t rt_loss_work_bytes(size_t n_vocab)
{
    /* log p, log q, a term's gradient, the mixture's; the heap */
    return n_vocab * (4 * sizeof(double) + sizeof(uint32_t)) + 64;
}

double *rt_loss_work_total(void *work, size_t n_vocab) { return (double *)work + 3 * n_vocab; }

static double reference(rows *r, size_t label, double *grad, bool *finite, void *work)
{
    const size_t n = r->n;
    r->tau = r->spec->tau > 0 ? r->spec->tau : 1;
    r->lp = work;
    r->lq = r->lp + n;
    r->pg = r->lp + 2 * n;
    r->heap = (uint32_t *)(r->lp + 4 * n);
    for (size_t i = 0; i < n; i++)
        r->support += in_support(r, i);
    const double loss = r->support ? compute(r, label) : 0;
    *finite = isfinite(loss);
    for (size_t i = 0; i < n; i++) {
        grad[i] = r->support ? r->pg[i] : 0;
        *finite = *finite && isfinite(grad[i]);
    }
    return loss;
}

double rt_loss_ref(const rt_loss_spec *spec, const float *z, const float *zt, size_t label, size_t n_vocab,
                   double *grad, bool *finite, void *work)
{
    rows r = {.spec = spec, .n = n_vocab, .z = z, .zt = zt, .has_teacher = zt != NULL};
    return reference(&r, label, grad, finite, work);
}

double rt_loss_ref_double(const rt_loss_spec *spec, const double *z, const double *zt, size_t label, size_t n,
                          double *grad, bool *finite, void *work)
{
    rows r = {.spec = spec, .n = n, .zd = z, .ztd = zt, .has_teacher = zt != NULL};
    return reference(&r, label, grad, finite, work);
}
