/* model/rope_factors.c - llama3's rope scaling as GGUF stores it: one divisor for each frequency.
 *
 * With wavelengths w_i = 2 pi theta^(2i/d), llama3 scaling leaves frequencies with w < C/high alone,
 * divides those with w > C/low by the factor F, and between them blends: f' = ((1 - s)/F + s) f with
 * s = (C/w - low)/(high - low).  The divisor is 1, F, or 1/((1 - s)/F + s).  Only C/low and C/high
 * matter, so low = 1 is chosen when the parameters are recovered: with 1/w as the variable, s is a
 * straight line through the blended points. */
#include <math.h>

#include "model/families.h"

static double wavelength(const rt_rope_config *rope, size_t head_dim, size_t i)
{
    return 2 * 3.14159265358979323846 * pow(rope->theta, 2 * (double)i / (double)head_dim);
}

static double factor_at(const rt_rope_config *rope, size_t head_dim, size_t i)
{
    const double w = wavelength(rope, head_dim, i), context = (double)rope->original_context;
    if (w < context / rope->high_freq_factor)
        return 1;
    if (w > context / rope->low_freq_factor)
        return rope->factor;
    const double s = (context / w - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return 1 / ((1 - s) / rope->factor + s);
}

void rt_rope_to_factors(float *factors, const rt_rope_config *rope, size_t head_dim)
{
    for (size_t i = 0; i < head_dim / 2; i++)
        factors[i] = (float)factor_at(rope, head_dim, i);
}

static bool reproduces(const rt_rope_config *rope, size_t head_dim, const float *factors)
{
    for (size_t i = 0; i < head_dim / 2; i++) /* float32 arithmetic of whoever wrote them */
        if (fabs(factor_at(rope, head_dim, i) - (double)factors[i]) > 1e-3 * (double)factors[i])
            return false;
    return true;
}

/* The line through the first and last blended points, or, with fewer than two, any that separates. */
static bool fit(rt_rope_config *rope, size_t head_dim, const float *factors)
{
    size_t first = SIZE_MAX, last = 0;
    double above = 0,
           below = (double)INFINITY; /* wavelengths of the last untouched and the first divided one */
    for (size_t i = 0; i < head_dim / 2; i++) {
        if (fabsf(factors[i] - 1) < 1e-5f) {
            above = wavelength(rope, head_dim, i);
        } else if (fabs((double)factors[i] - rope->factor) < 1e-5 * rope->factor) {
            below = fmin(below, wavelength(rope, head_dim, i));
        } else {
            first = first == SIZE_MAX ? i : first;
            last = i;
        }
    }
    double context, high = 4;
    if (first == SIZE_MAX || first == last) { /* low = 1 and high = 4, as all published models have */
        context = isinf(below) ? 4 * above : fmin(sqrt(fmax(above, 1) * below) * 2, below * 0.999);
        if (first != SIZE_MAX) {
            const double s = (1 / (double)factors[first] - 1 / rope->factor) / (1 - 1 / rope->factor);
            context = (1 + 3 * s) * wavelength(rope, head_dim, first);
        }
    } else {
        const double s0 = (1 / (double)factors[first] - 1 / rope->factor) / (1 - 1 / rope->factor);
        const double s1 = (1 / (double)factors[last] - 1 / rope->factor) / (1 - 1 / rope->factor);
        const double x0 = 1 / wavelength(rope, head_dim, first), x1 = 1 / wavelength(rope, head_dim, last);
        const double slope = (s0 - s1) / (x0 - x1),
                     cut = s0 - slope * x0; /* s = slope/w + cut, cut = -1/(high-1) */
        high = 1 - 1 / cut;
        context = slope * (high - 1);
    }
    if (!(isfinite(context) && context >= 1 && context < 1e9 && isfinite(high) && high > 1))
        return false;
    rope->low_freq_factor = 1;
    rope->high_freq_factor = fabs(high - nearbyint(high)) < 1e-2 ? nearbyint(high) : high;
    rope->original_context = (size_t)llround(context);
    return true;
}

rt_status rt_rope_from_factors(rt_rope_config *rope, size_t head_dim, const float *factors, const char *where,
                               rt_error *err)
{
    double factor = 1;
    for (size_t i = 0; i < head_dim / 2; i++) {
        if (!(isfinite(factors[i]) && factors[i] >= 0.999f && factors[i] < 1e6f))
            return rt_error_set(err, RT_CORRUPT,
                                "%s: rope_freqs.weight[%zu] is %g; a divisor of at least 1 was "
                                "expected",
                                where, i, (double)factors[i]);
        factor = fmax(factor, (double)factors[i]);
    }
    if (factor < 1.00001)
        return RT_OK; /* all ones: plain */
    rt_rope_config made = {.theta = rope->theta, .scaling = RT_ROPE_LLAMA3, .factor = factor};
    static const size_t published[] = {8192, 0}; /* Llama 3.1 to 3.3; 0: by fitting */
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        made.original_context = published[i];
        made.low_freq_factor = 1;
        made.high_freq_factor = 4;
        if ((published[i] || fit(&made, head_dim, factors)) && reproduces(&made, head_dim, factors)) {
            *rope = made;
            return RT_OK;
        }
    }
    return rt_error_set(
        err, RT_UNSUPPORTED,
        "%s: rope_freqs.weight does not follow llama3's rule, the only one that is supported for it", where);
}
