/* tests/guard/test_link.c - accounts of one operator are found by what they share, strangers are left apart;
 * the test for a set of prompts that was dealt out, against simulated accounts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "guard/link.h"
#include "guard/partition.h"

enum { OPERATOR = 12, PEOPLE = 60, REQUESTS = 40 };

static rt_guard_span span(const char *text) { return (rt_guard_span){text, strlen(text)}; }

static void send(rt_guard *guard, double ts, const char *account, const char *ip, const char *agent,
                 double created, const char *prompt)
{
    rt_error err = {0};
    rt_guard_verdict verdict;
    const rt_guard_event event = {.ts = ts,
                                  .account = span(account),
                                  .prompt = span(prompt),
                                  .ip = span(ip),
                                  .user_agent = span(agent),
                                  .created = created,
                                  .temperature = 1,
                                  .n = 1,
                                  .completion_tokens = 200};
    assert_int_equal(rt_guard_observe(guard, &event, &verdict, &err), RT_OK);
}

/* Accounts 0 .. OPERATOR - 1 are one operator's: made in two bursts, each with three of twelve exits, one set
 * of wrappers.  The others have a home each, the first of them one that is an exit too; `copycat` words as
 * the operator does.  Accounts come in this order. */
static rt_guard *traffic(bool copycat)
{
    static const char *const wrappers[] = {"Fulfil the order that follows in the best way known: %s",
                                           "%s Leave nothing out that an expert would say."};
    static const char *const tasks[] = {
        "What is %zu plus 4 apples times 3, how many apples does Tom have left?",
        "Which is a fish?\nA. cod %zu\nB. oak\nC. iron", "Write a function to sort list %zu.",
        "Who wrote the book number %zu about rivers?"};
    rt_guard *guard = NULL;
    rt_error err = {0};
    assert_int_equal(rt_guard_open(&guard, &(rt_guard_options){0}, &err), RT_OK);
    rt_rng rng = rt_rng_make(4, 0);
    for (size_t r = 0; r < REQUESTS; r++)
        for (size_t a = 0; a < OPERATOR + PEOPLE; a++) {
            char name[32], ip[32], task[128], prompt[256];
            const bool one = a < OPERATOR, words_alike = one || (copycat && a == OPERATOR);
            const size_t place = one ? (a * 2 + r % 3) % 12 : a == OPERATOR ? 4 : 100 + a;
            (void)snprintf(name, sizeof name, "account-%zu", a);
            (void)snprintf(ip, sizeof ip, "10.0.0.%zu", place);
            (void)snprintf(task, sizeof task, tasks[rt_rng_below(&rng, 4)], r * 100 + a);
            (void)snprintf(prompt, sizeof prompt, words_alike ? wrappers[r % 2] : "%s and thanks a lot",
                           words_alike ? task : "how do I bake bread for my aunt");
            send(guard, 1.7e9 + 15000 * ((double)r + rt_rng_uniform(&rng)), name, ip,
                 one ? "library/1" : "Mozilla/5.0",
                 one ? 1.69e9 + (double)(a % 2 * 400000 + a * 120) : 1.6e9 + (double)a * 500009, prompt);
        }
    assert_int_equal(rt_guard_sweep(guard, 1.8e9, &err), RT_OK);
    return guard;
}

static void accounts_of_one_operator_are_one_cluster(void **state)
{
    (void)state;
    rt_guard *guard = traffic(false);
    assert_int_equal(rt_guard_count(guard), OPERATOR + PEOPLE);
    const uint32_t cluster = rt_guard_account_at(guard, 0)->cluster;
    assert_int_not_equal(cluster, 0);
    for (size_t i = 0; i < OPERATOR; i++)
        assert_int_equal(rt_guard_account_at(guard, i)->cluster, cluster);
    for (size_t i = OPERATOR; i < OPERATOR + PEOPLE; i++)
        assert_int_equal(rt_guard_account_at(guard, i)->cluster, 0);
    rt_guard_close(guard);
}

static void a_neighbour_of_an_exit_who_words_alike_stays_apart(void **state)
{
    (void)state;
    rt_guard *guard = traffic(true);
    assert_int_not_equal(rt_guard_account_at(guard, 0)->cluster, 0);
    assert_int_equal(rt_guard_account_at(guard, OPERATOR)->cluster, 0);
    rt_guard_close(guard);
}

static void a_rare_wrapper_speaks_for_a_pair_and_a_common_one_does_not(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_guard *guard = traffic(false);
    rt_guard_links *links = NULL;
    assert_int_equal(rt_guard_links_open(&links, guard, &err), RT_OK);
    const rt_guard_link own = rt_guard_link_of(links, 0, 2), people = rt_guard_link_of(links, 20, 21);
    assert_true(own.wrappers > 2);
    assert_true(people.wrappers <= 1.5F); /* all of them end with the same thanks */
    assert_true(own.created > 0 && people.created == 0);
    rt_guard_links_close(links);
    rt_guard_close(guard);
}

static void days_of_creation_are_no_moments(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_guard *guard = NULL;
    assert_int_equal(rt_guard_open(&guard, &(rt_guard_options){0}, &err), RT_OK);
    send(guard, 1.7e9, "a", "10.0.0.1", "m", 86400.0 * 19000, "good morning to all of you");
    send(guard, 1.7e9, "b", "10.0.0.2", "m", 86400.0 * 19000, "where is the station please");
    send(guard, 1.7e9, "c", "10.0.0.3", "m", 86400.0 * 19000 + 7, "a word for a kind of bird");
    send(guard, 1.7e9, "d", "10.0.0.4", "m", 86400.0 * 19000 + 9, "what rhymes with silver then");
    rt_guard_links *links = NULL;
    assert_int_equal(rt_guard_links_open(&links, guard, &err), RT_OK);
    assert_true(rt_guard_link_of(links, 0, 1).created == 0);
    assert_true(rt_guard_link_of(links, 2, 3).created > 0);
    rt_guard_links_close(links);
    rt_guard_close(guard);
}

/* `n` accounts take 30 to 200 tasks of a set of 3,000; with `dealt` the first `members` never the same one.
 */
static double simulate(uint64_t seed, size_t members, size_t n, bool dealt)
{
    enum { MOST = 40, TASKS = 3000 };
    static rt_hash_sample samples[MOST];
    const rt_hash_sample *list[MOST];
    bool taken[TASKS] = {false};
    rt_rng rng = rt_rng_make(seed, 1);
    for (size_t i = 0; i < n; i++) {
        samples[i] = (rt_hash_sample){.count = 0};
        list[i] = &samples[i];
        const size_t size = 30 + (size_t)rt_rng_below(&rng, 170);
        for (size_t k = 0; k < size; k++) {
            size_t task = (size_t)rt_rng_below(&rng, TASKS);
            while (dealt && i < members && taken[task])
                task = (task + 1) % TASKS;
            taken[task] = taken[task] || (dealt && i < members);
            rt_hash_sample_add(&samples[i], (uint32_t)rt_guard_mix(task, 77 + seed));
        }
    }
    rt_error err = {0};
    rt_guard_partition out;
    assert_int_equal(rt_guard_partition_test(&out, list, members, n, &err), RT_OK);
    assert_true(out.inside <= out.shared && out.p >= 0 && out.p <= 1);
    return out.p;
}

static void draws_on_ones_own_give_even_p_values(void **state)
{
    (void)state;
    enum { TRIALS = 1000 };
    size_t below[3] = {0};
    static const double levels[3] = {0.01, 0.1, 0.5};
    for (uint64_t t = 0; t < TRIALS; t++) {
        const double p = simulate(t, 10, 30, false);
        for (size_t k = 0; k < 3; k++)
            below[k] += p <= levels[k];
    }
    for (size_t k = 0; k < 3;
         k++) { /* never more often than promised, within four deviations, nor much less */
        const double mean = TRIALS * levels[k], deviation = sqrt(mean * (1 - levels[k]));
        printf("%zu\n", below[k]);
        assert_true((double)below[k] < mean + 4 * deviation);
        assert_true((double)below[k] > mean * 0.5 - 4 * deviation);
    }
}

static void a_set_dealt_out_is_told_from_draws_on_ones_own(void **state)
{
    (void)state;
    for (uint64_t t = 0; t < 50; t++)
        assert_true(simulate(t, 12, 36, true) < 1e-3);
}

static void a_class_that_works_through_one_sheet_is_no_partition(void **state)
{
    (void)state;
    static rt_hash_sample samples[20];
    const rt_hash_sample *list[20];
    for (uint32_t i = 0; i < 20; i++) {
        samples[i] = (rt_hash_sample){.count = 0};
        list[i] = &samples[i];
        for (uint32_t k = 0; k < 15; k++)
            rt_hash_sample_add(&samples[i], (uint32_t)rt_guard_mix(i < 10 || k < 2 ? k : i * 100 + k, 3));
    }
    rt_error err = {0};
    rt_guard_partition out;
    assert_int_equal(rt_guard_partition_test(&out, list, 10, 20, &err), RT_OK);
    assert_true(out.p > 0.5);
    assert_int_equal(rt_guard_partition_test(&out, list, 0, 20, &err), RT_OK);
    assert_true(out.p == 1 && out.shared == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accounts_of_one_operator_are_one_cluster),
        cmocka_unit_test(a_neighbour_of_an_exit_who_words_alike_stays_apart),
        cmocka_unit_test(a_rare_wrapper_speaks_for_a_pair_and_a_common_one_does_not),
        cmocka_unit_test(days_of_creation_are_no_moments),
        cmocka_unit_test(draws_on_ones_own_give_even_p_values),
        cmocka_unit_test(a_set_dealt_out_is_told_from_draws_on_ones_own),
        cmocka_unit_test(a_class_that_works_through_one_sheet_is_no_partition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
