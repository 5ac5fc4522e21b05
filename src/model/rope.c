/* model/rope.c - see rope.h. */
#include "model/rope.h"

#include <assert.h>
#include <math.h>

#include "base/size.h"

static const double two_pi = 6.283185307179586476925;

/* Llama 3: long wavelengths are divided by the factor, short ones kept, with a ramp between. */
static double llama3_frequency(double frequency, const rt_rope_config *c)
{
    const double context = (double)c->original_context, wavelength = two_pi / frequency;
    if (wavelength > context / c->low_freq_factor)
        return frequency / c->factor;
    if (wavelength < context / c->high_freq_factor)
        return frequency;
    const double smooth =
        (context / wavelength - c->low_freq_factor) / (c->high_freq_factor - c->low_freq_factor);
    return (1 - smooth) * frequency / c->factor + smooth * frequency;
}

/* YaRN: the dimension that turns `rotations` times over the original context. */
static double yarn_dimension(double rotations, const rt_rope_config *c, double head_dim)
{
    return head_dim * log((double)c->original_context / (rotations * two_pi)) / (2 * log(c->theta));
}

static void yarn_frequencies(double *frequency, const rt_rope_config *c, size_t head_dim)
{
    const size_t half = head_dim / 2;
    const double fast = c->beta_fast > 0 ? c->beta_fast : 32, slow = c->beta_slow > 0 ? c->beta_slow : 1;
    const double low = fmax(floor(yarn_dimension(fast, c, (double)head_dim)), 0);
    double high = fmin(ceil(yarn_dimension(slow, c, (double)head_dim)), (double)head_dim - 1);
    if (high <= low)
        high = low + 0.001;
    for (size_t i = 0; i < half; i++) {
        const double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
        frequency[i] = frequency[i] / c->factor * ramp + frequency[i] * (1 - ramp);
    }
}

void rt_rope_frequencies(double *frequency, double *factor, const rt_rope_config *c, size_t head_dim)
{
    *factor = 1;
    for (size_t i = 0; i < head_dim / 2; i++) {
        frequency[i] = pow(c->theta, -2.0 * (double)i / (double)head_dim);
        if (c->scaling == RT_ROPE_LINEAR)
            frequency[i] /= c->factor;
        else if (c->scaling == RT_ROPE_LLAMA3)
            frequency[i] = llama3_frequency(frequency[i], c);
    }
    if (c->scaling == RT_ROPE_YARN) {
        yarn_frequencies(frequency, c, head_dim);
        *factor = c->attention_factor > 0 ? c->attention_factor
                  : c->factor > 1         ? 0.1 * log(c->factor) + 1
                                          : 1;
    }
}

rt_status rt_rope_init(rt_rope *rope, const rt_rope_config *config, size_t head_dim, size_t n_positions,
                       rt_error *err)
{
    *rope = (rt_rope){.half = head_dim / 2, .n_positions = n_positions};
    size_t row = rope->half, bytes;
    if (!rt_size_mul(n_positions, row, &bytes) || !rt_size_mul(bytes, 2 * sizeof(float), &bytes) ||
        !rt_size_add(bytes, row * sizeof(double) + 4 * 64, &bytes))
        return rt_error_set(err, RT_INVALID, "a context of %zu tokens is too long", n_positions);
    if (rt_arena_init(&rope->arena, bytes, err) != RT_OK)
        return err->status;
    rope->frequency = rt_arena_push_raw(&rope->arena, row, sizeof(double));
    rope->cosines = rt_arena_push_raw(&rope->arena, n_positions * row, sizeof(float));
    rope->sines = rt_arena_push_raw(&rope->arena, n_positions * row, sizeof(float));
    (void)pthread_mutex_init(&rope->lock, NULL);
    rt_rope_frequencies(rope->frequency, &rope->factor, config, head_dim);
    return RT_OK;
}

void rt_rope_deinit(rt_rope *rope)
{
    if (rope->cosines)
        (void)pthread_mutex_destroy(&rope->lock);
    rt_arena_deinit(&rope->arena);
    rope->cosines = rope->sines = NULL;
}

void rt_rope_prepare(rt_rope *rope, size_t n)
{
    assert(n <= rope->n_positions);
    if (atomic_load_explicit(&rope->n_ready, memory_order_acquire) >= n)
        return;
    (void)pthread_mutex_lock(&rope->lock);
    const size_t from = atomic_load(&rope->n_ready),
                 to = rt_size_min(rt_size_round_up(n, 256), rope->n_positions);
    for (size_t p = from; p < to; p++) {
        for (size_t i = 0; i < rope->half; i++) {
            const double angle = (double)p * rope->frequency[i];
            rope->cosines[p * rope->half + i] = (float)(cos(angle) * rope->factor);
            rope->sines[p * rope->half + i] = (float)(sin(angle) * rope->factor);
        }
    }
    if (to > from)
        atomic_store_explicit(&rope->n_ready, to, memory_order_release);
    (void)pthread_mutex_unlock(&rope->lock);
}
