/* cli/verify_curve.c - `retort verify curve FILE`: a reference distillation run, step by step. */
#include "base/pool.h"
#include "cli/cli.h"
#include "cli/open_model.h"
#include "cli/verify.h"

static rt_status run(rt_verify *result, const char *file, const char *name, size_t steps, rt_error *err)
{
    rt_pool *pool = NULL;
    cli_model model = {0};
    rt_status status = rt_pool_open(&pool, 0, err);
    if (status == RT_OK)
        status = cli_model_open(&model, name, RT_PRECISION_F32,
                                CLI_MODEL_NO_TOKENIZER | CLI_MODEL_NO_TEMPLATE, pool, err);
    if (status == RT_OK)
        status = rt_verify_curve(result, file, model.weights, model.model, steps, err);
    cli_model_close(&model);
    rt_pool_close(pool);
    return status;
}

int verify_curve(int argc, char **argv)
{
    const char *file = NULL, *name = NULL;
    size_t steps = 0;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "FILE is the record of a distillation run by PyTorch in float32: rows of ids, the teacher's layers "
         "that\n"
         "the student takes, loss and gradient norm of each step, norms of all tensors at the end. The same "
         "run\n"
         "here must follow the loss within 0.5% at every step. Exit status 3 when it does not.\n\n"
         "Example:\n  retort verify curve tests/golden/smollm2/kd_curve.json --model smollm2-135m-instruct"},
        {CLI_STRING, "FILE", &file, "the record"},
        {CLI_STRING | CLI_REQUIRED, "--model MODEL", &name, "the teacher that it was made with"},
        {CLI_COUNT, "--steps N", &steps, "only the first steps (default: all, and the norms at the end)"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_verify result = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK || run(&result, file, name, steps, &err) != RT_OK)
        return cli_fail(&err);
    return verify_print(&result, json);
}
