/* student/crossing.c - see crossing.h. */
#include "student/crossing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct ranked {
    double p;
    uint32_t id;
} ranked;

size_t rt_uld_work_bytes(size_t n_student, size_t n_teacher)
{
    return (n_student + n_teacher) * sizeof(ranked) + 64;
}

static int descending(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void rank(ranked *out, const float *z, size_t n)
{
    double max = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)z[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)z[i] - max);
    for (size_t i = 0; i < n; i++)
        out[i] = (ranked){exp((double)z[i] - max) / sum, (uint32_t)i};
    qsort(out, n, sizeof *out, descending);
}

double rt_uld_row(const float *z, size_t n_student, const float *zt, size_t n_teacher, double *grad,
                  void *work)
{
    ranked *p = work, *q = p + n_student;
    double loss = 0, mean = 0; /* mean: sum p g */
    rank(p, z, n_student);
    rank(q, zt, n_teacher);
    for (size_t i = 0; i < n_student; i++) {
        const double d = p[i].p - (i < n_teacher ? q[i].p : 0);
        loss += fabs(d);
        const double pg = p[i].p * ((d > 0) - (d < 0));
        mean += pg;
        if (grad)
            grad[p[i].id] = pg;
    }
    for (size_t i = n_student; i < n_teacher; i++)
        loss += q[i].p;
    for (size_t i = 0; grad && i < n_student; i++)
        grad[p[i].id] -= p[i].p * mean;
    return loss;
}

size_t rt_align(rt_aligned *out, const size_t *student_ends, size_t n_student, const size_t *teacher_ends,
                size_t n_teacher)
{
    size_t i = 0, j = 0, i0 = 0, j0 = 0, count = 0;
    while (i < n_student && j < n_teacher) {
        if (student_ends[i] == teacher_ends[j]) {
            out[count++] = (rt_aligned){i0, ++i, j0, ++j};
            i0 = i;
            j0 = j;
        } else if (student_ends[i] < teacher_ends[j]) {
            i++;
        } else {
            j++;
        }
    }
    return count;
}

static double log1m_exp(double x) /* log(1 - e^x), x <= 0 */
{
    return x < -0.6931471805599453 ? log1p(-exp(x)) : log(-expm1(x));
}

double rt_chunk_binary_kl(double logp_student, double logp_teacher, double tau, double *slope)
{
    if (isinf(tau)) {
        const double a = logp_teacher, b = logp_student;
        if (slope)
            *slope = a == 0 ? -1 : a / b - 1;
        return a == 0 ? -b : (a - b) + a * log(b / a);
    }
    const double s = logp_student / tau, t = logp_teacher / tau, q = exp(t), other = -expm1(t);
    double loss = q > 0 ? q * (t - s) : 0;
    if (other > 0)
        loss += other * (log1m_exp(t) - log1m_exp(s));
    if (slope)
        *slope = (-q + (other > 0 ? other * exp(s - log1m_exp(s)) : 0)) / tau;
    return loss;
}

void rt_byte_marginal_make(rt_byte_marginal *out, rt_token_bytes_fn bytes, const void *context,
                           const double *p, size_t n, const char *prefix, size_t prefix_size)
{
    *out = (rt_byte_marginal){0};
    for (size_t id = 0; id < n; id++) {
        size_t size = 0;
        const char *text = bytes(context, id, &size);
        if (!text || size < prefix_size || (prefix_size && memcmp(text, prefix, prefix_size) != 0))
            continue;
        out->mass += p[id];
        if (size == prefix_size)
            out->end_mass += p[id];
        else
            out->next[(unsigned char)text[prefix_size]] += p[id];
    }
}
