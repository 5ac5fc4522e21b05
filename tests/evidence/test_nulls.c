/* tests/evidence/test_nulls.c - the null of each test, simulated 400 times and more with fixed seeds: its
 * p-values are uniform (Kolmogorov-Smirnov), or conservative where the test says so, and not too many are
 * small.  Where p is of a count or a rank, it is spread over its step by a random number, so that it can be
 * uniform at all. */
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
#include "evidence/battery.h"
#include "evidence/combine.h"
#include "evidence/matrix.h"
#include "evidence/mmd.h"
#include "evidence/rank.h"
#include "evidence/tails.h"

enum { RUNS = 400 };

/* At most 12 of 400 below 0.01: more than that has a chance of 3e-4. */
static void uniform(const char *what, const double *p, size_t n)
{
    size_t small = 0;
    for (size_t i = 0; i < n; i++)
        small += p[i] < 0.01;
    const double ks = rt_ks_p(rt_ks_statistic(p, n), n);
    if (!(ks > 0.01 && rt_log10_binomial(n, small, 0.01) > -3.5))
        fail_msg("%s: KS p %g, %zu of %zu below 0.01", what, ks, small, n);
}

/* P[p <= a] <= a: for tests whose p is of a coarse statistic. */
static void conservative(const char *what, const double *p, size_t n)
{
    static const double levels[] = {0.01, 0.05, 0.2, 0.5};
    for (size_t l = 0; l < 4; l++) {
        size_t below = 0;
        for (size_t i = 0; i < n; i++)
            below += p[i] <= levels[l];
        if (rt_log10_binomial(n, below, levels[l]) < -3.5)
            fail_msg("%s: %zu of %zu at most %g", what, below, n, levels[l]);
    }
}

static void signs_of_symmetric_differences(void **state)
{
    (void)state;
    double p[RUNS], d[60];
    rt_rng rng = rt_rng_make(1, 1);
    rt_error err = {0};
    for (size_t r = 0; r < RUNS; r++) {
        for (size_t i = 0; i < 60; i++) { /* heavy tails, sizes of their own */
            d[i] = rt_rng_normal(&rng) / (0.05 + rt_rng_uniform(&rng)) * (double)(1 + i % 7);
        }
        assert_int_equal(rt_winsorise(d, 60, 4, &err), RT_OK);
        p[r] = pow(10, rt_sign_flip_test(d, 60, 1999, r).log10_p);
    }
    uniform("sign flips", p, RUNS);
    for (size_t r = 0; r < RUNS; r++) {
        for (size_t i = 0; i < 14; i++)
            d[i] = rt_rng_normal(&rng);
        p[r] = pow(10, rt_sign_flip_test(d, 14, 0, 0).log10_p);
    }
    uniform("sign flips, all counted", p, RUNS);
}

static void order_without_memory_and_with_drift_between_blocks(void **state)
{
    (void)state;
    double p[RUNS], blocked[RUNS], x[80], y[80], rho;
    size_t block[80], plain_small = 0;
    rt_rng rng = rt_rng_make(2, 1);
    rt_error err = {0};
    rt_spearman s;
    for (size_t r = 0; r < RUNS; r++) {
        for (size_t i = 0; i < 80; i++) {
            x[i] = (double)i;
            y[i] = rt_rng_normal(&rng);
        }
        assert_int_equal(rt_spearman_test(&s, x, y, 80, &err), RT_OK);
        p[r] = pow(10, s.log10_greater);
        for (size_t i = 0; i < 80; i++) { /* topic goes with time from block to block, not inside */
            block[i] = i / 10;
            y[i] += 2 * (double)block[i];
        }
        assert_int_equal(rt_order_blocks(&rho, &blocked[r], x, y, block, 80, 999, r, &err), RT_OK);
        blocked[r] = pow(10, blocked[r]);
        assert_int_equal(rt_spearman_test(&s, x, y, 80, &err), RT_OK);
        plain_small += s.log10_greater < -2;
    }
    uniform("order", p, RUNS);
    uniform("order in blocks", blocked, RUNS);
    assert_true(plain_small == RUNS); /* what the blocks are for */
}

static void blocks_still_show_memory(void **state)
{
    (void)state;
    double x[80], y[80], rho, p;
    size_t block[80];
    rt_rng rng = rt_rng_make(3, 1);
    rt_error err = {0};
    for (size_t i = 0; i < 80; i++) {
        block[i] = i / 10;
        x[i] = (double)i;
        y[i] = 0.5 * (double)(i % 10) - 3 * (double)block[i] + rt_rng_normal(&rng);
    }
    assert_int_equal(rt_order_blocks(&rho, &p, x, y, block, 80, 9999, 1, &err), RT_OK);
    assert_true(p < -3.5 && rho > 0.4);
}

static void ranks_of_canaries_never_served(void **state)
{
    (void)state;
    double p[RUNS], fisher[RUNS], ranks[30], sum;
    rt_rng rng = rt_rng_make(4, 1);
    rt_error err = {0};
    for (size_t r = 0; r < RUNS; r++) {
        double above;
        sum = 0;
        for (size_t i = 0; i < 30; i++)
            sum += ranks[i] = 1 + (double)rt_rng_below(&rng, 50);
        assert_int_equal(rt_canary_fisher(&fisher[r], ranks, 30, 50, &err), RT_OK);
        assert_int_equal(rt_canary_exact(&p[r], sum, 30, 50, &err), RT_OK);
        assert_int_equal(rt_canary_exact(&above, sum - 1, 30, 50, &err), RT_OK);
        p[r] = pow(10, above) + rt_rng_uniform(&rng) * (pow(10, p[r]) - pow(10, above));
        fisher[r] = pow(10, fisher[r]);
    }
    uniform("canary ranks", p, RUNS);
    conservative("canary ranks, Fisher", fisher, RUNS);
}

/* Answers that hold some variants of each canary, whatever was served. */
static void words_of_canaries_never_served(void **state)
{
    (void)state;
    double p[RUNS];
    rt_rng rng = rt_rng_make(5, 1);
    rt_error err = {0};
    for (size_t r = 0; r < RUNS; r++) {
        rt_texts answers = {0};
        rt_text lines = {0};
        json_t *rows = json_array();
        for (size_t i = 0; i < 20; i++) {
            json_t *variants = json_array();
            char text[80], prompt[16];
            (void)snprintf(prompt, sizeof prompt, "q%zu", i);
            for (size_t v = 0; v < 4; v++) {
                (void)snprintf(text, sizeof text, "The shop of number %zu%zu is open.", v + 1, v);
                (void)json_array_append_new(variants, json_string(text));
            }
            (void)json_array_append_new(rows,
                                        json_pack("{s:s,s:o,s:I}", "prompt", prompt, "variants", variants,
                                                  "served", (json_int_t)rt_rng_below(&rng, 4)));
            const size_t said = (size_t)rt_rng_below(&rng, 4) * (size_t)rt_rng_below(&rng, 2);
            rt_text_printf(&lines, "{\"prompt\":\"q%zu\",\"answer\":\"It is number %zu%zu, not 9%zu0.\"}\n",
                           i, said + 1, said, said);
        }
        assert_int_equal(rt_texts_parse(&answers, lines.data, lines.size, RT_TEXTS_ROWS, "said", &err),
                         RT_OK);
        rt_result result;
        assert_int_equal(rt_battery_said_rows(&result, RT_TEST_CANARIES, rows, &answers, 0, 0, &err), RT_OK);
        assert_int_equal(result.n, 20);
        double chance[20];
        for (size_t i = 0; i < 20; i++)
            chance[i] = 0.25;
        const double above = pow(10, rt_log10_poisson_binomial(chance, 20, (size_t)result.statistic + 1));
        p[r] = above + rt_rng_uniform(&rng) * (pow(10, result.log10_p) - above);
        rt_texts_deinit(&answers);
        rt_text_deinit(&lines);
        json_decref(rows);
    }
    uniform("canary words", p, RUNS);
}

static void twins_told_from_answers(void **state)
{
    (void)state;
    double p[RUNS];
    rt_rng rng = rt_rng_make(6, 1);
    rt_error err = {0};
    static const char *const words[] = {"sun", "river", "stone", "bread", "lamp", "glass", "wind", "coat"};
    for (size_t r = 0; r < RUNS; r++) {
        rt_texts answers = {0};
        rt_text lines = {0};
        json_t *rows = json_array();
        for (size_t i = 0; i < 14; i++) {
            char text[3][200] = {"", "", ""}, prompt[16];
            (void)snprintf(prompt, sizeof prompt, "q%zu", i);
            for (size_t t = 0; t < 3; t++)
                for (size_t w = 0; w < 12; w++)
                    (void)snprintf(text[t] + strlen(text[t]), 12, "%s ", words[rt_rng_below(&rng, 8)]);
            const bool turned = rt_rng_below(&rng, 2);
            (void)json_array_append_new(rows, json_pack("{s:s,s:s,s:s}", "prompt", prompt, "delivered",
                                                        text[turned], "twin", text[!turned]));
            rt_text_printf(&lines, "{\"prompt\":\"%s\",\"answer\":\"%s\"}\n", prompt, text[2]);
        }
        assert_int_equal(rt_texts_parse(&answers, lines.data, lines.size, RT_TEXTS_ROWS, "said", &err),
                         RT_OK);
        rt_result result;
        assert_int_equal(rt_battery_said_rows(&result, RT_TEST_TWINS, rows, &answers, 999, r, &err), RT_OK);
        p[r] = pow(10, result.log10_p);
        rt_texts_deinit(&answers);
        rt_text_deinit(&lines);
        json_decref(rows);
    }
    conservative("twins from answers", p, RUNS); /* likenesses are coarse: ties */
}

static void membership_of_answers_alike(void **state)
{
    (void)state;
    double p[RUNS], x[120 * 3], statistic;
    uint8_t member[120];
    rt_rng rng = rt_rng_make(7, 1);
    rt_error err = {0};
    for (size_t r = 0; r < RUNS; r++) {
        for (size_t i = 0; i < 120; i++) { /* features that go together */
            const double common = rt_rng_normal(&rng);
            member[i] = i % 2;
            for (size_t f = 0; f < 3; f++)
                x[i * 3 + f] = common + (double)(f + 1) * rt_rng_normal(&rng);
        }
        assert_int_equal(rt_membership_test(&p[r], &statistic, x, 3, member, 120, r, &err), RT_OK);
        p[r] = pow(10, p[r]);
    }
    uniform("membership", p, RUNS);
    for (size_t i = 0; i < 120; i++) /* only the difference of two features tells */
        x[i * 3 + 1] = x[i * 3] + 0.3 * rt_rng_normal(&rng) + 0.4 * member[i];
    assert_int_equal(rt_membership_test(&p[0], &statistic, x, 3, member, 120, 1, &err), RT_OK);
    assert_true(p[0] < -4 && statistic > 1);
    assert_int_equal(rt_membership_test(&p[0], &statistic, x, 3, member, 5, 1, &err), RT_INVALID);
}

static void models_as_units(void **state)
{
    (void)state;
    double p[RUNS], each[19];
    rt_rng rng = rt_rng_make(8, 1);
    for (size_t r = 0; r < RUNS; r++) {
        for (size_t k = 0; k < 19; k++)
            each[k] = rt_rng_normal(&rng);
        p[r] = pow(10, rt_model_unit(rt_rng_normal(&rng), each, 19)) - rt_rng_uniform(&rng) / 20;
    }
    uniform("model as unit", p, RUNS);
    assert_true(fabs(rt_model_unit(9, each, 19) - log10(1.0 / 20)) < 1e-12);
}

/* Answers of some speakers to common prompts; a speaker prefers some letters by `taste`. */
static void speak(rt_texts *out, rt_rng *rng, size_t prompts, size_t samples, uint32_t taste)
{
    rt_text lines = {0};
    rt_error err = {0};
    for (size_t q = 0; q < prompts; q++)
        for (size_t s = 0; s < samples; s++) {
            rt_text_printf(&lines, "{\"prompt\":\"q%zu\",\"answer\":\"", q);
            for (size_t i = 0; i < 20; i++)
                rt_text_printf(&lines, "%c",
                               rt_rng_below(rng, 3) ? 'a' + (char)rt_rng_below(rng, 4)
                                                    : 'e' + (char)((taste + q + i) % 5));
            rt_text_puts(&lines, "\"}\n");
        }
    assert_int_equal(rt_texts_parse(out, lines.data, lines.size, RT_TEXTS_ROWS, "said", &err), RT_OK);
    rt_text_deinit(&lines);
}

static void two_samples_of_one_speaker(void **state)
{
    (void)state;
    double p[RUNS];
    rt_error err = {0};
    for (size_t r = 0; r < RUNS; r++) {
        rt_rng rng = rt_rng_make(9, (uint32_t)r);
        rt_texts a = {0}, b = {0};
        rt_result result;
        speak(&a, &rng, 8, 4, 1);
        speak(&b, &rng, 8, 4, 1);
        assert_int_equal(rt_battery_mmd(&result, &a, &b, 199, r, &err), RT_OK);
        p[r] = pow(10, result.log10_p) - rt_rng_uniform(&rng) / 200;
        rt_texts_deinit(&a);
        rt_texts_deinit(&b);
    }
    uniform("mmd", p, RUNS);
}

/* Nearer to the teacher: the suspect is one more innocent. */
static void suspects_no_nearer_than_innocents(void **state)
{
    (void)state;
    enum { INNOCENTS = 4, FEW = 100 };
    double p[FEW];
    rt_error err = {0};
    for (size_t r = 0; r < FEW; r++) {
        rt_rng rng = rt_rng_make(10, (uint32_t)r);
        rt_texts teacher = {0}, controls[2] = {{0}}, models[INNOCENTS + 1] = {{0}};
        rt_result result;
        speak(&teacher, &rng, 6, 3, 0);
        speak(&controls[0], &rng, 6, 3, 1);
        speak(&controls[1], &rng, 6, 3, 2);
        for (size_t m = 0; m <= INNOCENTS; m++)
            speak(&models[m], &rng, 6, 3, (uint32_t)rt_rng_below(&rng, 5));
        assert_int_equal(
            rt_battery_nearer(&result, &models[0], &teacher, controls, 2, models + 1, INNOCENTS, r, &err),
            RT_OK);
        assert_true(json_number_value(json_object_get(result.more, "lo")) <= result.statistic + 1e-9);
        json_decref(result.more);
        p[r] = pow(10, result.log10_p) - rt_rng_uniform(&rng) / (INNOCENTS + 1);
        if (r == 0) { /* one that speaks as the teacher does is nearer than all */
            rt_texts copy = {0};
            speak(&copy, &rng, 6, 3, 0);
            for (size_t m = 1; m <= INNOCENTS; m++) {
                rt_texts_deinit(&models[m]);
                speak(&models[m], &rng, 6, 3, 3);
            }
            assert_int_equal(
                rt_battery_nearer(&result, &copy, &teacher, controls, 2, models + 1, INNOCENTS, r, &err),
                RT_OK);
            assert_true(fabs(result.log10_p - log10(1.0 / (INNOCENTS + 1))) < 1e-9);
            json_decref(result.more);
            rt_texts_deinit(&copy);
        }
        rt_texts_deinit(&teacher);
        rt_texts_deinit(&controls[0]);
        rt_texts_deinit(&controls[1]);
        for (size_t m = 0; m <= INNOCENTS; m++)
            rt_texts_deinit(&models[m]);
    }
    uniform("nearer", p, FEW);
}

static void names_claimed_as_often_by_controls(void **state)
{
    (void)state;
    double p[RUNS];
    rt_rng rng = rt_rng_make(11, 1);
    for (size_t r = 0; r < RUNS; r++) {
        size_t k[2] = {0};
        for (size_t i = 0; i < 60; i++) {
            k[0] += rt_rng_below(&rng, 10) < 3;
            k[1] += rt_rng_below(&rng, 10) < 3;
        }
        const double above =
            k[0] < 60 && k[1] > 0 ? pow(10, rt_log10_hypergeometric(k[0] + 1, 60, k[1] - 1, 60)) : 0;
        p[r] = pow(10, rt_log10_hypergeometric(k[0], 60, k[1], 60));
        p[r] = above + rt_rng_uniform(&rng) * (p[r] - above);
    }
    uniform("identity, Fisher's exact test", p, RUNS);
    assert_true(fabs(rt_log10_hypergeometric(3, 4, 1, 4) - log10(17.0 / 70)) <
                1e-12); /* the lady tasting tea */
    assert_true(rt_log10_hypergeometric(0, 5, 3, 5) == 0);
}

/* Rows of independent models: the assignment has no order. */
static void weights_of_independent_models(void **state)
{
    (void)state;
    enum { ROWS = 24, WIDTH = 16 };
    double p[RUNS], gate[RUNS], *m = malloc(4 * ROWS * WIDTH * sizeof *m), c[ROWS * ROWS];
    rt_rng rng = rt_rng_make(12, 1);
    rt_error err = {0};
    assert_non_null(m);
    for (size_t r = 0; r < RUNS; r++) {
        size_t column[2][ROWS];
        rt_spearman s;
        for (size_t i = 0; i < 4 * ROWS * WIDTH; i++)
            m[i] = rt_rng_normal(&rng);
        for (size_t k = 0; k < 2; k++) {
            rt_row_cosines(c, m + 2 * k * ROWS * WIDTH, ROWS, m + (2 * k + 1) * ROWS * WIDTH, ROWS, WIDTH);
            assert_int_equal(rt_assign(column[k], c, ROWS, ROWS, &err), RT_OK);
        }
        assert_int_equal(rt_identity_test(&s, column[0], ROWS, &err), RT_OK);
        p[r] = pow(10, s.log10_two_sided);
        assert_int_equal(rt_match_test(&s, column[0], column[1], ROWS, &err), RT_OK);
        gate[r] = pow(10, s.log10_greater);
    }
    uniform("weights", p, RUNS);
    uniform("match", gate, RUNS);
    free(m);
}

static void a_count_of_different_chances_has_its_exact_tail(void **state)
{
    (void)state;
    const double even[] = {0.5, 0.5, 0.5}, two[] = {0.1, 0.3};
    assert_true(fabs(rt_log10_poisson_binomial(even, 3, 2) - log10(0.5)) < 1e-12);
    assert_true(fabs(rt_log10_poisson_binomial(two, 2, 1) - log10(1 - 0.9 * 0.7)) < 1e-12);
    assert_true(fabs(rt_log10_poisson_binomial(two, 2, 2) - log10(0.03)) < 1e-12);
    assert_true(rt_log10_poisson_binomial(two, 2, 0) == 0);
}

/* Closed and hard readings of counts and of weighted bits, over 4,000 keys. */
static void scored_sets_of_innocent_text(void **state)
{
    (void)state;
    enum { KEYS = 4000 };
    static const rt_scheme schemes[] = {RT_SCHEME_TOURNAMENT, RT_SCHEME_KGW, RT_SCHEME_GUMBEL};
    double *z = malloc(2 * KEYS * sizeof *z), *p = z + KEYS;
    rt_error err = {0};
    int32_t ids[3000];
    rt_rng rng = rt_rng_make(13, 1);
    assert_non_null(z);
    for (size_t i = 0; i < 3000; i++) /* text that repeats itself */
        ids[i] = i < 20 || rt_rng_below(&rng, 3) ? (int32_t)rt_rng_below(&rng, 40) : ids[i - 20];
    for (size_t s = 0; s < 3; s++) {
        const rt_watermark mark = rt_watermark_default(schemes[s]);
        rt_gathered g = {.h = 2};
        assert_int_equal(rt_pairs_open(&g.closed, 2, RT_DEDUP_PAIR, &err), RT_OK);
        assert_int_equal(rt_pairs_open(&g.look.hard, 2, RT_DEDUP_CONTEXT, &err), RT_OK);
        assert_int_equal(rt_pairs_add(g.closed, ids, 3000, &err), RT_OK);
        assert_int_equal(rt_pairs_add(g.look.hard, ids, 3000, &err), RT_OK);
        assert_int_equal(rt_battery_random(&g, RT_TEST_CLOSED, &mark, KEYS, 5, true, NULL, z, p, &err),
                         RT_OK);
        for (size_t i = 0; i < KEYS; i++)
            p[i] = pow(10, p[i]);
        uniform("closed", p, KEYS);
        assert_int_equal(rt_battery_random(&g, RT_TEST_HARD, &mark, KEYS, 6, true, NULL, z, p, &err), RT_OK);
        for (size_t i = 0; i < KEYS; i++)
            p[i] = pow(10, p[i]);
        uniform("hard", p, KEYS);
        rt_gathered_close(&g);
    }
    free(z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signs_of_symmetric_differences),
        cmocka_unit_test(order_without_memory_and_with_drift_between_blocks),
        cmocka_unit_test(blocks_still_show_memory),
        cmocka_unit_test(ranks_of_canaries_never_served),
        cmocka_unit_test(words_of_canaries_never_served),
        cmocka_unit_test(twins_told_from_answers),
        cmocka_unit_test(membership_of_answers_alike),
        cmocka_unit_test(models_as_units),
        cmocka_unit_test(two_samples_of_one_speaker),
        cmocka_unit_test(suspects_no_nearer_than_innocents),
        cmocka_unit_test(names_claimed_as_often_by_controls),
        cmocka_unit_test(weights_of_independent_models),
        cmocka_unit_test(a_count_of_different_chances_has_its_exact_tail),
        cmocka_unit_test(scored_sets_of_innocent_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
