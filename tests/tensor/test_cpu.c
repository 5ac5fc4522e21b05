/* tests/tensor/test_cpu.c - RETORT_CPU forces a level, never one that the machine lacks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/cpu.h"

static void a_forced_level_is_never_above_the_machines_own(void **state)
{
    (void)state;
    assert_int_equal(unsetenv("RETORT_CPU"), 0);
    rt_cpu_reset();
    const unsigned best = rt_cpu_level();
    for (unsigned level = RT_CPU_REF; level <= RT_CPU_AVX512BF16; level++) {
        assert_int_equal(setenv("RETORT_CPU", rt_cpu_name(level), 1), 0);
        rt_cpu_reset();
        assert_int_equal(rt_cpu_level(), level < best ? level : best);
        assert_int_equal(rt_cpu_check(NULL), RT_OK);
    }
}

static void an_unknown_level_is_an_error_that_names_it(void **state)
{
    (void)state;
    rt_error err = {0};
    assert_int_equal(setenv("RETORT_CPU", "sse9", 1), 0);
    assert_int_equal(rt_cpu_check(&err), RT_INVALID);
    assert_non_null(strstr(err.text, "sse9"));
    assert_int_equal(setenv("RETORT_CPU", "", 1), 0);
    assert_int_equal(rt_cpu_check(&err), RT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_forced_level_is_never_above_the_machines_own),
        cmocka_unit_test(an_unknown_level_is_an_error_that_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
