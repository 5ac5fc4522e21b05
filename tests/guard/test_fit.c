/* tests/guard/test_fit.c - what a fit is made from: tasks inside wrappers, their width, p-values with ties,
 * kept features. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "guard/sample.h"
#include "guard/train.h"

static rt_guard_span span(const char *text) { return (rt_guard_span){text, strlen(text)}; }

static const char *const tasks[] = {
    "Tom has %zu apples and buys 4 more, how many apples does Tom have now?",
    "Which of these is a fish?\nA. cod %zu\nB. oak\nC. iron\nD. salt",
    "Write a python function that sorts list number %zu by length.",
    "Who wrote the book number %zu about the rivers of France?",
};

static void a_wrapper_is_found_and_what_is_inside_it(void **state)
{
    (void)state;
    rt_guard_frames wrapped = {.n = 0}, bare = {.n = 0};
    for (size_t i = 0; i < 60; i++) {
        char task[160], prompt[320];
        rt_guard_digest digest;
        (void)snprintf(task, sizeof task, tasks[i * 7 % 4], i);
        (void)snprintf(prompt, sizeof prompt,
                       "Below you find one request. %s Reply as an expert would, in full.", task);
        rt_guard_digest_make(&digest, prompt, strlen(prompt), 1);
        const rt_guard_range found = rt_guard_frames_find(&wrapped, &digest);
        if (i >= 8) { /* five words before the task, seven after it */
            assert_int_equal(found.begin, 5);
            assert_int_equal(found.end, digest.n_words - 7);
        }
        (void)snprintf(prompt, sizeof prompt, "%zu different words open this question %zu and close it %zu",
                       i, i, i);
        for (size_t k = 0; prompt[k]; k++)
            if (prompt[k] == 'o' || prompt[k] == 'e' || prompt[k] == 's')
                prompt[k] = (char)('a' + (i * 5 + k) % 26);
        rt_guard_digest_make(&digest, prompt, strlen(prompt), 1);
        const rt_guard_range all = rt_guard_frames_find(&bare, &digest);
        assert_int_equal(all.begin, 0);
        assert_int_equal(all.end, digest.n_words);
    }
}

static rt_guard *open_guard(void)
{
    rt_error err = {0};
    rt_guard *guard = NULL;
    assert_int_equal(rt_guard_open(&guard, &(rt_guard_options){0}, &err), RT_OK);
    return guard;
}

static void send(rt_guard *guard, const char *name, size_t i, const char *prompt)
{
    rt_error err = {0};
    rt_guard_verdict verdict;
    const rt_guard_event event = {.ts = 1.7e9 + (double)i * 60,
                                  .account = span(name),
                                  .prompt = span(prompt),
                                  .user_agent = span("client/1"),
                                  .temperature = 1,
                                  .n = 1,
                                  .completion_tokens = 100};
    assert_int_equal(rt_guard_observe(guard, &event, &verdict, &err), RT_OK);
}

static float feature(const rt_guard *guard, const char *account, const char *name)
{
    float features[RT_GUARD_FEATURES];
    rt_guard_measure(rt_guard_find(guard, account), features);
    return features[rt_guard_feature_find(name)];
}

static void tasks_of_all_types_spread_and_a_programs_do_not(void **state)
{
    (void)state;
    rt_guard *guard = open_guard();
    for (size_t i = 0; i < 100; i++) {
        char task[160], prompt[400];
        (void)snprintf(task, sizeof task, tasks[i * 7 % 4], i);
        (void)snprintf(prompt, sizeof prompt,
                       "Below you find one request. %s Reply as an expert would, in full.", task);
        send(guard, "collects", i, prompt);
        (void)snprintf(prompt, sizeof prompt,
                       "Spell-check the text and print it: The parcel %zu came late on Monday %zu.", i, i);
        send(guard, "spells", i, prompt);
    }
    assert_true(feature(guard, "collects", "breadth.types") > 0.8F);
    assert_true(feature(guard, "spells", "breadth.types") < 0.2F);
    assert_true(feature(guard, "collects", "breadth.mixed") > 5 * feature(guard, "spells", "breadth.mixed"));
    rt_guard_close(guard);
}

static void nobody_hides_behind_one_short_beginning(void **state)
{
    (void)state;
    rt_guard *guard = open_guard();
    send(guard, "hides", 0, "Instruction:"); /* all that follow go on from it */
    for (size_t i = 1; i <= 100; i++) {
        char task[160], prompt[400];
        (void)snprintf(task, sizeof task, tasks[i * 7 % 4], i);
        (void)snprintf(prompt, sizeof prompt, "Instruction: %s", task);
        send(guard, "hides", i, prompt);
    }
    assert_true(feature(guard, "hides", "breadth.fresh") > logf(40));
    assert_true(feature(guard, "hides", "breadth.types") > 0.6F);
    rt_guard_close(guard);
}

static void ties_share_their_p_by_lot(void **state)
{
    (void)state;
    static const char text[] =
        "{\"format\": \"retort guard reference 1\", \"bias\": 0, \"terms\": [], \"trees\": [], \"benign\": "
        "{\"people\": [1, 1, 1, 1, 1, 1, 1, 1, 2], \"heavy people\": [1], \"programs\": [1]}}";
    rt_guard_reference *r = NULL;
    rt_error err = {0};
    assert_int_equal(rt_guard_reference_parse(&r, text, strlen(text), "test", &err), RT_OK);
    /* at the floor and under it: uniform over (2/10, 1]; above: the plain rank */
    size_t under_half = 0;
    for (size_t i = 0; i < 4000; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "account-%zu", i);
        const float p = rt_guard_p(r, 0, i % 2 ? 1 : -50, rt_guard_lot(name));
        assert_true(p > 0.2F && p <= 1);
        under_half += p < 0.5F;
    }
    assert_true(fabs((double)under_half / 4000 - 0.375) < 0.03);
    assert_true(fabsf(rt_guard_p(r, 0, 1.5F, 0.9) - 0.2F) < 1e-6F);
    assert_true(fabsf(rt_guard_p(r, 0, 9, 0.1) - 0.1F) < 1e-6F);
    rt_guard_reference_close(r);
}

static void kept_features_come_back_and_damage_is_refused(void **state)
{
    (void)state;
    char traffic[] = "/tmp/test_fit_traffic_XXXXXX", kept[] = "/tmp/test_fit_kept_XXXXXX";
    rt_error err = {0};
    FILE *out = fdopen(mkstemp(traffic), "w");
    (void)close(mkstemp(kept));
    assert_non_null(out);
    for (size_t i = 0; i < 400; i++)
        (void)fprintf(out,
                      "{\"ts\": %zu, \"account\": \"a%zu\", \"prompt\": \"What is word %zu of the book?\"}\n",
                      1700000000 + i, i % 8, i);
    assert_int_equal(fclose(out), 0);
    rt_guard_sample *made, *read, *bad;
    assert_int_equal(rt_guard_sample_open(&made, &err), RT_OK);
    assert_int_equal(rt_guard_sample_open(&read, &err), RT_OK);
    assert_int_equal(rt_guard_sample_open(&bad, &err), RT_OK);
    assert_int_equal(rt_guard_sample_add(made, traffic, NULL, NULL, &err), RT_OK);
    assert_int_equal(rt_guard_sample_write(made, kept, &err), RT_OK);
    assert_int_equal(rt_guard_sample_read(read, kept, &err), RT_OK);
    assert_int_equal(rt_guard_sample_read(read, kept, &err), RT_OK);
    assert_int_equal(rt_guard_sample_accounts(read, false), 2 * rt_guard_sample_accounts(made, false));
    char *data = NULL;
    size_t size;
    assert_int_equal(rt_file_read(&data, &size, kept, 64 << 20, &err), RT_OK);
    assert_int_equal(rt_file_write(kept, data, size / 2, &err), RT_OK);
    assert_int_equal(rt_guard_sample_read(bad, kept, &err), RT_CORRUPT);
    data[size / 2] ^= 1;
    assert_int_equal(rt_file_write(kept, data, size, &err), RT_OK);
    assert_int_equal(rt_guard_sample_read(bad, kept, &err), RT_CORRUPT);
    free(data);
    rt_guard_sample_close(made);
    rt_guard_sample_close(read);
    rt_guard_sample_close(bad);
    (void)unlink(traffic);
    (void)unlink(kept);
}

/* n honest accounts whose p-values are uniform, and so many hidden collectors; returns how many honest ones
 * go, and counts the collectors that stay under 1%. */
static size_t screened(size_t n, size_t hidden, uint64_t seed, size_t *stay)
{
    enum { ROOM = 2000 };
    static rt_guard_screened accounts[ROOM];
    rt_rng rng = rt_rng_make(seed, 0);
    size_t gone = 0;
    assert_true(n + hidden <= ROOM);
    for (size_t i = 0; i < n + hidden; i++)
        accounts[i] = (rt_guard_screened){.account = i,
                                          .p = i < n ? rt_rng_uniform(&rng)
                                                     : 1.0 / 1200 * (double)(1 + rt_rng_below(&rng, 10))};
    rt_guard_screen(accounts, n + hidden, 0.01);
    *stay = 0;
    for (size_t i = 0; i < n + hidden; i++) {
        gone += accounts[i].aside && accounts[i].account < n;
        *stay += !accounts[i].aside && accounts[i].p < 0.01;
    }
    return gone;
}

static void screening_spares_the_honest_and_bounds_what_is_hidden(void **state)
{
    (void)state;
    size_t stay, gone = 0, under = 0;
    enum { RUNS = 400, N = 1000 };
    for (size_t i = 0; i < RUNS; i++) {
        gone += screened(N, 0, i, &stay);
        under += stay;
    }
    assert_true(gone < RUNS * N / 500);       /* fewer than 0.2% of the honest are to be reviewed */
    assert_true(under > RUNS * N * 7 / 1000); /* and the rate stays near what it is */
    for (size_t hidden = 10; hidden <= 640; hidden *= 2)
        for (size_t i = 0; i < 20; i++) {
            (void)screened(N, hidden, i, &stay);
            const double expected = 0.01 * (double)(N + hidden);
            assert_true((double)stay <= expected + sqrt(expected));
        }
}

static void what_a_person_decided_stays_and_counts(void **state)
{
    (void)state;
    rt_guard_screened accounts[200];
    for (size_t i = 0; i < 200; i++)
        accounts[i] = (rt_guard_screened){.account = i, .p = i < 8 ? 0.001 : 0.5, .keep = i < 5};
    rt_guard_screen(accounts, 200, 0.01);
    for (size_t i = 0; i < 200; i++)
        assert_int_equal(accounts[i].aside, accounts[i].account >= 5 && accounts[i].account < 8);
    rt_guard_screen(accounts, 0, 0.01);
}

/* An account with two checks alike, so that its score is theirs. */
static void put(rt_guard_sample *s, size_t number, const char *kind, bool attacker, uint32_t corpus,
                float mixed, float grade)
{
    rt_sample_account *a = &s->accounts[s->n_accounts];
    *a = (rt_sample_account){.first = s->n_rows,
                             .count = 2,
                             .group = rt_guard_mix(number, 7),
                             .attacker = attacker,
                             .use_class = 2,
                             .corpus = corpus};
    (void)snprintf(a->name, sizeof a->name, "account-%zu", number);
    (void)snprintf(a->kind, sizeof a->kind, "%s", kind);
    for (uint32_t i = 0; i < 2; i++) {
        rt_sample_row *row = &s->rows[s->n_rows++];
        *row = (rt_sample_row){.account = (uint32_t)s->n_accounts, .requests = 20 + i};
        row->features[rt_guard_feature_find("breadth.mixed")] = mixed;
        row->features[rt_guard_feature_find("elicit.grade")] = grade;
    }
    s->n_accounts++;
}

static rt_guard_sample *open_sample(size_t accounts)
{
    rt_error err = {0};
    rt_guard_sample *s = NULL;
    assert_int_equal(rt_guard_sample_open(&s, &err), RT_OK);
    s->accounts = calloc(accounts, sizeof *s->accounts);
    s->rows = calloc(2 * accounts, sizeof *s->rows);
    assert_non_null(s->accounts);
    assert_non_null(s->rows);
    s->n_corpora = 2;
    return s;
}

typedef struct judged {
    size_t fresh, flagged, graders, found;
} judged;

static void count(void *context, const rt_guard_scored *scored)
{
    judged *j = context;
    const bool grader = !strcmp(scored->kind, "grader");
    if (!grader && (scored->attacker || scored->corpus == 0))
        return;
    *(grader ? &j->graders : &j->fresh) += 1;
    if (scored->p < 0.02F)
        *(grader ? &j->found : &j->flagged) += 1;
}

static void few_kept_scores_promise_what_all_did_and_an_unknown_kind_is_found(void **state)
{
    (void)state;
    enum { BENIGN = 20000, COLLECTORS = 40, GRADERS = 10, ALL = 2 * BENIGN + COLLECTORS + GRADERS };
    rt_error err = {0};
    rt_guard_sample *s = open_sample(ALL);
    rt_guard_reference *r = NULL;
    rt_guard_fit_report report;
    judged j = {0};
    rt_rng rng = rt_rng_make(3, 0);
    for (size_t i = 0; i < 2 * BENIGN; i++)
        put(s, i, "honest", false, i >= BENIGN, (float)rt_rng_uniform(&rng),
            0.05F * (float)rt_rng_uniform(&rng));
    for (size_t i = 0; i < COLLECTORS; i++) /* what the fit knows of collectors: they range widely */
        put(s, 2 * BENIGN + i, "wide", true, 0, 2 + (float)rt_rng_uniform(&rng), 0.02F);
    for (size_t i = 0; i < GRADERS; i++)
        put(s, 2 * BENIGN + COLLECTORS + i, "grader", true, 0, 0, 0.95F);
    const rt_guard_fit fit = {.folds = 2,
                              .trees = 3,
                              .strength = 0.01,
                              .reference_accounts = 99,
                              .fit_corpora = 1,
                              .left_out = "grader",
                              .on_scored = count,
                              .context = &j};
    assert_int_equal(rt_guard_train(&r, s, &fit, &report, &err), RT_OK);
    /* of 99 kept scores p < 2 % means none over: one of a hundred, give or take two deviations */
    const double expected = 0.01 * (double)j.fresh;
    assert_int_equal(j.fresh, BENIGN);
    assert_true(fabs((double)j.flagged - expected) < 2 * sqrt(2 * expected));
    assert_int_equal(j.graders, GRADERS);
    assert_int_equal(j.found, GRADERS);
    rt_guard_reference_close(r);
    rt_guard_sample_close(s);
}

/* Sixty people who ask a lot are too few for a null of their own; what all others score is not theirs. */
static void a_class_of_few_is_not_accused_for_lying_higher(void **state)
{
    (void)state;
    enum { PROGRAMS = 3000, HEAVY = 60, FRESH = 1000, COLLECTORS = 40 };
    rt_error err = {0};
    rt_guard_sample *s = open_sample(PROGRAMS + HEAVY + FRESH + COLLECTORS);
    rt_guard_reference *r = NULL;
    rt_guard_fit_report report;
    judged j = {0};
    rt_rng rng = rt_rng_make(5, 0);
    size_t number = 0;
    for (; number < PROGRAMS; number++)
        put(s, number, "honest", false, 0, (float)rt_rng_uniform(&rng), 0);
    for (; number < PROGRAMS + HEAVY + FRESH; number++) {
        put(s, number, "honest", false, number >= PROGRAMS + HEAVY, 1 + (float)rt_rng_uniform(&rng), 0);
        s->accounts[number].use_class = 1;
    }
    for (size_t i = 0; i < COLLECTORS; i++)
        put(s, number + i, "wide", true, 0, 4 + (float)rt_rng_uniform(&rng), 0);
    const rt_guard_fit fit = {
        .folds = 2, .trees = 3, .strength = 0.01, .fit_corpora = 1, .on_scored = count, .context = &j};
    assert_int_equal(rt_guard_train(&r, s, &fit, &report, &err), RT_OK);
    assert_int_equal(j.fresh, FRESH);
    assert_true(j.flagged < FRESH / 12); /* 2 % are promised; sixty do not tell exactly where they lie */
    rt_guard_reference_close(r);
    rt_guard_sample_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrapper_is_found_and_what_is_inside_it),
        cmocka_unit_test(tasks_of_all_types_spread_and_a_programs_do_not),
        cmocka_unit_test(nobody_hides_behind_one_short_beginning),
        cmocka_unit_test(ties_share_their_p_by_lot),
        cmocka_unit_test(screening_spares_the_honest_and_bounds_what_is_hidden),
        cmocka_unit_test(what_a_person_decided_stays_and_counts),
        cmocka_unit_test(few_kept_scores_promise_what_all_did_and_an_unknown_kind_is_found),
        cmocka_unit_test(a_class_of_few_is_not_accused_for_lying_higher),
        cmocka_unit_test(kept_features_come_back_and_damage_is_refused),
    };
    return cmocka_run_group_tests_name("guard fit", tests, NULL, NULL);
}
