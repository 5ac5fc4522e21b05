/* tests/guard/test_ladder.c - the policy's checks and the ladder's decisions. */
#include "guard/ladder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static rt_guard_policy_file *policy_of(const char *text)
{
    rt_error err = {0};
    rt_guard_policy_file *file = NULL;
    if (rt_guard_policy_read(&file, text, strlen(text), "policy.yaml", &err) != RT_OK)
        fail_msg("%s", err.text);
    return file;
}

static rt_ladder_step at(const rt_guard_policy_file *file, rt_ladder_state *state, double hours, double p,
                         size_t families, bool cluster)
{
    const rt_ladder_evidence evidence = {.now = 3600 * hours,
                                         .p = p,
                                         .e = 1 / p,
                                         .confirmed = true,
                                         .requests = 100,
                                         .families = families,
                                         .cluster = cluster};
    return rt_ladder_decide(rt_guard_policy_of(file), state, &evidence);
}

static void contradictions_and_unknown_keys_are_named(void **context)
{
    (void)context;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"slow: {p: 0.01}\nsuspend: {p: 0.02}\n", "suspend.p is 0.02 and slow.p is 0.01"},
        {"slow: {q: 0.01}\n", "slow.q"},
        {"slow: {p: 1.5}\n", "slow.p"},
        {"suspend: {by: robot}\n", "robot"},
        {"logprobs: {top: 5}\nexposure: {top_logprobs: 3}\n", "logprobs.top is 5"},
        {"ladder: {calm: 0}\n", "ladder.calm"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_error err = {0};
        rt_guard_policy_file *file = NULL;
        assert_int_not_equal(
            rt_guard_policy_read(&file, cases[i].text, strlen(cases[i].text), "p.yaml", &err), RT_OK);
        assert_null(file);
        if (!strstr(err.text, cases[i].word))
            fail_msg("'%s' does not say '%s'", err.text, cases[i].word);
    }
}

static void the_printed_policy_reads_back(void **context)
{
    (void)context;
    rt_guard_policy_file *file = policy_of("slow: {p: 0.02}\n");
    rt_text text = {0};
    rt_guard_policy_print(file, &text);
    rt_guard_policy_file *again = policy_of(text.data);
    assert_true(rt_guard_policy_of(again)->p[RT_RUNG_SLOW] == 0.02);
    assert_string_equal(rt_guard_policy_of(again)->slow_message, rt_guard_policy_of(file)->slow_message);
    rt_text_deinit(&text);
    rt_guard_policy_close(again);
    rt_guard_policy_close(file);
}

static void rungs_are_taken_as_the_evidence_grows(void **context)
{
    (void)context;
    rt_guard_policy_file *file = policy_of("");
    rt_ladder_state state = {0};
    assert_int_equal(at(file, &state, 0, 0.5, 0, false).to, RT_RUNG_NONE);
    assert_int_equal(at(file, &state, 1, 0.04, 0, false).to, RT_RUNG_OBSERVE);
    assert_int_equal(at(file, &state, 2, 0.009, 1, false).to, RT_RUNG_LOGPROBS);
    assert_int_equal(at(file, &state, 3, 0.004, 1, false).to, RT_RUNG_CHALLENGE);
    /* one kind of signal alone suspends nobody */
    rt_ladder_step step = at(file, &state, 4, 0.0005, 1, false);
    assert_int_equal(step.to, RT_RUNG_CHALLENGE);
    assert_false(step.proposed);
    /* two kinds: proposed once, decided by a person */
    step = at(file, &state, 5, 0.0005, 2, false);
    assert_int_equal(step.to, RT_RUNG_CHALLENGE);
    assert_true(step.proposed);
    assert_false(at(file, &state, 6, 0.0005, 2, false).proposed);
    rt_guard_policy_close(file);
}

static void few_requests_are_only_observed(void **context)
{
    (void)context;
    rt_guard_policy_file *file = policy_of("");
    rt_ladder_state state = {0};
    const rt_ladder_evidence evidence = {.now = 0, .p = 1e-4, .e = 1e4, .requests = 10, .families = 3};
    assert_int_equal(rt_ladder_decide(rt_guard_policy_of(file), &state, &evidence).to, RT_RUNG_OBSERVE);
    rt_guard_policy_close(file);
}

static void a_rule_may_suspend_where_the_policy_says_so_and_a_cluster_counts_as_two_kinds(void **context)
{
    (void)context;
    rt_guard_policy_file *file = policy_of("suspend: {by: rule}\n");
    rt_ladder_state alone = {0}, linked = {0};
    assert_int_equal(at(file, &alone, 0, 0.0005, 1, false).to, RT_RUNG_CHALLENGE);
    assert_int_equal(at(file, &linked, 0, 0.0005, 0, true).to, RT_RUNG_SUSPEND);
    rt_guard_policy_close(file);
}

static void a_rung_lapses_and_comes_back_only_for_stronger_evidence(void **context)
{
    (void)context;
    rt_guard_policy_file *file = policy_of("ladder: {expire_hours: 10, calm: 4}\n");
    rt_ladder_state state = {0};
    assert_int_equal(at(file, &state, 0, 0.009, 1, false).to, RT_RUNG_LOGPROBS);
    assert_int_equal(at(file, &state, 9, 0.009, 1, false).to, RT_RUNG_LOGPROBS);
    assert_int_equal(at(file, &state, 11, 0.009, 1, false).to, RT_RUNG_SLOW);
    assert_int_equal(at(file, &state, 22, 0.009, 1, false).to, RT_RUNG_OBSERVE);
    assert_int_equal(at(file, &state, 33, 0.009, 1, false).to, RT_RUNG_NONE);
    assert_int_equal(at(file, &state, 34, 0.005, 1, false).to, RT_RUNG_NONE); /* not four times stronger */
    assert_int_equal(at(file, &state, 35, 0.002, 1, false).to, RT_RUNG_CHALLENGE);
    rt_guard_policy_close(file);
}

static void what_a_person_lifted_stays_lifted(void **context)
{
    (void)context;
    rt_guard_policy_file *file = policy_of("");
    rt_ladder_state state = {0};
    assert_int_equal(at(file, &state, 0, 0.004, 2, false).to, RT_RUNG_CHALLENGE);
    rt_ladder_lift(&state);
    assert_int_equal(at(file, &state, 1, 0.004, 2, false).to, RT_RUNG_NONE);
    assert_int_equal(at(file, &state, 2, 0.0009, 2, false).to, RT_RUNG_CHALLENGE);
    rt_guard_policy_close(file);
}

static void rungs_that_are_switched_off_are_passed_over(void **context)
{
    (void)context;
    rt_guard_policy_file *file = policy_of("challenge: {p: 0}\nreasoning: {p: 0}\n");
    rt_ladder_state state = {0};
    const rt_ladder_step step = at(file, &state, 0, 0.0001, 2, false);
    assert_true(step.proposed);
    assert_int_equal(step.to, RT_RUNG_LOGPROBS);
    rt_guard_policy_close(file);
}

static void rungs_that_accuse_read_the_evidence_of_all_weeks(void **context)
{
    (void)context;
    rt_guard_policy_file *by_e = policy_of(""), *by_p = policy_of("ladder: {accuse_by: p}\n");
    const rt_ladder_evidence odd = {.p = 0.0005, .e = 90, .requests = 100, .families = 2},
                             long_odd = {.p = 0.03, .e = 1200, .requests = 900, .families = 2};
    rt_ladder_state one = {0}, two = {0}, three = {0};
    assert_int_equal(rt_ladder_decide(rt_guard_policy_of(by_e), &one, &odd).to, RT_RUNG_REASONING);
    assert_int_equal(rt_ladder_decide(rt_guard_policy_of(by_p), &two, &odd).to, RT_RUNG_CHALLENGE);
    const rt_ladder_step step = rt_ladder_decide(rt_guard_policy_of(by_e), &three, &long_odd);
    assert_int_equal(step.to, RT_RUNG_CHALLENGE);
    assert_true(step.proposed);
    rt_guard_policy_close(by_e);
    rt_guard_policy_close(by_p);
}

static void a_rule_suspends_only_what_ebh_confirms(void **context)
{
    (void)context;
    rt_guard_policy_file *file = policy_of("suspend: {by: rule}\n");
    rt_ladder_evidence evidence = {.p = 0.0005, .e = 5000, .requests = 100, .families = 2};
    rt_ladder_state state = {0};
    rt_ladder_step step = rt_ladder_decide(rt_guard_policy_of(file), &state, &evidence);
    assert_int_equal(step.to, RT_RUNG_CHALLENGE);
    assert_true(step.proposed); /* a person decides what the rule may not */
    evidence.confirmed = true;
    assert_int_equal(rt_ladder_decide(rt_guard_policy_of(file), &state, &evidence).to, RT_RUNG_SUSPEND);
    rt_guard_policy_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rungs_that_accuse_read_the_evidence_of_all_weeks),
        cmocka_unit_test(a_rule_suspends_only_what_ebh_confirms),
        cmocka_unit_test(contradictions_and_unknown_keys_are_named),
        cmocka_unit_test(the_printed_policy_reads_back),
        cmocka_unit_test(rungs_are_taken_as_the_evidence_grows),
        cmocka_unit_test(few_requests_are_only_observed),
        cmocka_unit_test(a_rule_may_suspend_where_the_policy_says_so_and_a_cluster_counts_as_two_kinds),
        cmocka_unit_test(a_rung_lapses_and_comes_back_only_for_stronger_evidence),
        cmocka_unit_test(what_a_person_lifted_stays_lifted),
        cmocka_unit_test(rungs_that_are_switched_off_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
