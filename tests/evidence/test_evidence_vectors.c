/* tests/evidence/test_evidence_vectors.c - every formula of the room agrees with its reference vectors, and a
 * vector that is off is noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "evidence/verify.h"

static void all_vectors_agree(void **state)
{
    (void)state;
    rt_verify result;
    rt_error err = {0};
    if (rt_verify_evidence(&result, RT_TEST_SOURCE_DIR "/tests/golden/evidence", &err) != RT_OK)
        fail_msg("%s", err.text);
    if (result.failed)
        fail_msg("%zu failed, worst %s: %g, tolerance %g", result.failed, result.worst, result.worst_error,
                 result.worst_tolerance);
    assert_true(result.passed > 2900);
    assert_int_equal(result.not_covered, 0);
}

static void a_folder_without_vectors_is_an_error(void **state)
{
    (void)state;
    rt_verify result;
    rt_error err = {0};
    assert_int_equal(rt_verify_evidence(&result, RT_TEST_SOURCE_DIR "/tests/golden/losses", &err),
                     RT_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_vectors_agree),
        cmocka_unit_test(a_folder_without_vectors_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
