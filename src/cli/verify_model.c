/* cli/verify_model.c - `retort verify model DIR`: logits, states, loss and gradients of a small model. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/pool.h"
#include "cli/cli.h"
#include "cli/verify.h"

/* How far a comparison is from its tolerance, as a quotient; not a number is the worst of all. */
static double badness(const rt_verify *result)
{
    if (!result->worst[0])
        return -1;
    return isnan(result->worst_error) ? (double)INFINITY : result->worst_error / result->worst_tolerance;
}

static void add(rt_verify *sum, const rt_verify *one)
{
    rt_verify out = badness(one) > badness(sum) ? *one : *sum;
    out.passed = sum->passed + one->passed;
    out.failed = sum->failed + one->failed;
    out.not_covered = sum->not_covered + one->not_covered;
    *sum = out;
}

static rt_status run(rt_verify *result, const char *dir, const char *precision, rt_error *err)
{
    static const struct {
        const char *name;
        rt_precision precision;
    } all[] = {{"f32", RT_PRECISION_F32}, {"bf16", RT_PRECISION_BF16}};
    rt_pool *pool;
    if (rt_pool_open(&pool, 0, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    for (size_t i = 0; i < 2 && status == RT_OK; i++) {
        if (strcmp(precision, "both") != 0 && strcmp(precision, all[i].name) != 0)
            continue;
        rt_verify one;
        status = rt_verify_model(&one, dir, all[i].precision, pool, err);
        char worst[sizeof one.worst + 8];
        (void)snprintf(worst, sizeof worst, "%s %s", all[i].name, one.worst);
        (void)snprintf(one.worst, sizeof one.worst, "%.*s", (int)sizeof one.worst - 1, worst);
        if (status == RT_OK)
            add(result, &one);
    }
    rt_pool_close(pool);
    return status;
}

int verify_model(int argc, char **argv)
{
    const char *dir = NULL, *precision = "both";
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "DIR holds config.json, model.safetensors and vectors.safetensors (ids, mask, logits, hidden.<l>,\n"
         "loss, grad.<parameter>), as tests/golden/engine/generate.py writes them. Errors are relative to\n"
         "the largest entry of the reference: 2e-4 in f32; in bf16 6 x 2^-9 x sqrt(roundings), with 10\n"
         "roundings a layer and 4 outside, twice as many for gradients. Exit status 3 beyond that.\n\n"
         "Examples:\n  retort verify model tests/golden/engine/llama\n"
         "  RETORT_CPU=avx2 retort verify model tests/golden/engine/gemma3 --precision bf16 --json"},
        {CLI_STRING, "DIR", &dir, "folder of reference vectors"},
        {CLI_STRING, "--precision f32|bf16|both", &precision, "in which to compute (default both)"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_verify result = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK || run(&result, dir, precision, &err) != RT_OK)
        return cli_fail(&err);
    return verify_print(&result, json);
}
