/* evidence/matrix.c - see matrix.h. */
#include "evidence/matrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

enum { SWEEPS_MAX = 60 };

static rt_status no_memory(rt_error *err, size_t n, size_t m)
{
    return rt_error_set(err, RT_NO_MEMORY, "no memory for matrices of %zu by %zu", n, m);
}

void rt_row_cosines(double *out, const double *a, size_t n_a, const double *b, size_t n_b, size_t d)
{
    for (size_t i = 0; i < n_a; i++) {
        double aa = 0;
        for (size_t k = 0; k < d; k++)
            aa += a[i * d + k] * a[i * d + k];
        for (size_t j = 0; j < n_b; j++) {
            double ab = 0, bb = 0;
            for (size_t k = 0; k < d; k++) {
                ab += a[i * d + k] * b[j * d + k];
                bb += b[j * d + k] * b[j * d + k];
            }
            out[i * n_b + j] = aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
        }
    }
}

typedef struct assignment {
    double *u, *v, *shortest; /* duals of rows [n + 1] and columns [m + 1]; path lengths */
    size_t *row_of, *way;     /* [m + 1] row of a column, 1-based, 0 free; previous column of the path */
    uint8_t *done;            /* [m + 1] */
} assignment;

/* The shortest augmenting path from one row: duals are kept so that all reduced costs are >= 0. */
static void augment(assignment *w, const double *gain, size_t row, size_t m)
{
    size_t at = 0;
    w->row_of[0] = row;
    for (size_t j = 0; j <= m; j++) {
        w->shortest[j] = HUGE_VAL;
        w->done[j] = 0;
    }
    do {
        w->done[at] = 1;
        const size_t i = w->row_of[at];
        size_t next = 0;
        double delta = HUGE_VAL;
        for (size_t j = 1; j <= m; j++) {
            if (w->done[j])
                continue;
            const double reduced = -gain[(i - 1) * m + j - 1] - w->u[i] - w->v[j];
            if (reduced < w->shortest[j]) {
                w->shortest[j] = reduced;
                w->way[j] = at;
            }
            if (w->shortest[j] < delta || next == 0) {
                delta = w->shortest[j];
                next = j;
            }
        }
        for (size_t j = 0; j <= m; j++) {
            if (w->done[j]) {
                w->u[w->row_of[j]] += delta;
                w->v[j] -= delta;
            } else {
                w->shortest[j] -= delta;
            }
        }
        at = next;
    } while (w->row_of[at] != 0);
    while (at) {
        const size_t before = w->way[at];
        w->row_of[at] = w->row_of[before];
        at = before;
    }
}

rt_status rt_assign(size_t *column, const double *gain, size_t n, size_t m, rt_error *err)
{
    if (n > m)
        return rt_error_set(err, RT_INVALID, "%zu rows cannot have a column each of %zu", n, m);
    for (size_t i = 0; i < n * m; i++)
        if (!isfinite(gain[i]))
            return rt_error_set(err, RT_INVALID, "a similarity of row %zu is not a number", i / m);
    assignment w = {.u = calloc(n + 1, sizeof(double)),
                    .v = calloc(m + 1, sizeof(double)),
                    .shortest = calloc(m + 1, sizeof(double)),
                    .row_of = calloc(m + 1, sizeof(size_t)),
                    .way = calloc(m + 1, sizeof(size_t)),
                    .done = calloc(m + 1, 1)};
    rt_status status = RT_OK;
    if (!w.u || !w.v || !w.shortest || !w.row_of || !w.way || !w.done) {
        status = no_memory(err, n, m);
    } else {
        for (size_t i = 1; i <= n; i++)
            augment(&w, gain, i, m);
        for (size_t j = 1; j <= m; j++)
            if (w.row_of[j])
                column[w.row_of[j] - 1] = j - 1;
    }
    free(w.u);
    free(w.v);
    free(w.shortest);
    free(w.row_of);
    free(w.way);
    free(w.done);
    return status;
}

rt_status rt_match_test(rt_spearman *out, const size_t *gate, const size_t *up, size_t n, rt_error *err)
{
    double *x = malloc((n + 1) * 2 * sizeof *x);
    if (!x)
        return no_memory(err, n, 2);
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)gate[i];
        x[n + i] = up ? (double)up[i] : (double)i;
    }
    const rt_status status = rt_spearman_test(out, x, x + n, n, err);
    free(x);
    return status;
}

rt_status rt_identity_test(rt_spearman *out, const size_t *column, size_t n, rt_error *err)
{
    return rt_match_test(out, column, NULL, n, err);
}

/* Copy of x [n, d] with every column's mean taken off. */
static double *centred(const double *x, size_t n, size_t d)
{
    size_t count;
    double *c = rt_size_mul(n, d, &count) ? malloc((count + 1) * sizeof *c) : NULL;
    if (!c)
        return NULL;
    for (size_t j = 0; j < d; j++) {
        double mean = 0;
        for (size_t i = 0; i < n; i++)
            mean += x[i * d + j] / (double)n;
        for (size_t i = 0; i < n; i++)
            c[i * d + j] = x[i * d + j] - mean;
    }
    return c;
}

/* x^T y: [d_x, d_y] of centred matrices */
static double *cross(const double *x, size_t d_x, const double *y, size_t d_y, size_t n)
{
    size_t count;
    double *c = rt_size_mul(d_x, d_y, &count) ? calloc(count + 1, sizeof *c) : NULL;
    for (size_t r = 0; c && r < n; r++)
        for (size_t i = 0; i < d_x; i++)
            for (size_t j = 0; j < d_y; j++)
                c[i * d_y + j] += x[r * d_x + i] * y[r * d_y + j];
    return c;
}

static double squares(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

rt_status rt_linear_cka(double *out, const double *x, size_t d_x, const double *y, size_t d_y, size_t n,
                        rt_error *err)
{
    double *a = centred(x, n, d_x), *b = centred(y, n, d_y);
    double *ab = a && b ? cross(a, d_x, b, d_y, n) : NULL, *aa = a ? cross(a, d_x, a, d_x, n) : NULL,
           *bb = b ? cross(b, d_y, b, d_y, n) : NULL;
    rt_status status = RT_OK;
    if (!ab || !aa || !bb) {
        status = no_memory(err, n, rt_size_max(d_x, d_y));
    } else {
        const double below = sqrt(squares(aa, d_x * d_x) * squares(bb, d_y * d_y));
        *out = below > 0 ? squares(ab, d_x * d_y) / below : 0;
    }
    free(a);
    free(b);
    free(ab);
    free(aa);
    free(bb);
    return status;
}

rt_status rt_procrustes(double *out, const double *x, size_t d_x, const double *y, size_t d_y, size_t n,
                        rt_error *err)
{
    const size_t values = rt_size_min(d_x, d_y);
    double *a = centred(x, n, d_x), *b = centred(y, n, d_y), *sigma = calloc(values + 1, sizeof *sigma);
    double *ab = a && b ? cross(a, d_x, b, d_y, n) : NULL;
    rt_status status = !ab || !sigma ? no_memory(err, n, rt_size_max(d_x, d_y))
                                     : rt_singular_values(sigma, ab, d_x, d_y, err);
    if (status == RT_OK) {
        double nuclear = 0;
        for (size_t i = 0; i < values; i++)
            nuclear += sigma[i];
        const double below = squares(a, n * d_x) * squares(b, n * d_y);
        *out = below > 0 ? 1 - nuclear * nuclear / below : 1;
    }
    free(a);
    free(b);
    free(ab);
    free(sigma);
    return status;
}

void rt_centre_rows(double *a, size_t n, size_t m)
{
    for (size_t i = 0; i < n; i++) {
        double mean = 0;
        for (size_t j = 0; j < m; j++)
            mean += a[i * m + j] / (double)m;
        for (size_t j = 0; j < m; j++)
            a[i * m + j] -= mean;
    }
}

/* Turns two rows until they are orthogonal; false: they were. */
static int rotate(double *p, double *q, size_t length)
{
    double pp = 0, qq = 0, pq = 0;
    for (size_t k = 0; k < length; k++) {
        pp += p[k] * p[k];
        qq += q[k] * q[k];
        pq += p[k] * q[k];
    }
    if (fabs(pq) <= 1e-16 * sqrt(pp * qq) || pq == 0)
        return 0;
    const double zeta = (qq - pp) / (2 * pq), t = copysign(1, zeta) / (fabs(zeta) + sqrt(1 + zeta * zeta));
    const double c = 1 / sqrt(1 + t * t), s = c * t;
    for (size_t k = 0; k < length; k++) {
        const double kept = p[k];
        p[k] = c * kept - s * q[k];
        q[k] = s * kept + c * q[k];
    }
    return 1;
}

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

rt_status rt_singular_values(double *out, const double *a, size_t n, size_t m, rt_error *err)
{
    const size_t rows = rt_size_min(n, m), length = rt_size_max(n, m);
    size_t count;
    double *w = rt_size_mul(n, m, &count) ? malloc((count + 1) * sizeof *w) : NULL;
    if (!w)
        return no_memory(err, n, m);
    for (size_t i = 0; i < rows; i++) /* the shorter side lies as rows */
        for (size_t k = 0; k < length; k++)
            w[i * length + k] = n <= m ? a[i * m + k] : a[k * m + i];
    for (size_t sweep = 0, turned = 1; turned && sweep < SWEEPS_MAX; sweep++) {
        turned = 0;
        for (size_t i = 0; i + 1 < rows; i++)
            for (size_t j = i + 1; j < rows; j++)
                turned += (size_t)rotate(w + i * length, w + j * length, length);
    }
    for (size_t i = 0; i < rows; i++)
        out[i] = sqrt(squares(w + i * length, length));
    qsort(out, rows, sizeof *out, descending);
    free(w);
    return RT_OK;
}

rt_hidden_dim rt_hidden_dimension(const double *sigma, size_t n, size_t skip)
{
    rt_hidden_dim best = {0};
    for (size_t i = skip; i + 1 < n; i++) {
        const double ratio = sigma[i + 1] > 0 ? sigma[i] / sigma[i + 1] : sigma[i] > 0 ? HUGE_VAL : 1;
        if (ratio > best.ratio)
            best = (rt_hidden_dim){i + 1, ratio};
    }
    if (best.ratio <= 10)
        best.dim = 0;
    return best;
}
