/* tensor/cpu/adamw_body.h - the optimiser's loops, plain C that the compiler makes into vectors.
 *
 * adamw_<isa>.c includes it with ADAMW_TABLE set to the table's name.  The update reads and writes seven
 * streams and is bound by memory; sqrt and division round correctly at every width, and the build forbids
 * fused multiply-adds, so all tables give the same bits. */
#include <math.h>

#include "tensor/cpu/adamw_tables.h"

static inline __attribute__((always_inline)) void update(const rt_adamw_step *step,
                                                         const float *restrict grad, float *restrict master,
                                                         float *restrict m, float *restrict v,
                                                         rt_bf16 *restrict weights, size_t n)
{
    const rt_adamw_step s = *step;
    for (size_t i = 0; i < n; i++) {
        const float g = grad[i] * s.clip;
        const float m1 = s.beta1 * m[i] + s.one_minus_beta1 * g;
        const float v1 = s.beta2 * v[i] + s.one_minus_beta2 * (g * g);
        const float w = s.decay * master[i] - s.rate * m1 / (sqrtf(v1) * s.root_factor + s.eps);
        m[i] = m1;
        v[i] = v1;
        master[i] = w;
        if (weights)
            weights[i] = rt_f32_to_bf16(w);
    }
}

static void adamw_update(const rt_adamw_step *step, const float *grad, float *master, float *m, float *v,
                         rt_bf16 *weights, size_t n)
{
    if (weights)
        update(step, grad, master, m, v, weights, n);
    else
        update(step, grad, master, m, v, NULL, n);
}

static double adamw_sum_squares(const float *x, size_t n)
{
    enum { LANES = 16 };
    double sum[LANES] = {0}, total = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            sum[k] += (double)x[i + k] * (double)x[i + k];
    for (size_t k = 0; i + k < n; k++)
        sum[k] += (double)x[i + k] * (double)x[i + k];
    for (size_t k = 0; k < LANES; k++)
        total += sum[k];
    return total;
}

const rt_adamw_ops ADAMW_TABLE = {.update = adamw_update, .sum_squares = adamw_sum_squares};
