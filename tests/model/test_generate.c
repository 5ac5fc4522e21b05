/* tests/model/test_generate.c - prompts that begin alike are read once, and the answers are those of reading
 * all of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/size.h"
#include "model/generate.h"
#include "model/weights.h"

#define GOLDEN RT_TEST_SOURCE_DIR "/tests/golden/engine/"

enum { LONGEST = 80, ANSWER = 12, PROMPTS = 14 };

typedef struct texts {
    int32_t ids[PROMPTS][LONGEST];
    rt_prompt prompts[PROMPTS];

} texts;

/* Samples of one prompt, examples before different questions, short ones, ones that share too little. */
static void make_texts(texts *t, size_t n_vocab)
{
    static const struct {
        size_t n, of, same; /* tokens, an earlier prompt, how many of its first ones */
    } plan[PROMPTS] = {{50, 0, 0},  {50, 0, 50}, {50, 0, 50}, {70, 0, 50}, {64, 3, 63},
                       {33, 0, 16}, {80, 0, 15}, {32, 0, 32}, {20, 0, 20}, {40, 6, 40},
                       {80, 6, 80}, {60, 3, 60}, {1, 0, 1},   {45, 5, 33}};
    rt_rng rng = rt_rng_make(5, 2);
    memset(t, 0, sizeof *t);
    for (size_t i = 0; i < PROMPTS; i++) {
        for (size_t k = 0; k < plan[i].n; k++)
            t->ids[i][k] = (int32_t)rt_rng_below(&rng, n_vocab);
        memcpy(t->ids[i], t->ids[plan[i].of], plan[i].same * sizeof(int32_t));
        const size_t differs = plan[i].same;
        if (i && differs < plan[i].n && differs < plan[plan[i].of].n)
            t->ids[i][differs] = (t->ids[plan[i].of][differs] + 1) % (int32_t)n_vocab;
        t->prompts[i] = (rt_prompt){t->ids[i], plan[i].n, ANSWER, i % 5};
    }
}

typedef struct answers {
    int32_t ids[PROMPTS][ANSWER];
    size_t n[PROMPTS], first;
} answers;

static bool keep(void *context, const rt_answer *answer)
{
    answers *a = context;
    a->n[a->first + answer->index] = answer->n;
    memcpy(a->ids[a->first + answer->index], answer->ids, answer->n * sizeof *answer->ids);
    return true;
}

static rt_generate_stats ask(const rt_model *model, const rt_prompt *prompts, size_t n, size_t slots,
                             answers *out)
{
    rt_error err = {0};
    rt_generate_stats stats;
    rt_generate_options options = {.sampling = rt_sampling_default(),
                                   .n_slots = slots,
                                   .n_positions = 128,
                                   .answer = keep,
                                   .context = out};
    options.sampling.temperature = 1;
    options.sampling.seed = 9;
    if (rt_generate(model, NULL, prompts, n, &options, &stats, &err) != RT_OK)
        fail_msg("%s", err.text);
    return stats;
}

static void check_family(const char *family, rt_precision precision)
{
    static texts t;
    static answers want, got;
    rt_error err = {0};
    rt_pool *pool;
    rt_weights *weights;
    rt_model *model;
    char path[512];
    (void)snprintf(path, sizeof path, GOLDEN "%s", family);
    if (rt_pool_open(&pool, 2, &err) != RT_OK || rt_weights_open(&weights, path, &err) != RT_OK ||
        rt_model_open(&model, weights, precision, pool, &err) != RT_OK)
        fail_msg("%s: %s", family, err.text);
    make_texts(&t, model->config.n_vocab);
    memset(&want, 0, sizeof want);
    size_t tokens = 0;
    for (size_t i = 0; i < PROMPTS; i++) { /* alone there is nothing to share */
        want.first = i;
        assert_int_equal(ask(model, &t.prompts[i], 1, 1, &want).prompt_shared, 0);
        tokens += t.prompts[i].n;
    }
    static const size_t slots[] = {1, 3, PROMPTS};
    for (size_t s = 0; s < sizeof slots / sizeof slots[0]; s++) {
        memset(&got, 0, sizeof got);
        const rt_generate_stats stats = ask(model, t.prompts, PROMPTS, slots[s], &got);
        assert_int_equal(stats.prompt_tokens, tokens);
        if (slots[s] == PROMPTS) /* each but the last token of what an earlier one begins with */
            assert_int_equal(stats.prompt_shared, 49 + 49 + 50 + 63 + 16 + 39 + 79 + 59 + 33);
        assert_true(stats.prompt_shared >= 49 + 49 + 50 + 63);
        assert_memory_equal(got.ids, want.ids, sizeof want.ids);
        assert_memory_equal(got.n, want.n, sizeof want.n);
    }
    rt_model_close(model);
    rt_weights_close(weights);
    rt_pool_close(pool);
}

static void beginnings_are_read_once_and_answers_stay(void **state)
{
    (void)state;
    static const rt_precision precisions[] = {RT_PRECISION_F32, RT_PRECISION_BF16, RT_PRECISION_INT8};
    static const char *const families[] = {"llama",          "qwen3",     "gemma3",
                                           "mistral_window", "qwen3_moe", "deepseek_v3"};
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++)
        for (size_t p = 0; p < 3; p++)
            check_family(families[f], precisions[p]);
}

static bool never(void *context, const rt_answer *answer)
{
    (void)context;
    (void)answer;
    return false;
}

static void a_prompt_without_room_is_one_sentence(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_pool *pool;
    rt_weights *weights;
    rt_model *model;
    rt_generate_stats stats;
    static texts t;
    if (rt_pool_open(&pool, 1, &err) != RT_OK || rt_weights_open(&weights, GOLDEN "llama", &err) != RT_OK ||
        rt_model_open(&model, weights, RT_PRECISION_F32, pool, &err) != RT_OK)
        fail_msg("%s", err.text);
    make_texts(&t, model->config.n_vocab);
    rt_generate_options options = {.sampling = rt_sampling_default(), .n_slots = 2, .n_positions = 60};
    assert_int_equal(rt_generate(model, NULL, t.prompts, PROMPTS, &options, &stats, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "prompt 4 has 70 tokens"));
    options.n_positions = 128;
    options.answer = never;
    assert_int_equal(rt_generate(model, NULL, t.prompts, PROMPTS, &options, &stats, &err), RT_STOPPED);
    rt_model_close(model);
    rt_weights_close(weights);
    rt_pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beginnings_are_read_once_and_answers_stay),
        cmocka_unit_test(a_prompt_without_room_is_one_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
