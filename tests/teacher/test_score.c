/* tests/teacher/test_score.c - log-probabilities of given tokens from a server, in both forms, and every lie
 * about them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "teacher/fault_server.h"
#include "teacher/remote.h"

enum { SEQUENCES = 30, LENGTH = 12 };

static fault_server server;
static int32_t ids[SEQUENCES][LENGTH];
static struct result {
    size_t taken, rows, ended, failed;
    rt_error err;
} result;

static int set_up(void **state)
{
    (void)state;
    if (!fault_start(&server, 0))
        return -1;
    memset(server.plan, 0, sizeof *server.plan);
    memset(server.counts, 0, sizeof *server.counts);
    memset(&result, 0, sizeof result);
    for (int i = 0; i < SEQUENCES; i++)
        for (int j = 0; j < LENGTH; j++)
            ids[i][j] = 100 * i + 3 * j;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fault_stop(&server);
    return 0;
}

static rt_next next(void *context, rt_score_ask *out)
{
    (void)context;
    if (result.taken == SEQUENCES)
        return RT_NEXT_END;
    *out = (rt_score_ask){.tag = result.taken, .ids = ids[result.taken], .n = LENGTH};
    result.taken++;
    return RT_NEXT_TAKE;
}

static bool row(void *context, uint64_t tag, size_t position, const rt_score_row *row)
{
    (void)context;
    assert_int_equal(row->n, 3);
    assert_int_equal(row->ids[0], ids[tag][position]); /* the likeliest first */
    assert_float_equal(row->logq[0], -1, 1e-6F);
    assert_float_equal(row->tail_logprob, logf(1 - expf(-1) - expf(-2) - expf(-3)), 1e-5F);
    result.rows++;
    return true;
}

static void end(void *context, uint64_t tag, rt_status status, const rt_error *err)
{
    (void)context;
    (void)tag;
    result.ended++;
    if (status != RT_OK) {
        result.failed++;
        result.err = *err;
    }
}

static rt_status score(rt_error *err)
{
    const rt_remote_options options = {
        .url = server.url, .model = "m", .n_vocab = 50000, .concurrency = 8, .attempts = 2};
    rt_teacher *teacher = NULL;
    if (rt_remote_open(&teacher, &options, err) != RT_OK)
        return err->status;
    const rt_score_options wish = {.top_k = 3};
    const rt_score_calls calls = {.next = next, .row = row, .end = end};
    const rt_status status = rt_teacher_score(teacher, &wish, &calls, err);
    rt_teacher_close(teacher);
    return status;
}

static void every_position_is_scored_in_both_forms(void **state)
{
    (void)state;
    rt_error err = {0};
    for (int form = FAULT_SCORE_LISTS; form <= FAULT_SCORE_ECHO; form++) {
        memset(&result, 0, sizeof result);
        *server.plan = (fault_plan){.score = form, .latency_ms = 1};
        assert_int_equal(score(&err), RT_OK);
        assert_int_equal(result.ended, SEQUENCES);
        assert_int_equal(result.failed, 0);
        assert_int_equal(result.rows, SEQUENCES * (LENGTH - 1));
    }
}

static void a_server_that_scores_nothing_is_named(void **state)
{
    (void)state;
    rt_error err = {0};
    assert_int_equal(score(&err), RT_UNSUPPORTED); /* it answers, with nothing of what was asked */
    assert_non_null(strstr(err.text, "no log-probabilities of given tokens"));
    assert_int_equal(result.ended, 0);
}

static void sums_ids_and_other_texts_are_seen(void **state)
{
    (void)state;
    static const struct {
        fault_plan plan;
        const char *words;
    } cases[] = {{{.score = FAULT_SCORE_LISTS, .sum_lie = 1}, "probabilities sum to"},
                 {{.score = FAULT_SCORE_LISTS, .bad_ids = 1}, "outside the vocabulary"},
                 {{.score = FAULT_SCORE_LISTS, .other_bytes = 1}, "another text than was asked"},
                 {{.score = FAULT_SCORE_ECHO, .other_bytes = 1}, "another text than was asked"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_error err = {0};
        memset(&result, 0, sizeof result);
        *server.plan = cases[i].plan;
        assert_int_equal(score(&err),
                         RT_UNSUPPORTED); /* the first sequence, of the probe, is refused already */
        assert_non_null(strstr(err.text, cases[i].words));
        assert_int_equal(result.rows, 0);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_position_is_scored_in_both_forms),
        TEST(a_server_that_scores_nothing_is_named),
        TEST(sums_ids_and_other_texts_are_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
