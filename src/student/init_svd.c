/* student/init_svd.c - singular values by one-sided Jacobi rotations, and the two factors of a matrix.
 *
 * Columns of A are rotated in pairs until they are orthogonal: A V = U S.  Slower than reduction to a
 * bidiagonal form, but a dozen lines, and small singular values keep their relative accuracy. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "student/init.h"

enum { SWEEPS_MAX = 60 };

/* Columns as rows, so that a rotation walks through memory: a [n][m] holds the n columns, v [n][n]. */
static bool rotate_pair(double *a, double *v, size_t m, size_t n, size_t p, size_t q)
{
    double *x = a + p * m, *y = a + q * m;
    double xx = 0, yy = 0, xy = 0;
    for (size_t i = 0; i < m; i++) {
        xx += x[i] * x[i];
        yy += y[i] * y[i];
        xy += x[i] * y[i];
    }
    if (fabs(xy) <= 1e-16 * sqrt(xx * yy) || xy == 0)
        return false;
    const double zeta = (yy - xx) / (2 * xy);
    const double t = copysign(1 / (fabs(zeta) + hypot(1, zeta)), zeta), c = 1 / sqrt(1 + t * t), s = c * t;
    for (size_t i = 0; i < m; i++) {
        const double xi = x[i], yi = y[i];
        x[i] = c * xi - s * yi;
        y[i] = s * xi + c * yi;
    }
    for (size_t i = 0; i < n; i++) {
        const double xi = v[p * n + i], yi = v[q * n + i];
        v[p * n + i] = c * xi - s * yi;
        v[q * n + i] = s * xi + c * yi;
    }
    return true;
}

static void diagonalise(double *a, double *v, size_t m, size_t n)
{
    bool turned = true;
    for (size_t sweep = 0; turned && sweep < SWEEPS_MAX; sweep++) {
        turned = false;
        for (size_t p = 0; p + 1 < n; p++)
            for (size_t q = p + 1; q < n; q++)
                turned = rotate_pair(a, v, m, n, p, q) || turned;
    }
}

/* Component r of the factors from column k: `tall` [m], `wide` [n]; for a transposed W they change places. */
static void write_component(double *left, double *right, const double *column, const double *v, double s,
                            size_t r, size_t rank, size_t rows, size_t cols, bool transposed)
{
    const double *u = transposed ? v : column, *w = transposed ? column : v;
    /* column = s * u: shared out so that both factors carry sqrt(s) */
    const double to_u = transposed ? sqrt(s) : (s > 0 ? 1 / sqrt(s) : 0);
    const double to_w = transposed ? (s > 0 ? 1 / sqrt(s) : 0) : sqrt(s);
    for (size_t i = 0; i < rows; i++)
        left[i * rank + r] = u[i] * to_u;
    for (size_t i = 0; i < cols; i++)
        right[r * cols + i] = w[i] * to_w;
}

rt_status rt_svd_factor(double *left, double *right, double *singular, const double *w, size_t rows,
                        size_t cols, size_t rank, rt_error *err)
{
    const bool transposed = rows < cols;
    const size_t m = transposed ? cols : rows, n = transposed ? rows : cols;
    if (rank == 0 || rank > n)
        return rt_error_set(err, RT_INVALID, "a [%zu, %zu] matrix has no factors of rank %zu", rows, cols,
                            rank);
    size_t count = 0, squares = 0;
    double *a = NULL, *v = NULL, *norms = calloc(n, sizeof *norms);
    uint32_t *order = calloc(n, sizeof *order);
    if (rt_size_mul(m, n, &count) && rt_size_mul(n, n, &squares)) {
        a = calloc(count, sizeof *a);
        v = calloc(squares, sizeof *v);
    }
    rt_status status =
        a && v && norms && order
            ? RT_OK
            : rt_error_set(err, RT_NO_MEMORY, "no memory to factor a [%zu, %zu] matrix", rows, cols);
    if (status == RT_OK) {
        for (size_t k = 0; k < n; k++) {
            v[k * n + k] = 1;
            for (size_t i = 0; i < m; i++)
                a[k * m + i] = transposed ? w[k * cols + i] : w[i * cols + k];
        }
        diagonalise(a, v, m, n);
        for (size_t k = 0; k < n; k++) {
            for (size_t i = 0; i < m; i++)
                norms[k] += a[k * m + i] * a[k * m + i];
            norms[k] = sqrt(norms[k]);
        }
        status = rt_importance_order(order, norms, n, err); /* a NaN in W ends here */
    }
    for (size_t r = 0; status == RT_OK && r < n; r++) {
        const size_t k = order[r];
        singular[r] = norms[k];
        if (r < rank)
            write_component(left, right, a + k * m, v + k * n, norms[k], r, rank, rows, cols, transposed);
    }
    free(a);
    free(v);
    free(norms);
    free(order);
    return status;
}
