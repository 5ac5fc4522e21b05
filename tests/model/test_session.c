/* tests/model/test_session.c - a sequence gives the same logits however it is cut into calls: at once, in
 * pieces, token by token, beside others, after a truncation; and what does not fit is refused.
 *
 * The families' small models (contexts of 64 and 128, windows of 7 and 8) run in float32, where only the
 * order of sums may differ. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "base/size.h"
#include "model/session.h"

#define GOLDEN RT_TEST_SOURCE_DIR "/tests/golden/engine/"

static const char *const families[] = {"llama",          "llama_untied_rope3",
                                       "llama_head_dim", "llama_yarn",
                                       "mistral_window", "qwen2",
                                       "qwen3",          "gemma3",
                                       "gpt2",           "qwen3_moe",
                                       "deepseek_v3"};
enum { N_FAMILIES = sizeof families / sizeof families[0], LENGTH = 60 };

static rt_pool *pool;

static rt_model *open_model(const char *path, rt_precision precision)
{
    rt_error err = {0};
    rt_weights *weights;
    rt_model *model;
    if (rt_weights_open(&weights, path, &err) != RT_OK ||
        rt_model_open(&model, weights, precision, pool, &err) != RT_OK)
        fail_msg("%s", err.text);
    rt_weights_close(weights);
    return model;
}

static rt_model *open_family(const char *family, rt_precision precision)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s%s", GOLDEN, family);
    return open_model(path, precision);
}

static rt_session *open_session(const rt_model *model, size_t slots, size_t positions)
{
    rt_error err = {0};
    rt_session *session;
    if (rt_session_open(&session, model, slots, positions, &err) != RT_OK)
        fail_msg("%s", err.text);
    return session;
}

static void fill_ids(int32_t *ids, size_t n, uint64_t seed, size_t n_vocab)
{
    rt_rng rng = rt_rng_make(seed, 0);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)rt_rng_below(&rng, n_vocab);
}

/* The logits of every row by one forward pass over packed sequences of `length` tokens; freed by the caller.
 */
static float *forward_logits(const rt_model *model, const int32_t *ids, size_t sequences, size_t length)
{
    rt_error err = {0};
    rt_pass *pass;
    const size_t n = sequences * length, vocab = model->config.n_vocab;
    assert_int_equal(rt_pass_open(&pass, model, n, false, &err), RT_OK);
    rt_segment *segments = calloc(sequences, sizeof *segments);
    size_t *rows = calloc(n, sizeof *rows);
    float *out = calloc(n * vocab, sizeof *out);
    assert_true(segments && rows && out);
    for (size_t i = 0; i < sequences; i++)
        segments[i] = (rt_segment){.begin = i * length, .count = length};
    for (size_t i = 0; i < n; i++)
        rows[i] = i;
    const rt_batch batch = {ids, n, segments, sequences};
    rt_forward(model, pass, &batch, NULL, NULL);
    rt_logits(model, pass, rows, n, out);
    rt_pass_close(pass);
    free(segments);
    free(rows);
    return out;
}

/* Relative to the largest entry of `want`. */
static double distance(const float *got, const float *want, size_t n)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        const double off = fabs((double)got[i] - (double)want[i]);
        worst = off > worst || isnan(off) ? off : worst;
        largest = fmax(largest, fabs((double)want[i]));
    }
    return worst / largest;
}

static void check_near(const char *what, const char *family, const float *got, const float *want, size_t n,
                       double tolerance)
{
    const double off = distance(got, want, n);
    if (!(off <= tolerance))
        fail_msg("%s, %s: off by %g, tolerance %g", family, what, off, tolerance);
}

static void prefill(rt_session *session, size_t slot, const int32_t *ids, size_t n, float *logits)
{
    rt_error err = {0};
    if (rt_session_prefill(session, slot, ids, n, logits, &err) != RT_OK)
        fail_msg("%s", err.text);
}

static void decode(rt_session *session, const size_t *slots, const int32_t *ids, size_t n, float *logits)
{
    rt_error err = {0};
    if (rt_session_decode(session, slots, ids, n, logits, &err) != RT_OK)
        fail_msg("%s", err.text);
}

static void a_sequence_gives_the_same_logits_however_it_is_cut(void **state)
{
    (void)state;
    /* pieces on both sides of the 32 tokens where the way of computing changes, and of the windows */
    static const size_t pieces[][8] = {{60},     {33, 27},       {1, 5, 9, 45},
                                       {32, 28}, {40, 1, 1, 18}, {7, 8, 44, 1}};
    for (size_t f = 0; f < N_FAMILIES; f++) {
        rt_model *model = open_family(families[f], RT_PRECISION_F32);
        const size_t vocab = model->config.n_vocab;
        int32_t ids[LENGTH];
        fill_ids(ids, LENGTH, f + 1, vocab);
        float *want = forward_logits(model, ids, 1, LENGTH), *got = calloc(LENGTH * vocab, sizeof *got);
        rt_session *session = open_session(model, 1, 0);
        for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; p++) {
            rt_session_truncate(session, 0, 0);
            for (size_t at = 0, i = 0; at < LENGTH; at += pieces[p][i++]) {
                const size_t last = at + pieces[p][i] - 1;
                prefill(session, 0, ids + at, pieces[p][i], got);
                check_near("prefilled in pieces", families[f], got, want + last * vocab, vocab, 1e-4);
            }
            assert_int_equal(rt_session_length(session, 0), LENGTH);
        }
        rt_session_truncate(session, 0, 0);
        for (size_t i = 0; i < LENGTH; i++) {
            decode(session, (size_t[]){0}, &ids[i], 1, got);
            check_near("token by token", families[f], got, want + i * vocab, vocab, 1e-4);
        }
        rt_error err = {0};
        rt_session_truncate(session, 0, 0);
        assert_int_equal(rt_session_score(session, 0, ids, LENGTH, got, &err), RT_OK);
        check_near("scored", families[f], got, want, LENGTH * vocab, 1e-4);
        rt_session_close(session);
        rt_model_close(model);
        free(want);
        free(got);
    }
}

static void few_tokens_and_many_go_different_ways_to_the_same_logits(void **state)
{
    (void)state;
    for (size_t f = 0; f < N_FAMILIES; f++) {
        rt_model *model = open_family(families[f], RT_PRECISION_F32);
        const size_t vocab = model->config.n_vocab;
        int32_t ids[3 * 32];
        fill_ids(ids, 3 * 32, 7, vocab);
        float *blocks = forward_logits(model, ids, 3, 32);
        for (size_t i = 0; i < 3; i++) {
            float *few = forward_logits(model, ids + 32 * i, 1, 32);
            check_near("32 tokens against a pack of 96", families[f], few, blocks + 32 * i * vocab,
                       32 * vocab, 1e-4);
            free(few);
        }
        rt_model_close(model);
        free(blocks);
    }
}

/* Slots of different lengths decode side by side, and each alone. */
static void decode_beside_others(const rt_model *model, const char *name, double tolerance)
{
    enum { SLOTS = 5, STEPS = 9 };
    const size_t vocab = model->config.n_vocab;
    int32_t ids[SLOTS][LENGTH];
    rt_session *together = open_session(model, SLOTS, LENGTH), *alone = open_session(model, 1, LENGTH);
    float *many = calloc(SLOTS * vocab, sizeof *many), *one = calloc(vocab, sizeof *one);
    assert_true(many && one);
    float *kept = calloc((size_t)STEPS * SLOTS * vocab, sizeof *kept);
    for (size_t s = 0; s < SLOTS; s++) {
        fill_ids(ids[s], LENGTH, 10 + s, vocab);
        prefill(together, s, ids[s], 3 + 11 * s, NULL);
    }
    for (size_t step = 0; step < STEPS; step++) {
        size_t slots[SLOTS];
        int32_t next[SLOTS];
        for (size_t i = 0; i < SLOTS; i++) { /* another order in every step */
            slots[i] = (i + step) % SLOTS;
            next[i] = ids[slots[i]][3 + 11 * slots[i] + step];
        }
        decode(together, slots, next, SLOTS, many);
        for (size_t i = 0; i < SLOTS; i++)
            memcpy(kept + (step * SLOTS + slots[i]) * vocab, many + i * vocab, vocab * sizeof *kept);
    }
    for (size_t s = 0; s < SLOTS; s++) {
        rt_session_truncate(alone, 0, 0);
        prefill(alone, 0, ids[s], 3 + 11 * s, NULL);
        for (size_t step = 0; step < STEPS; step++) {
            const float *beside = kept + (step * SLOTS + s) * vocab;
            decode(alone, (size_t[]){0}, &ids[s][3 + 11 * s + step], 1, one);
            if (tolerance > 0)
                check_near("beside others", name, beside, one, vocab, tolerance);
            else if (memcmp(beside, one, vocab * sizeof *one) != 0)
                fail_msg("%s: other bits beside others, off by %g", name, distance(beside, one, vocab));
        }
    }
    rt_session_close(together);
    rt_session_close(alone);
    free(many);
    free(one);
    free(kept);
}

static void a_sequence_decodes_beside_others_as_it_does_alone(void **state)
{
    (void)state;
    for (size_t f = 0; f < N_FAMILIES; f++) {
        rt_model *model = open_family(families[f], RT_PRECISION_F32);
        decode_beside_others(model, families[f], 1e-5);
        rt_model_close(model);
    }
}

static const char *real_model(void)
{
    static char path[1024];
    const char *given = getenv("RETORT_TEST_MODEL"), *cache = getenv("RETORT_HOME"), *home = getenv("HOME");
    if (given)
        (void)snprintf(path, sizeof path, "%s", given);
    else
        (void)snprintf(path, sizeof path, "%s%s/models/SmolLM2-135M-Instruct.Q4_1.gguf",
                       cache ? cache : (home ? home : ""), cache ? "" : "/.cache/retort");
    return rt_path_exists(path) ? path : NULL;
}

static void in_int8_the_bits_do_not_depend_on_the_neighbours(void **state)
{
    (void)state;
    if (!real_model()) {
        print_message("the SmolLM2 model is not here: retort pull smollm2-135m-instruct\n");
        skip();
    }
    rt_model *model = open_model(real_model(), RT_PRECISION_INT8);
    decode_beside_others(model, "SmolLM2", 0);
    rt_model_close(model);
}

static void after_a_truncation_the_bits_are_those_of_a_fresh_session(void **state)
{
    (void)state;
    for (size_t f = 0; f < N_FAMILIES; f++) {
        rt_model *model = open_family(families[f], RT_PRECISION_BF16);
        const size_t vocab = model->config.n_vocab;
        int32_t ids[LENGTH], others[LENGTH];
        float *want = calloc(vocab, sizeof *want), *got = calloc(vocab, sizeof *got);
        fill_ids(ids, LENGTH, 1, vocab);
        fill_ids(others, LENGTH, 2, vocab);
        rt_session *used = open_session(model, 1, LENGTH), *fresh = open_session(model, 1, LENGTH);
        prefill(fresh, 0, ids, 20, NULL);
        prefill(fresh, 0, ids + 20, 10, want);
        prefill(used, 0, ids, 20, NULL);
        prefill(used, 0, others, 40, NULL);
        rt_session_truncate(used, 0, 20);
        assert_int_equal(rt_session_length(used, 0), 20);
        prefill(used, 0, ids + 20, 10, got);
        assert_memory_equal(want, got, vocab * sizeof *want);
        rt_session_close(used);
        rt_session_close(fresh);
        rt_model_close(model);
        free(want);
        free(got);
    }
}

static void a_slot_is_not_disturbed_by_what_happens_in_others(void **state)
{
    (void)state;
    for (size_t f = 0; f < N_FAMILIES; f++) {
        rt_model *model = open_family(families[f], RT_PRECISION_F32);
        const size_t vocab = model->config.n_vocab;
        int32_t ids[LENGTH], others[LENGTH];
        float *want = calloc(vocab, sizeof *want), *got = calloc(vocab, sizeof *got);
        fill_ids(ids, LENGTH, 3, vocab);
        fill_ids(others, LENGTH, 4, vocab);
        rt_session *session = open_session(model, 3, LENGTH), *alone = open_session(model, 3, LENGTH);
        prefill(alone, 1, ids, 25, NULL);
        decode(alone, (size_t[]){1}, &ids[25], 1, want);
        prefill(session, 0, others, LENGTH, NULL);
        prefill(session, 1, ids, 25, NULL);
        prefill(session, 2, others, LENGTH, NULL);
        rt_session_truncate(session, 0, 0);
        prefill(session, 0, others + 5, 50, NULL);
        decode(session, (size_t[]){1}, &ids[25], 1, got);
        assert_memory_equal(want, got, vocab * sizeof *want);
        assert_int_equal(rt_session_length(session, 0), 50);
        assert_int_equal(rt_session_length(session, 1), 26);
        assert_int_equal(rt_session_length(session, 2), LENGTH);
        rt_session_close(session);
        rt_session_close(alone);
        rt_model_close(model);
        free(want);
        free(got);
    }
}

static void what_does_not_fit_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    rt_model *model = open_family("llama", RT_PRECISION_F32);
    const size_t vocab = model->config.n_vocab;
    int32_t ids[LENGTH];
    float logits[256];
    rt_error err = {0};
    assert_true(vocab < 256);
    fill_ids(ids, LENGTH, 5, vocab);
    rt_session *session = open_session(model, 2, 40);
    assert_int_equal(rt_session_capacity(session), 40);
    prefill(session, 0, ids, 38, NULL);
    assert_int_equal(rt_session_prefill(session, 0, ids, 5, logits, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "43 tokens, 3 more than the context of 40"));
    assert_int_equal(rt_session_prefill(session, 0, ids, 0, logits, &err), RT_INVALID);
    assert_int_equal(rt_session_prefill(session, 2, ids, 1, logits, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "slot 2 of 2"));
    const int32_t wrong[] = {-1, (int32_t)vocab, INT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(rt_session_prefill(session, 0, &wrong[i], 1, logits, &err), RT_INVALID);
        assert_int_equal(rt_session_decode(session, (size_t[]){0}, &wrong[i], 1, logits, &err), RT_INVALID);
        assert_int_equal(rt_session_score(session, 0, &wrong[i], 1, logits, &err), RT_INVALID);
    }
    assert_int_equal(rt_session_decode(session, (size_t[]){0, 1, 0}, ids, 3, logits, &err), RT_INVALID);
    assert_int_equal(rt_session_length(session, 0), 38);
    decode(session, (size_t[]){0}, &ids[38], 1, logits);
    decode(session, (size_t[]){0}, &ids[39], 1, logits);
    assert_int_equal(rt_session_decode(session, (size_t[]){0}, ids, 1, logits, &err), RT_INVALID);
    assert_int_equal(rt_session_length(session, 0), 40);
    rt_session_close(session);
    assert_int_equal(rt_session_open(&session, model, 0, 40, &err), RT_INVALID);
    assert_null(session);
    session = open_session(model, 1, 1 << 20); /* no more than the model's context */
    assert_int_equal(rt_session_capacity(session), model->config.n_context);
    rt_session_close(session);
    rt_model_close(model);
}

static int open_pool(void **state)
{
    (void)state;
    rt_error err = {0};
    return rt_pool_open(&pool, 2, &err);
}

static int close_pool(void **state)
{
    (void)state;
    rt_pool_close(pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_gives_the_same_logits_however_it_is_cut),
        cmocka_unit_test(few_tokens_and_many_go_different_ways_to_the_same_logits),
        cmocka_unit_test(a_sequence_decodes_beside_others_as_it_does_alone),
        cmocka_unit_test(in_int8_the_bits_do_not_depend_on_the_neighbours),
        cmocka_unit_test(after_a_truncation_the_bits_are_those_of_a_fresh_session),
        cmocka_unit_test(a_slot_is_not_disturbed_by_what_happens_in_others),
        cmocka_unit_test(what_does_not_fit_is_refused_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, open_pool, close_pool);
}
