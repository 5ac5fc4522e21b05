/* tests/evidence/test_marker.c - marked draws carry the mark, keep the mean distribution, and obey the rules
 * of order, context and repetition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "evidence/marker.h"
#include "evidence/tournament.h"
#include "tensor/cpu.h"
#include "tensor/mark.h"

enum { VOCAB = 600, LENGTH = 400 };

static rt_watermark mark_of(rt_scheme scheme)
{
    rt_watermark mark = rt_watermark_default(scheme);
    for (size_t i = 0; i < 16; i++)
        mark.key[i] = (uint8_t)(17 * i + 3);
    mark.n_vocab = VOCAB;
    mark.hashing_key = 987654321;
    mark.n_keys = 30;
    for (size_t l = 0; l < 30; l++)
        mark.keys[l] = (int64_t)(1000 + 37 * l);
    mark.ngram_len = 3;
    return mark;
}

/* Logits that depend on the last id only, as a language's do. */
static void logits_after(float *logits, int32_t last)
{
    rt_rng rng = rt_rng_make(99, (uint64_t)last);
    for (size_t v = 0; v < VOCAB; v++)
        logits[v] = (float)(2 * rt_rng_normal(&rng));
}

static void speak(int32_t *ids, size_t n, const rt_sampling *how, uint64_t stream)
{
    rt_error err = {0};
    rt_sampler *sampler;
    float logits[VOCAB];
    assert_int_equal(rt_sampler_open(&sampler, VOCAB, &err), RT_OK);
    ids[0] = 5; /* a prompt of one id */
    for (size_t i = 1; i <= n; i++) {
        logits_after(logits, ids[i - 1]);
        ids[i] = rt_sample(sampler, how, logits, ids, i, stream, i - 1);
        assert_true(ids[i] >= 0 && ids[i] < VOCAB);
    }
    rt_sampler_close(sampler);
}

static rt_score score_of(const rt_watermark *mark, const int32_t *ids, size_t n)
{
    rt_error err = {0};
    rt_pairs *pairs;
    rt_scorer *scorer;
    rt_score score;
    assert_int_equal(rt_pairs_open(&pairs, rt_watermark_context(mark), RT_DEDUP_PAIR, &err), RT_OK);
    assert_int_equal(rt_pairs_add(pairs, ids, n, &err), RT_OK);
    assert_int_equal(rt_scorer_open(&scorer, mark, &err), RT_OK);
    assert_int_equal(rt_scorer_run(scorer, pairs, &score, &err), RT_OK);
    rt_scorer_close(scorer);
    rt_pairs_close(pairs);
    return score;
}

static void text_of_every_scheme_is_found_by_its_key_and_by_no_other(void **state)
{
    (void)state;
    for (int s = 0; s < RT_SCHEME_COUNT; s++) {
        rt_watermark mark = mark_of((rt_scheme)s);
        rt_error err = {0};
        rt_mark *marker;
        int32_t ids[LENGTH + 1];
        for (int filtered = 0; filtered < 2; filtered++) {
            assert_int_equal(rt_mark_open(&marker, &mark, NULL, 0, false, &err), RT_OK);
            rt_sampling how = rt_sampling_default();
            how.temperature = 1;
            how.top_k = filtered ? 50 : 0;
            how.marker = rt_mark_marker(marker);
            speak(ids, LENGTH, &how, 1);
            rt_mark_close(marker);
            const rt_score right = score_of(&mark, ids + 1, LENGTH);
            if (!(right.log10_p < -8))
                fail_msg("%s, filtered %d: log10 p %g", rt_scheme_word((rt_scheme)s), filtered,
                         right.log10_p);
            rt_watermark wrong = mark;
            wrong.key[3] ^= 1;
            wrong.hashing_key++;
            for (size_t l = 0; l < 30; l++)
                wrong.keys[l] += 5;
            const rt_score other = score_of(&wrong, ids + 1, LENGTH);
            if (!(other.log10_p > -4))
                fail_msg("%s: wrong key has log10 p %g", rt_scheme_word((rt_scheme)s), other.log10_p);
        }
    }
}

static void the_first_tokens_and_repeated_contexts_are_drawn_plainly(void **state)
{
    (void)state;
    rt_watermark mark = mark_of(RT_SCHEME_TOURNAMENT);
    rt_error err = {0};
    rt_mark *marker;
    assert_int_equal(rt_mark_open(&marker, &mark, NULL, 0, false, &err), RT_OK);
    const int32_t ids[] = {9, 1, 2, 3, 1, 2};
    float p[4] = {0.25f, 0.25f, 0.25f, 0.25f};
    void *work = aligned_alloc(64, 4096 + 64 * 8);
    rt_draw draw = {.p = p, .n = 4, .n_vocab = 4, .mass = 1, .seen = ids, .u = 0.5, .work = work};
    const rt_marker *m = rt_mark_marker(marker);
    draw.n_seen = 2; /* the prompt 9 and one token */
    draw.n_answer = 1;
    assert_int_equal(m->choose(m, &draw), -1);
    draw.n_seen = 4;
    draw.n_answer = 3;
    assert_true(m->choose(m, &draw) >= 0);
    draw.n_seen = 6; /* 1 2 again */
    draw.n_answer = 5;
    assert_int_equal(m->choose(m, &draw), -1);
    draw.n_seen = 5;
    draw.n_answer = 4;
    draw.greedy = true;
    assert_int_equal(m->choose(m, &draw), -1);
    free(work);
    rt_mark_close(marker);
}

static void the_fast_tournament_is_the_closed_form_at_every_level(void **state)
{
    (void)state;
    enum { N = 1000, ROOM = 1008 };
    static float p[ROOM];
    static double ref[N];
    static uint32_t lo[ROOM], hi[ROOM];
    static uint64_t bits[N];
    for (unsigned level = RT_CPU_REF; level <= RT_CPU_AVX512; level++) {
        assert_int_equal(setenv("RETORT_CPU", rt_cpu_name(level), 1), 0);
        rt_cpu_reset();
        double total = 0;
        rt_rng rng = rt_rng_make(1, 2);
        for (size_t v = 0; v < N; v++)
            total += ref[v] = exp(2 * rt_rng_normal(&rng));
        rt_mark_ops_get()->mix(lo, hi, 12345, NULL, N);
        for (size_t v = 0; v < N; v++) {
            ref[v] /= total;
            p[v] = (float)ref[v];
            bits[v] = rt_prf_x(12345, (int32_t)v);
            assert_true(bits[v] == ((uint64_t)hi[v] << 32 | lo[v]));
        }
        rt_mark_ops_get()->tournament(p, lo, N, 30);
        rt_tournament(ref, bits, N, 30);
        for (size_t v = 0; v < N; v++)
            assert_true(fabs((double)p[v] - ref[v]) <= 2e-5);
    }
    assert_int_equal(unsetenv("RETORT_CPU"), 0);
    rt_cpu_reset();
}

/* Over random keys, tournament and Gumbel marks leave each token its probability. */
static void the_mean_over_keys_is_the_plain_distribution(void **state)
{
    (void)state;
    enum { KEYS = 20000, N = 5 };
    static const float plain[N] = {0.5f, 0.25f, 0.15f, 0.07f, 0.03f};
    static const rt_scheme schemes[] = {RT_SCHEME_TOURNAMENT, RT_SCHEME_GUMBEL};
    for (size_t s = 0; s < 2; s++) {
        size_t count[N] = {0};
        rt_watermark mark = mark_of(schemes[s]);
        rt_rng rng = rt_rng_make(4, s);
        rt_error err = {0};
        const int32_t ids[] = {1, 2};
        void *work = aligned_alloc(64, 4096 + 256);
        for (size_t k = 0; k < KEYS; k++) {
            rt_mark *marker;
            float p[N];
            memcpy(p, plain, sizeof p);
            for (size_t b = 0; b < 16; b++)
                mark.key[b] = (uint8_t)rt_rng_u32(&rng);
            assert_int_equal(rt_mark_open(&marker, &mark, NULL, 0, false, &err), RT_OK);
            const rt_draw draw = {.p = p,
                                  .n = N,
                                  .n_vocab = N,
                                  .mass = 1,
                                  .seen = ids,
                                  .n_seen = 2,
                                  .n_answer = 2,
                                  .u = rt_rng_uniform(&rng),
                                  .work = work};
            const rt_marker *m = rt_mark_marker(marker);
            count[m->choose(m, &draw)]++;
            rt_mark_close(marker);
        }
        free(work);
        for (size_t v = 0; v < N; v++) {
            const double q = (double)plain[v], sd = sqrt(q * (1 - q) / KEYS);
            assert_true(fabs((double)count[v] / KEYS - q) < 4 * sd);
        }
    }
}

static void two_keys_are_both_found(void **state)
{
    (void)state;
    rt_watermark first = mark_of(RT_SCHEME_TOURNAMENT), second = first;
    second.key[0] ^= 255;
    rt_error err = {0};
    rt_mark *marker;
    int32_t ids[LENGTH + 1];
    assert_int_equal(rt_mark_open(&marker, &first, &second, 0.3, false, &err), RT_OK);
    rt_sampling how = rt_sampling_default();
    how.temperature = 1;
    how.marker = rt_mark_marker(marker);
    speak(ids, LENGTH, &how, 7);
    rt_mark_close(marker);
    const rt_score a = score_of(&first, ids + 1, LENGTH), b = score_of(&second, ids + 1, LENGTH);
    assert_true(a.log10_p < -15 && b.log10_p < -3 && a.log10_p < b.log10_p);
    second.scheme = RT_SCHEME_KGW;
    assert_int_equal(rt_mark_open(&marker, &first, &second, 0.3, false, &err), RT_INVALID);
}

static void green_lists_mark_at_temperature_zero_and_the_tournament_does_not(void **state)
{
    (void)state;
    rt_error err = {0};
    int32_t plain[41], marked[41];
    rt_sampling how = rt_sampling_default();
    speak(plain, 40, &how, 0);
    for (int green = 0; green < 2; green++) {
        rt_watermark mark = mark_of(green ? RT_SCHEME_KGW : RT_SCHEME_TOURNAMENT);
        mark.delta = 6;
        rt_mark *marker;
        assert_int_equal(rt_mark_open(&marker, &mark, NULL, 0, false, &err), RT_OK);
        how.marker = rt_mark_marker(marker);
        speak(marked, 40, &how, 0);
        rt_mark_close(marker);
        assert_true((memcmp(plain, marked, sizeof plain) == 0) == !green);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_of_every_scheme_is_found_by_its_key_and_by_no_other),
        cmocka_unit_test(the_first_tokens_and_repeated_contexts_are_drawn_plainly),
        cmocka_unit_test(the_fast_tournament_is_the_closed_form_at_every_level),
        cmocka_unit_test(the_mean_over_keys_is_the_plain_distribution),
        cmocka_unit_test(two_keys_are_both_found),
        cmocka_unit_test(green_lists_mark_at_temperature_zero_and_the_tournament_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
