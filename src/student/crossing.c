/* student/crossing.c - see crossing.h. */
#include "student/crossing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct ranked {
    double p;
    uint32_t id;
} ranked;

typedef struct keyed { /* key: falling logits in rising order */
    uint32_t key, id;
} keyed;

enum { DIGIT_BITS = 11, DIGITS = 3, DIGIT_VALUES = 1 << DIGIT_BITS };

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

size_t rt_uld_work_bytes(size_t n_student, size_t n_teacher)
{
    return (n_student + n_teacher) * sizeof(ranked) +
           larger(n_student, n_teacher) * (2 * sizeof(keyed) + sizeof(double)) + 64;
}

static uint32_t falling_key(float z)
{
    uint32_t bits;
    memcpy(&bits, &z, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFFU;
}

static uint32_t digit(uint32_t key, size_t pass)
{
    return key >> (pass * DIGIT_BITS) & (uint32_t)(DIGIT_VALUES - 1);
}

/* Stable, by key: least digit first.  Returns the array of the two that holds the result. */
static const keyed *sort_keys(keyed *from, keyed *to, size_t n)
{
    uint32_t starts[DIGITS][DIGIT_VALUES] = {0};
    for (size_t i = 0; i < n; i++)
        for (size_t pass = 0; pass < DIGITS; pass++)
            starts[pass][digit(from[i].key, pass)]++;
    for (size_t pass = 0; pass < DIGITS; pass++) {
        uint32_t *start = starts[pass], at = 0;
        for (size_t d = 0; d < DIGIT_VALUES; d++) {
            const uint32_t count = start[d];
            start[d] = at;
            at += count;
        }
        for (size_t i = 0; i < n; i++)
            to[start[digit(from[i].key, pass)]++] = from[i];
        keyed *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

static int by_id(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Logits that differ may give the same probability: such go by id too.  Where it is 0 nothing depends on it.
 */
static void order_ties(ranked *list, size_t n)
{
    for (size_t i = 0, end; i < n && list[i].p > 0; i = end) {
        bool sorted = true;
        for (end = i + 1; end < n && list[end].p >= list[i].p; end++)
            sorted = sorted && list[end].id > list[end - 1].id;
        if (!sorted)
            qsort(list + i, end - i, sizeof *list, by_id);
    }
}

static void rank(ranked *out, const float *z, size_t n, double *e, keyed *keys)
{
    double max = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < n; i++) {
        max = fmax(max, (double)z[i]);
        keys[i] = (keyed){falling_key(z[i]), (uint32_t)i};
    }
    for (size_t i = 0; i < n; i++) {
        e[i] = exp((double)z[i] - max);
        sum += e[i];
    }
    const keyed *sorted = sort_keys(keys, keys + n, n);
    for (size_t i = 0; i < n; i++)
        out[i] = (ranked){e[sorted[i].id] / sum, sorted[i].id};
    order_ties(out, n);
}

double rt_uld_row(const float *z, size_t n_student, const float *zt, size_t n_teacher, double *grad,
                  void *work)
{
    ranked *p = work, *q = p + n_student;
    double *e = (double *)(void *)(q + n_teacher), loss = 0, mean = 0; /* mean: sum p g */
    keyed *keys = (keyed *)(void *)(e + larger(n_student, n_teacher));
    rank(p, z, n_student, e, keys);
    rank(q, zt, n_teacher, e, keys);
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
