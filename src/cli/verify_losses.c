/* cli/verify_losses.c - `retort verify losses DIR`: losses, optimiser, metrics and blocks against reference
 * vectors. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/verify.h"
#include "judge/vectors.h"

static json_t *names(const char list[][RT_VECTORS_NAME_MAX], size_t count)
{
    json_t *out = json_array();
    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(out, json_stringn_nocheck(list[i], strlen(list[i])));
    return out;
}

static json_t *report_json(const rt_vectors_report *r)
{
    /* JSON has no infinity: an error past every number is null */
    json_t *error = isfinite(r->worst.error) ? json_real(r->worst.error) : json_null();
    json_t *worst = r->worst.name[0] ? json_pack("{s:s,s:o,s:f}", "name", r->worst.name, "error", error,
                                                 "tolerance", r->worst.tolerance)
                                     : (json_decref(error), json_null());
    return json_pack("{s:I,s:I,s:I,s:o,s:o,s:o}", "passed", (json_int_t)r->passed, "failed",
                     (json_int_t)r->failed, "not_covered", (json_int_t)r->not_covered, "worst", worst,
                     "not_covered_kinds", names(r->not_covered_kinds, r->n_not_covered_kinds), "failures",
                     names(r->failures, r->n_failures));
}

static void print_report(const rt_vectors_report *r)
{
    for (size_t i = 0; i < r->n_failures; i++)
        printf("differs: %s\n", r->failures[i]);
    if (r->failed > r->n_failures)
        printf("differs: %zu more\n", r->failed - r->n_failures);
    if (r->n_not_covered_kinds > 0) {
        printf("not covered by this build:");
        for (size_t i = 0; i < r->n_not_covered_kinds; i++)
            printf("%s %s", i ? "," : "", r->not_covered_kinds[i]);
        printf("\n");
    }
    if (r->worst.name[0])
        printf("worst: %s, error %.3g, tolerance %.3g\n", r->worst.name, r->worst.error, r->worst.tolerance);
    printf("%zu passed, %zu failed, %zu not covered\n", r->passed, r->failed, r->not_covered);
}

int verify_losses(int argc, char **argv)
{
    const char *dir = NULL;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "DIR holds index.json, which lists cases, and the safetensors files that they name: the "
         "objectives,\n"
         "reductions, optimiser, schedules, metrics and building blocks, each with its right value and "
         "gradient.\n"
         "Losses are compared twice: the definition in double (1e-11), and the float32 code that trains\n"
         "(loss 5e-6, gradient 2e-6). Exit status 3 when a case differs.\n\n"
         "Examples:\n  retort verify losses tests/golden/losses\n"
         "  RETORT_CPU=avx2 retort verify losses tests/golden/losses --json"},
        {CLI_STRING, "DIR", &dir, "folder of reference vectors"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    static rt_vectors_report report;
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK || rt_vectors_losses(&report, dir, &err) != RT_OK)
        return cli_fail(&err);
    if (!json)
        print_report(&report);
    const int printed = json ? cli_print_json(report_json(&report)) : 0;
    return report.failed > 0 ? rt_status_exit_code(RT_CHECK_FAILED) : printed;
}
