/* cli/bench_infer.c - prefill and decoding.
 *
 * Limits: prefill has to multiply with every weight of the layers once a token; decoding has to read every
 * weight once a step, and the keys and values of every sequence. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/size.h"
#include "cli/bench.h"
#include "cli/open_model.h"
#include "model/session.h"
#include "student/cost.h"

enum { SHORT_TOKENS = 32, DECODE_TOKENS = 48, BATCH = 16 };

typedef struct scene {
    bench *b;
    cli_model model;
    rt_session *session;
    int32_t *ids; /* [b->options.tokens] */
    float *logits;
    double *times; /* [runs] */
} scene;

/* That a token is multiplied with: of experts those that it goes to. */
static double layer_weights(const rt_model_config *c)
{
    rt_cost_shape shape;
    rt_cost_shape_of(&shape, c);
    return shape.matmul - shape.head;
}

static double kv_bytes(const rt_model *model, size_t positions)
{
    const rt_model_config *c = &model->config;
    return 2 * (double)rt_dtype_get(model->act)->block_bytes *
           (double)(c->n_layers * c->n_heads_kv * c->head_dim) * (double)positions;
}

static rt_status open_scene(scene *s, bench *b, size_t slots, rt_error *err)
{
    *s = (scene){.b = b};
    if (cli_model_open(&s->model, b->options.model, cli_precision(b->options.precision),
                       CLI_MODEL_NO_TOKENIZER, b->pool, err) != RT_OK)
        return err->status;
    const rt_model_config *c = &s->model.model->config;
    const size_t tokens = b->options.tokens;
    if (tokens + DECODE_TOKENS > c->n_context || tokens < SHORT_TOKENS)
        return rt_error_set(err, RT_INVALID, "bench: --tokens %zu is not in %d..%zu", tokens, SHORT_TOKENS,
                            c->n_context - DECODE_TOKENS);
    s->ids = calloc(tokens, sizeof *s->ids);
    s->logits = calloc(slots * c->n_vocab, sizeof *s->logits);
    s->times = calloc(b->options.runs, sizeof *s->times);
    if (!s->ids || !s->logits || !s->times)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu tokens", tokens);
    rt_rng rng = rt_rng_make(1, 0);
    for (size_t i = 0; i < tokens; i++)
        s->ids[i] = (int32_t)rt_rng_below(&rng, c->n_vocab);
    return rt_session_open(&s->session, s->model.model, slots, tokens + DECODE_TOKENS, err);
}

static void close_scene(scene *s)
{
    rt_session_close(s->session);
    cli_model_close(&s->model);
    free(s->ids);
    free(s->logits);
    free(s->times);
}

static rt_status prefill_runs(scene *s, rt_error *err)
{
    const size_t tokens = s->b->options.tokens, runs = s->b->options.runs;
    for (size_t run = 0; run <= runs; run++) { /* the first one warms up */
        rt_session_truncate(s->session, 0, 0);
        const double from = rt_clock_seconds();
        if (rt_session_prefill(s->session, 0, s->ids, tokens, s->logits, err) != RT_OK)
            return err->status;
        if (run > 0)
            s->times[run - 1] = rt_clock_seconds() - from;
    }
    return RT_OK;
}

rt_status bench_prefill(bench *b, rt_error *err)
{
    scene s;
    rt_status status = open_scene(&s, b, 1, err);
    if (status == RT_OK)
        status = prefill_runs(&s, err);
    if (status == RT_OK) {
        const rt_model *model = s.model.model;
        const double rate = model->precision == RT_PRECISION_INT8   ? b->limits.int8
                            : model->precision == RT_PRECISION_BF16 ? b->limits.bf16
                                                                    : b->limits.f32;
        bench_add(b, &(bench_row){.name = "prefill",
                                  .unit = "tokens/s",
                                  .value = (double)b->options.tokens / bench_median(s.times, b->options.runs),
                                  .limit = rate / (2 * layer_weights(&model->config))});
    }
    close_scene(&s);
    return status;
}

/* Steps of n sequences that hold `context` tokens each when the clock starts. */
static rt_status decode_runs(scene *s, size_t n, size_t context, double *tokens_per_s, rt_error *err)
{
    size_t slots[BATCH];
    int32_t ids[BATCH];
    for (size_t i = 0; i < n; i++) {
        slots[i] = i;
        rt_session_truncate(s->session, i, 0);
        if (rt_session_prefill(s->session, i, s->ids, context, NULL, err) != RT_OK)
            return err->status;
    }
    for (size_t run = 0; run < s->b->options.runs; run++) {
        for (size_t i = 0; i < n; i++)
            rt_session_truncate(s->session, i, context);
        const double from = rt_clock_seconds();
        for (size_t step = 0; step < DECODE_TOKENS; step++) {
            for (size_t i = 0; i < n; i++)
                ids[i] = s->ids[(step + i) % SHORT_TOKENS];
            if (rt_session_decode(s->session, slots, ids, n, s->logits, err) != RT_OK)
                return err->status;
        }
        s->times[run] = rt_clock_seconds() - from;
    }
    *tokens_per_s = (double)(n * DECODE_TOKENS) / bench_median(s->times, s->b->options.runs);
    return RT_OK;
}

rt_status bench_decode(bench *b, rt_error *err)
{
    scene s;
    double one = 0, after = 0, batch = 0;
    const size_t tokens = b->options.tokens;
    rt_status status = open_scene(&s, b, BATCH, err);
    if (status == RT_OK)
        status = decode_runs(&s, 1, SHORT_TOKENS, &one, err);
    if (status == RT_OK)
        status = decode_runs(&s, 1, tokens, &after, err);
    if (status == RT_OK)
        status = decode_runs(&s, BATCH, SHORT_TOKENS, &batch, err);
    if (status == RT_OK) {
        const rt_model *model = s.model.model;
        const double weights = (double)rt_model_weight_bytes(model), half = DECODE_TOKENS / 2.0;
        bench_add(b, &(bench_row){.name = "decoding, short context",
                                  .unit = "tokens/s",
                                  .value = one,
                                  .limit = b->limits.read /
                                           (weights + kv_bytes(model, SHORT_TOKENS + (size_t)half))});
        bench_add(b,
                  &(bench_row){.name = "decoding after the prefill's tokens",
                               .unit = "tokens/s",
                               .value = after,
                               .limit = b->limits.read / (weights + kv_bytes(model, tokens + (size_t)half))});
        bench_add(b, &(bench_row){.name = "decoding, batch 16",
                                  .unit = "tokens/s",
                                  .value = batch,
                                  .limit = b->limits.int8 /
                                           (2 * (layer_weights(&model->config) +
                                                 (double)(model->config.n_vocab * model->config.n_embd)))});
        bench_add(b, &(bench_row){.name = "batch 16 over batch 1",
                                  .unit = "x",
                                  .value = batch / one,
                                  .bar = BENCH_AT_LEAST,
                                  .must = 4,
                                  .aim = 8});
    }
    close_scene(&s);
    return status;
}
