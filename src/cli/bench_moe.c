/* cli/bench_moe.c - a mixture of experts of DeepSeek-V3's shape, scaled down, with random weights.
 *
 * Limit: the weights that a token is multiplied with (the experts that it goes to and everything else,
 * without the head), two operations each, at the machine's rate of bf16 products.  The batches are those of a
 * teacher that scores texts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/size.h"
#include "cli/bench.h"
#include "model/decoder.h"
#include "student/cost.h"

enum { LAYERS = 5, DENSE = 1, WIDTH = 768, SEQUENCE = 512, FILL_RANGE = 1 << 20 };

static rt_model_config moe_config(void)
{
    rt_model_config c = {.family = "deepseek_v3",
                         .n_layers = LAYERS,
                         .n_embd = WIDTH,
                         .n_heads = 8,
                         .n_heads_kv = 8,
                         .head_dim = 96,
                         .n_ff = 2048,
                         .n_vocab = 4096,
                         .n_context = 4096,
                         .norm = RT_NORM_RMS,
                         .norm_eps = 1e-6,
                         .gated_mlp = true,
                         .act = RT_ACT_SILU,
                         .attention_scale = 1 / sqrt(96),
                         .embed_scale = 1,
                         .rope = {.theta = 1e4},
                         .latent = {.kv_rank = 128,
                                    .q_rank = 256,
                                    .nope = 64,
                                    .rope = 32,
                                    .value = 64,
                                    .norm_eps = 1e-6,
                                    .interleaved = true},
                         .experts = {.count = 256,
                                     .used = 8,
                                     .n_ff = 192,
                                     .n_ff_shared = 192,
                                     .groups = 8,
                                     .groups_used = 4,
                                     .router = RT_ROUTER_SIGMOID,
                                     .normalised = true,
                                     .bias = true,
                                     .scale = 2.5},
                         .bos_id = 0,
                         .eos_id = 1,
                         .pad_id = -1};
    for (size_t l = DENSE; l < LAYERS; l++)
        c.experts.sparse[l] = true;
    return c;
}

typedef struct scene {
    rt_model_config config;
    rt_layout layout;
    rt_arena arena;
    float *values; /* only where float32 is read: vectors and routers */
    rt_bf16 *half;
    const rt_bf16 *noise; /* [2 * FILL_RANGE] */
    rt_model *model;
    rt_pass *pass;
    int32_t *ids;
    rt_segment *segments;
} scene;

/* Stretches of one list of random numbers, each from another place of it. */
static void fill_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const scene *s = context;
    rt_rng rng = rt_rng_make(3, index);
    const size_t begin = index * FILL_RANGE, count = rt_size_min(FILL_RANGE, s->layout.total - begin);
    memcpy(s->half + begin, s->noise + rt_rng_below(&rng, FILL_RANGE), count * sizeof *s->half);
}

static rt_status fill_half(scene *s, rt_pool *pool, rt_error *err)
{
    rt_bf16 *noise = malloc(2 * (size_t)FILL_RANGE * sizeof *noise);
    rt_rng rng = rt_rng_make(1, 0);
    if (!noise)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for random weights");
    for (size_t i = 0; i < 2 * (size_t)FILL_RANGE; i++) /* of the spread that keeps rows of WIDTH near 1 */
        noise[i] = rt_f32_to_bf16((float)((rt_rng_uniform(&rng) - 0.5) * 3.46 / sqrt(WIDTH)));
    s->noise = noise;
    rt_pool_run(pool, rt_size_ceil_div(s->layout.total, FILL_RANGE), fill_task, s);
    free(noise);
    return RT_OK;
}

static void fill_float(const scene *s)
{
    for (size_t k = 0; k < s->layout.count; k++) {
        const rt_param *p = &s->layout.list[k];
        const bool router = p->layer != RT_NO_LAYER && p->which == RT_ROLE_ROUTER;
        for (size_t i = 0; i < p->count && (router || !p->cols); i++)
            s->values[p->offset + i] = router ? rt_bf16_to_f32(s->half[p->offset + i])
                                       : p->which == RT_ROLE_ROUTER_BIAS && p->layer != RT_NO_LAYER ? 0
                                                                                                    : 1;
    }
}

static rt_status open_scene(scene *s, bench *b, size_t tokens, rt_error *err)
{
    *s = (scene){.config = moe_config()};
    if (rt_layout_build(&s->layout, &s->config, err) != RT_OK ||
        rt_arena_init(&s->arena, s->layout.total * 6 + tokens * 64 + 4096, err) != RT_OK)
        return err->status;
    s->half = rt_arena_push_raw(&s->arena, s->layout.total, sizeof *s->half);
    s->ids = rt_arena_push(&s->arena, tokens, sizeof *s->ids);
    s->segments = rt_arena_push(&s->arena, tokens / SEQUENCE, sizeof *s->segments);
    s->values = rt_arena_push_raw(&s->arena, s->layout.total, sizeof *s->values);
    if (fill_half(s, b->pool, err) != RT_OK)
        return err->status;
    fill_float(s);
    rt_rng rng = rt_rng_make(2, 0);
    for (size_t i = 0; i < tokens; i++)
        s->ids[i] = (int32_t)rt_rng_below(&rng, s->config.n_vocab);
    for (size_t i = 0; i < tokens / SEQUENCE; i++)
        s->segments[i] = (rt_segment){.begin = i * SEQUENCE, .count = SEQUENCE};
    if (rt_model_view(&s->model, &s->config, &s->layout, s->values, s->half, RT_PRECISION_BF16, b->pool,
                      err) != RT_OK)
        return err->status;
    return rt_pass_open(&s->pass, s->model, tokens, false, err);
}

static void close_scene(scene *s)
{
    rt_pass_close(s->pass);
    rt_model_close(s->model);
    rt_layout_free(&s->layout);
    rt_arena_deinit(&s->arena);
}

/* Median tokens/s of forward passes over `tokens`. */
static rt_status measure(scene *s, const bench *b, size_t tokens, double *rate, rt_error *err)
{
    double *times = calloc(b->options.runs, sizeof *times);
    if (!times)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu runs", b->options.runs);
    const rt_batch batch = {s->ids, tokens, s->segments, tokens / SEQUENCE};
    for (size_t run = 0; run <= b->options.runs; run++) { /* the first one warms up */
        const double from = rt_clock_seconds();
        rt_forward(s->model, s->pass, &batch, NULL, NULL);
        if (run > 0)
            times[run - 1] = rt_clock_seconds() - from;
    }
    *rate = (double)tokens / bench_median(times, b->options.runs);
    free(times);
    return RT_OK;
}

rt_status bench_moe(bench *b, rt_error *err)
{
    static const struct {
        const char *name;
        size_t tokens;
    } cases[] = {{"experts, batch of 2,048 tokens", 2048}, {"experts, batch of 8,192 tokens", 8192}};
    scene s;
    rt_status status = open_scene(&s, b, 8192, err);
    for (size_t i = 0; i < 2 && status == RT_OK; i++) {
        rt_cost_shape shape;
        double rate = 0;
        rt_cost_shape_of(&shape, &s.config);
        status = measure(&s, b, cases[i].tokens, &rate, err);
        if (status == RT_OK)
            bench_add(b, &(bench_row){.name = cases[i].name,
                                      .unit = "tokens/s",
                                      .value = rate,
                                      .limit = b->limits.bf16 / (2 * (shape.matmul - shape.head)),
                                      .bar = BENCH_SHARE,
                                      .must = 0.4,
                                      .aim = 0.6});
    }
    close_scene(&s);
    return status;
}
