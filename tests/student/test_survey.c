/* tests/student/test_survey.c - what is dead weight in a teacher is found on text and cut off, and the rest
 * computes what it did. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "model/params.h"
#include "student/survey.h"

enum { BATCH = 96, N_DOCS = 60 };

typedef struct world { /* a family's golden model, its values free to be changed */
    rt_pool *pool;
    rt_weights *weights;
    rt_model_config config;
    rt_layout layout;
    float *values;
    rt_model *model;
    rt_documents docs;
} world;

static void world_open(world *w, const char *family, unsigned threads)
{
    char path[256];
    rt_error err = {0};
    memset(w, 0, sizeof *w);
    (void)snprintf(path, sizeof path, RT_TEST_SOURCE_DIR "/tests/golden/engine/%s", family);
    assert_int_equal(rt_pool_open(&w->pool, threads, &err), RT_OK);
    assert_int_equal(rt_weights_open(&w->weights, path, &err), RT_OK);
    assert_int_equal(rt_model_config_read(&w->config, w->weights, &err), RT_OK);
    assert_int_equal(rt_layout_build(&w->layout, &w->config, &err), RT_OK);
    w->values = calloc(w->layout.total, sizeof *w->values);
    assert_int_equal(
        rt_params_load(w->values, &w->layout, &w->config, w->weights, &w->config, NULL, w->pool, &err),
        RT_OK);
    assert_int_equal(
        rt_model_view(&w->model, &w->config, &w->layout, w->values, NULL, RT_PRECISION_F32, w->pool, &err),
        RT_OK);
    rt_rng rng = rt_rng_make(9, 0);
    for (size_t doc = 0; doc < N_DOCS; doc++) {
        int32_t ids[32];
        const size_t n = 4 + (size_t)rt_rng_below(&rng, 28);
        for (size_t i = 0; i < n; i++)
            ids[i] = (int32_t)rt_rng_below(&rng, (uint32_t)w->config.n_vocab);
        assert_int_equal(rt_documents_add(&w->docs, ids, NULL, n, &err), RT_OK);
    }
}

static void world_close(world *w)
{
    rt_documents_deinit(&w->docs);
    rt_model_close(w->model);
    free(w->values);
    rt_layout_free(&w->layout);
    rt_weights_close(w->weights);
    rt_pool_close(w->pool);
}

static float *tensor(world *w, size_t layer, rt_role role)
{
    const rt_param *p = rt_layout_role(&w->layout, layer, (int)role);
    assert_non_null(p);
    return w->values + p->offset;
}

static void zero_rows(world *w, size_t layer, rt_role role, size_t first, size_t n)
{
    const rt_param *p = rt_layout_role(&w->layout, layer, (int)role);
    if (p)
        memset(w->values + p->offset + first * (p->cols ? p->cols : 1), 0,
               n * (p->cols ? p->cols : 1) * sizeof *w->values);
}

/* Logits of the last token of a text under values of a shape. */
static void last_logits(float *out, const rt_model_config *config, const rt_layout *layout,
                        const float *values, rt_pool *pool)
{
    static const int32_t ids[] = {5, 17, 3, 44, 80, 12, 9};
    enum { N = sizeof ids / sizeof ids[0] };
    const rt_segment segment = {.count = N};
    const rt_batch batch = {ids, N, &segment, 1};
    const size_t row = N - 1;
    rt_model *model;
    rt_pass *pass;
    rt_error err = {0};
    assert_int_equal(rt_model_view(&model, config, layout, values, NULL, RT_PRECISION_F32, pool, &err),
                     RT_OK);
    assert_int_equal(rt_pass_open(&pass, model, 64, false, &err), RT_OK);
    rt_forward(model, pass, &batch, NULL, NULL);
    rt_logits(model, pass, &row, 1, out);
    rt_pass_close(pass);
    rt_model_close(model);
}

/* The student of these sizes and layers has the teacher's logits. */
static void cut_computes_the_same(world *w, const rt_cut_sizes *sizes, const size_t *layers, size_t n_layers)
{
    rt_survey survey;
    rt_cut cut;
    rt_layout layout;
    rt_model_config small;
    rt_error err = {0};
    float want[128], got[128];
    rt_model_config_take_layers(&small, &w->config, layers, n_layers);
    assert_int_equal(rt_cut_config(&small, sizes, &err), RT_OK);
    assert_int_equal(rt_survey_run(&survey, w->model, &w->docs, 1, 200, BATCH, true, &err), RT_OK);
    assert_int_equal(rt_survey_cut(&cut, &survey, &small, layers, &err), RT_OK);
    assert_int_equal(rt_layout_build(&layout, &small, &err), RT_OK);
    float *values = calloc(layout.total, sizeof *values);
    assert_int_equal(
        rt_params_slice(values, &layout, &small, w->values, &w->layout, &w->config, &cut.map, &err), RT_OK);
    last_logits(want, &w->config, &w->layout, w->values, w->pool);
    last_logits(got, &small, &layout, values, w->pool);
    for (size_t i = 0; i < w->config.n_vocab; i++)
        assert_true(fabsf(want[i] - got[i]) <= 2e-5f * (1 + fabsf(want[i])));
    free(values);
    rt_layout_free(&layout);
    rt_cut_deinit(&cut);
    rt_survey_deinit(&survey);
}

static const char *const families[] = {"llama", "qwen2", "qwen3", "gemma3", "mistral_window"};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

static void dead_units_are_found_and_cutting_them_changes_nothing(void **state)
{
    (void)state;
    for (size_t f = 0; f < N_FAMILIES; f++) {
        world w;
        world_open(&w, families[f], 2);
        for (size_t l = 0; l < w.config.n_layers; l++)
            for (size_t i = 0; i < 20; i++) /* other units in each layer */
                zero_rows(&w, l, RT_ROLE_UP, (5 * i + l) % w.config.n_ff, 1);
        const size_t layers[] = {0, 1};
        cut_computes_the_same(&w, &(rt_cut_sizes){.n_ff = w.config.n_ff - 20}, layers, 2);
        world_close(&w);
    }
}

static void a_dead_kv_head_goes_with_its_queries(void **state)
{
    (void)state;
    for (size_t f = 0; f < N_FAMILIES; f++) {
        world w;
        world_open(&w, families[f], 1);
        const size_t hd = w.config.head_dim;
        for (size_t l = 0; l < w.config.n_layers; l++) {
            const size_t dead = (l + 1) % w.config.n_heads_kv;
            zero_rows(&w, l, RT_ROLE_V, dead * hd, hd);
            zero_rows(&w, l, RT_ROLE_V_BIAS, dead * hd, hd);
        }
        const size_t layers[] = {0, 1};
        cut_computes_the_same(&w, &(rt_cut_sizes){.n_heads_kv = w.config.n_heads_kv - 1}, layers, 2);
        world_close(&w);
    }
}

static void channels_that_nothing_writes_to_go(void **state)
{
    (void)state;
    enum { DEAD = 8 };
    world w;
    world_open(&w, "llama", 2);
    const size_t d = w.config.n_embd, n_q = w.config.n_heads * w.config.head_dim;
    uint32_t dead[DEAD];
    const rt_param *embed = rt_layout_global(&w.layout, RT_GLOBAL_EMBED);
    for (size_t i = 0; i < DEAD; i++) {
        dead[i] = (uint32_t)((5 * i + 1) % d);
        for (size_t v = 0; v < w.config.n_vocab; v++)
            w.values[embed->offset + v * d + dead[i]] = 0;
        for (size_t l = 0; l < w.config.n_layers; l++) {
            memset(tensor(&w, l, RT_ROLE_O) + dead[i] * n_q, 0, n_q * sizeof(float));
            memset(tensor(&w, l, RT_ROLE_DOWN) + dead[i] * w.config.n_ff, 0, w.config.n_ff * sizeof(float));
        }
    }
    rt_survey survey;
    rt_cut cut;
    rt_model_config small = w.config;
    rt_error err = {0};
    const size_t layers[] = {0, 1};
    assert_int_equal(rt_cut_config(&small, &(rt_cut_sizes){.n_embd = d - DEAD}, &err), RT_OK);
    assert_int_equal(rt_survey_run(&survey, w.model, &w.docs, 1, 200, BATCH, true, &err), RT_OK);
    assert_int_equal(rt_survey_cut(&cut, &survey, &small, layers, &err), RT_OK);
    for (size_t i = 0; i < small.n_embd; i++)
        for (size_t k = 0; k < DEAD; k++)
            assert_int_not_equal(cut.channels[i], dead[k]);
    rt_cut_deinit(&cut);
    rt_survey_deinit(&survey);
    world_close(&w);
}

static void a_layer_that_does_nothing_has_no_influence(void **state)
{
    (void)state;
    for (size_t idle = 0; idle < 2; idle++) {
        world w;
        world_open(&w, "llama", 2);
        zero_rows(&w, idle, RT_ROLE_O, 0, w.config.n_embd);
        zero_rows(&w, idle, RT_ROLE_DOWN, 0, w.config.n_embd);
        rt_survey survey;
        rt_error err = {0};
        double scores[2];
        assert_int_equal(rt_survey_run(&survey, w.model, &w.docs, 1, 200, BATCH, false, &err), RT_OK);
        assert_true(survey.tokens >= 200 && survey.documents < N_DOCS);
        rt_influence_scores(&survey.influence, scores);
        assert_true(fabs(scores[idle]) < 1e-6 && scores[1 - idle] > 1e-3);
        rt_survey_deinit(&survey);
        const size_t layers[] = {1 - idle};
        cut_computes_the_same(&w, &(rt_cut_sizes){0}, layers, 1);
        world_close(&w);
    }
}

static void the_number_of_threads_changes_no_score(void **state)
{
    (void)state;
    double scores[2][256];
    for (unsigned threads = 1; threads <= 2; threads++) {
        world w;
        rt_survey survey;
        rt_error err = {0};
        world_open(&w, "qwen3", threads);
        /* more than there is: every document once */
        assert_int_equal(rt_survey_run(&survey, w.model, &w.docs, 1, 1 << 20, BATCH, true, &err), RT_OK);
        assert_int_equal(survey.documents, N_DOCS);
        assert_int_equal(survey.tokens, w.docs.n_tokens);
        assert_int_equal(survey.units[1].sequences, N_DOCS);
        assert_int_equal(survey.channels[2 * w.config.n_layers].tokens, w.docs.n_tokens);
        rt_importance_scores(&survey.units[1], RT_IMPORTANCE_SEQMEAN_BATCHL2, scores[threads - 1]);
        rt_importance_scores(&survey.heads[0], RT_IMPORTANCE_SEQMEAN_BATCHL2, scores[threads - 1] + 100);
        rt_survey_deinit(&survey);
        world_close(&w);
    }
    assert_memory_equal(scores[0], scores[1], 56 * sizeof scores[0][0]);
    assert_memory_equal(scores[0] + 100, scores[1] + 100, 4 * sizeof scores[0][0]);
}

static void the_file_gives_the_slice_that_memory_gives(void **state)
{
    (void)state;
    world w;
    world_open(&w, "gemma3", 2);
    rt_survey survey;
    rt_cut cut;
    rt_layout layout;
    rt_model_config small;
    rt_error err = {0};
    const size_t layers[] = {1};
    rt_model_config_take_layers(&small, &w.config, layers, 1);
    const rt_cut_sizes sizes = {.n_embd = 20, .n_ff = 31, .n_heads = 2};
    assert_int_equal(rt_cut_config(&small, &sizes, &err), RT_OK);
    assert_true(fabs(small.embed_scale - sqrt(20)) < 1e-9);
    assert_int_equal(rt_survey_run(&survey, w.model, &w.docs, 1, 100, BATCH, true, &err), RT_OK);
    assert_int_equal(rt_survey_cut(&cut, &survey, &small, layers, &err), RT_OK);
    assert_int_equal(rt_layout_build(&layout, &small, &err), RT_OK);
    float *a = calloc(layout.total, sizeof *a), *b = calloc(layout.total, sizeof *b);
    assert_int_equal(rt_params_slice(a, &layout, &small, w.values, &w.layout, &w.config, &cut.map, &err),
                     RT_OK);
    assert_int_equal(rt_params_load_slice(b, &layout, &small, w.weights, &w.config, &cut.map, w.pool, &err),
                     RT_OK);
    assert_memory_equal(a, b, layout.total * sizeof *a);
    free(a);
    free(b);
    rt_layout_free(&layout);
    rt_cut_deinit(&cut);
    rt_survey_deinit(&survey);
    world_close(&w);
}

static void shapes_that_cannot_be_cut_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *family;
        rt_cut_sizes sizes;
        rt_status status;
        const char *says;
    } cases[] = {
        {"llama", {.n_ff = 57}, RT_INVALID, "student.n_ff: 57 is more than the teacher's 56"},
        {"llama", {.n_heads = 3}, RT_INVALID, "student.n_heads: 3 heads on 2 kv heads"},
        {"llama", {.n_heads = 4, .n_heads_kv = 1}, RT_INVALID, "2 heads a kv head"},
        {"llama", {.n_heads_kv = 3}, RT_INVALID, "more than the teacher's"},
        {"gpt2", {.n_embd = 24}, RT_INVALID, "n_embd must be n_heads x 8 = 32"},
        {"qwen3_moe", {.n_embd = 16}, RT_UNSUPPORTED, "experts"},
        {"deepseek_v3", {.n_ff = 16}, RT_UNSUPPORTED, "experts"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[256];
        rt_weights *weights;
        rt_model_config config;
        rt_error err = {0};
        (void)snprintf(path, sizeof path, RT_TEST_SOURCE_DIR "/tests/golden/engine/%s", cases[i].family);
        assert_int_equal(rt_weights_open(&weights, path, &err), RT_OK);
        assert_int_equal(rt_model_config_read(&config, weights, &err), RT_OK);
        assert_int_equal(rt_cut_config(&config, &cases[i].sizes, &err), cases[i].status);
        if (!strstr(err.text, cases[i].says))
            fail_msg("%s: '%s' does not say '%s'", cases[i].family, err.text, cases[i].says);
        rt_weights_close(weights);
    }
    /* every head has its own keys: n_heads cuts both */
    rt_model_config config = {.family = "llama",
                              .n_layers = 1,
                              .n_embd = 32,
                              .n_heads = 4,
                              .n_heads_kv = 4,
                              .head_dim = 8,
                              .n_ff = 8,
                              .n_vocab = 8,
                              .n_context = 8,
                              .norm_eps = 1e-5,
                              .attention_scale = 1,
                              .embed_scale = 1,
                              .rope = {.theta = 1e4}};
    rt_error err = {0};
    assert_int_equal(rt_cut_config(&config, &(rt_cut_sizes){.n_heads = 3}, &err), RT_OK);
    assert_int_equal(config.n_heads_kv, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dead_units_are_found_and_cutting_them_changes_nothing),
        cmocka_unit_test(a_dead_kv_head_goes_with_its_queries),
        cmocka_unit_test(channels_that_nothing_writes_to_go),
        cmocka_unit_test(a_layer_that_does_nothing_has_no_influence),
        cmocka_unit_test(the_number_of_threads_changes_no_score),
        cmocka_unit_test(the_file_gives_the_slice_that_memory_gives),
        cmocka_unit_test(shapes_that_cannot_be_cut_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
