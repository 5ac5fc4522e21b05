/* tests/judge/test_vectors.c - this build agrees with the reference vectors, and would notice if it did not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "judge/vectors.h"
#include "tensor/cpu.h"

#define GOLDEN RT_TEST_SOURCE_DIR "/tests/golden/losses"

static void the_golden_vectors_hold_at_every_level(void **state)
{
    (void)state;
    static rt_vectors_report report;
    rt_error err = {0};
    for (unsigned level = RT_CPU_REF; level <= RT_CPU_AVX512BF16; level++) {
        assert_int_equal(setenv("RETORT_CPU", rt_cpu_name(level), 1), 0);
        rt_cpu_reset();
        if (rt_vectors_losses(&report, GOLDEN, &err) != RT_OK)
            fail_msg("%s", err.text);
        for (size_t i = 0; i < report.n_failures; i++)
            print_message("%s: %s differs\n", rt_cpu_name(level), report.failures[i]);
        assert_int_equal(report.failed, 0);
        assert_int_equal(report.passed + report.not_covered, 371);
        assert_int_equal(report.passed, 371);
    }
    assert_int_equal(unsetenv("RETORT_CPU"), 0);
    rt_cpu_reset();
}

/* A folder of its own with an index.json of the given text and the golden tensors. */
static char *folder_with(const char *index)
{
    static char dir[] = "/tmp/retort-vectors-"
                        "XX"
                        "XX"
                        "XX";
    char path[256];
    rt_error err = {0};
    memset(dir + sizeof dir - 7, 'X', 6);
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/index.json", dir);
    assert_int_equal(rt_file_write(path, index, strlen(index), &err), RT_OK);
    (void)snprintf(path, sizeof path, "%s/small.safetensors", dir);
    assert_int_equal(symlink(GOLDEN "/small.safetensors", path), 0);
    return dir;
}

static void remove_folder(const char *dir)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/index.json", dir);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(path, sizeof path, "%s/small.safetensors", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

#define SMALL_IN "\"in\":{\"z\":\"z\",\"zt\":\"zt\",\"y\":\"y\"}"
#define SMALL_OUT(name) "\"out\":{\"loss_tok\":\"" name ".loss_tok\",\"grad\":\"" name ".grad\"}"

static void a_wrong_value_fails_and_an_unknown_kind_is_not_covered(void **state)
{
    (void)state;
    static rt_vectors_report report;
    rt_error err = {0};
    const char *dir = folder_with(
        "{\"cases\":["
        "{\"id\":\"small/"
        "right\",\"file\":\"small.safetensors\",\"loss\":\"fkl\",\"params\":{\"tau\":2}," SMALL_IN
        "," SMALL_OUT(
            "small/fkl/tau2") "},"
                              "{\"id\":\"small/"
                              "wrong\",\"file\":\"small.safetensors\",\"loss\":\"rkl\",\"params\":{\"tau\":2}"
                              "," SMALL_IN "," SMALL_OUT(
                                  "small/fkl/tau2") "},"
                                                    "{\"id\":\"new/kind\",\"loss\":\"unheard_of\"}]}");
    assert_int_equal(rt_vectors_losses(&report, dir, &err), RT_OK);
    assert_int_equal(report.passed, 1);
    assert_int_equal(report.failed, 1);
    assert_int_equal(report.not_covered, 1);
    assert_string_equal(report.failures[0], "small/wrong");
    assert_string_equal(report.worst.name, "small/wrong");
    assert_true(report.worst.error > report.worst.tolerance);
    assert_string_equal(report.not_covered_kinds[0], "new");
    remove_folder(dir);
}

static void malformed_folders_are_errors_in_one_sentence(void **state)
{
    (void)state;
    static const char *const indices[] = {
        "",
        "[]",
        "{}",
        "{\"cases\":3}",
        "{\"cases\":[7]}",
        "{\"cases\":[{\"id\":\"x\"}]}",
        "{\"cases\":[{\"id\":\"a/b\",\"loss\":\"fkl\",\"file\":\"../small.safetensors\"," SMALL_IN "}]}",
        "{\"cases\":[{\"id\":\"a/b\",\"loss\":\"fkl\",\"file\":\"absent.safetensors\"," SMALL_IN "}]}",
        "{\"cases\":[{\"id\":\"a/"
        "b\",\"loss\":\"fkl\",\"file\":\"small.safetensors\",\"in\":{\"z\":\"no\"}}]}",
        "{\"cases\":[{\"id\":\"a/"
        "b\",\"loss\":\"fkl\",\"file\":\"small.safetensors\",\"in\":{\"z\":\"z\",\"zt\":\"y\"}}]}",
        "{\"cases\":[{\"id\":\"a/"
        "b\",\"loss\":\"jsd\",\"file\":\"small.safetensors\",\"params\":{\"beta\":7}," SMALL_IN "}]}",
        "{\"cases\":[{\"id\":\"a/"
        "b\",\"loss\":\"fkl\",\"file\":\"small.safetensors\",\"params\":{\"tau\":-1}," SMALL_IN "}]}",
        "{\"cases\":[{\"id\":\"a/"
        "b\",\"loss\":\"fkl\",\"file\":\"small.safetensors\",\"params\":{\"real_vocab\":99}," SMALL_IN "}]}",
        "{\"cases\":[{\"id\":\"a/b\",\"loss\":\"eval\",\"file\":\"small.safetensors\"," SMALL_IN "}]}",
        "{\"cases\":[{\"id\":\"a/b\",\"loss\":\"attention\",\"file\":\"small.safetensors\","
        "\"in\":{\"q\":\"z\",\"k\":\"z\",\"v\":\"z\",\"upstream\":\"z\"}}]}",
        "{\"cases\":[{\"id\":\"a/b\",\"loss\":\"rope\",\"file\":\"small.safetensors\","
        "\"in\":{\"x\":\"z\",\"upstream\":\"z\",\"pos\":\"y\"}}]}",
    };
    static rt_vectors_report report;
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++) {
        rt_error err = {0};
        const char *dir = folder_with(indices[i]);
        assert_int_not_equal(rt_vectors_losses(&report, dir, &err), RT_OK);
        assert_true(strlen(err.text) > 20);
        remove_folder(dir);
    }
    rt_error err = {0};
    assert_int_not_equal(rt_vectors_losses(&report, "/no/such/folder", &err), RT_OK);
    assert_non_null(strstr(err.text, "/no/such/folder"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_vectors_hold_at_every_level),
        cmocka_unit_test(a_wrong_value_fails_and_an_unknown_kind_is_not_covered),
        cmocka_unit_test(malformed_folders_are_errors_in_one_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
