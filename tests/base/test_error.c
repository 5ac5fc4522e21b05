/* tests/base/test_error.c - the table of statuses is whole; sentences are never empty and always fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "retort/error.h"

static const rt_status all[] = {
#define STATUS(name, value, http, exit_code, text) RT_##name,
    RT_STATUS_MAP(STATUS)
#undef STATUS
};
enum { N_STATUSES = sizeof all / sizeof all[0] };

static void every_status_has_a_name_a_text_an_exit_status_and_an_http_status(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_STATUSES; i++) {
        assert_int_equal(all[i], i); /* part of the ABI: no holes, no two names for one number */
        assert_true(rt_status_name(all[i])[0] >= 'A' && rt_status_text(all[i])[0] != '\0');
        assert_in_range(rt_status_exit_code(all[i]), i == 0 ? 0 : 1, i == 0 ? 0 : 4);
        assert_in_range(rt_status_http(all[i]), 200, 599);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(rt_status_name(all[i]), rt_status_name(all[j]));
    }
    assert_int_equal(rt_status_exit_code(RT_INVALID), 2);
    assert_int_equal(rt_status_exit_code(RT_CHECK_FAILED), 3);
    assert_int_equal(rt_status_exit_code(RT_STOPPED), 4);
}

static void a_number_outside_the_table_counts_as_a_fault_of_the_program(void **state)
{
    (void)state;
    assert_string_equal(rt_status_name((rt_status)N_STATUSES), "INTERNAL");
    assert_int_equal(rt_status_exit_code((rt_status)1000), 1);
}

static void layers_add_what_they_know_and_long_sentences_are_cut(void **state)
{
    (void)state;
    rt_error err = {0};
    assert_int_equal(rt_error_set(&err, RT_CORRUPT, "tensor %d ends past the file", 3), RT_CORRUPT);
    assert_int_equal(rt_error_within(&err, "m.gguf"), RT_CORRUPT);
    assert_string_equal(err.text, "m.gguf: tensor 3 ends past the file");
    char long_text[2000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    (void)rt_error_set(&err, RT_IO, "%s", long_text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    for (int i = 0; i < 5; i++)
        (void)rt_error_within(&err, long_text);
    assert_true(strlen(err.text) < sizeof err.text);
    assert_int_equal(rt_error_set(NULL, RT_BUSY, "nobody listens"), RT_BUSY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_name_a_text_an_exit_status_and_an_http_status),
        cmocka_unit_test(a_number_outside_the_table_counts_as_a_fault_of_the_program),
        cmocka_unit_test(layers_add_what_they_know_and_long_sentences_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
