/* student/optimiser.c - see optimiser.h; the loops are in tensor/cpu/adamw_body.h. */
#include "student/optimiser.h"

#include <assert.h>
#include <math.h>

rt_adamw_step rt_adamw_step_make(const rt_adamw_options *o, uint64_t step, double lr_factor, double clip)
{
    assert(step > 0);
    const double s = (double)step, lr = o->lr * lr_factor;
    return (rt_adamw_step){.decay = (float)(1 - lr * o->weight_decay),
                           .beta1 = (float)o->beta1,
                           .one_minus_beta1 = (float)(1 - o->beta1),
                           .beta2 = (float)o->beta2,
                           .one_minus_beta2 = (float)(1 - o->beta2),
                           .rate = (float)(lr / (1 - pow(o->beta1, s))),
                           .root_factor = (float)(1 / sqrt(1 - pow(o->beta2, s))),
                           .eps = (float)o->eps,
                           .clip = (float)clip};
}

void rt_adamw_update(const rt_adamw_step *step, const float *grad, float *master, float *m, float *v,
                     rt_bf16 *weights, size_t begin, size_t end)
{
    assert(begin <= end);
    rt_adamw_ops_get()->update(step, grad + begin, master + begin, m + begin, v + begin,
                               weights ? weights + begin : NULL, end - begin);
}

size_t rt_norm_chunks(size_t n) { return n / RT_NORM_CHUNK + (n % RT_NORM_CHUNK != 0); }

double rt_norm_chunk(const float *grad, size_t n, size_t chunk_index)
{
    assert(chunk_index < rt_norm_chunks(n));
    const size_t begin = chunk_index * RT_NORM_CHUNK, rest = n - begin;
    return rt_adamw_ops_get()->sum_squares(grad + begin, rest < RT_NORM_CHUNK ? rest : RT_NORM_CHUNK);
}

double rt_norm_total(const double *chunks, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += chunks[i];
    return sqrt(sum);
}

double rt_clip_factor(double norm, double max_norm)
{
    if (max_norm <= 0)
        return 1;
    const double factor = max_norm / (norm + 1e-6);
    return factor > 1 ? 1 : factor;
}
