/* cli/verify_smollm2.c - `retort verify smollm2 DIR`: the real model against its reference values. */
#include "base/pool.h"
#include "cli/cli.h"
#include "cli/open_model.h"
#include "cli/verify.h"

static rt_status run(rt_verify *result, const char *dir, const char *name, const char *precision,
                     rt_error *err)
{
    rt_pool *pool = NULL;
    cli_model model = {0};
    rt_status status = rt_pool_open(&pool, 0, err);
    if (status == RT_OK)
        status = cli_model_open(&model, name, cli_precision(precision),
                                CLI_MODEL_NO_TOKENIZER | CLI_MODEL_NO_TEMPLATE, pool, err);
    if (status == RT_OK)
        status = rt_verify_smollm2(result, dir, model.model, err);
    cli_model_close(&model);
    rt_pool_close(pool);
    return status;
}

int verify_smollm2(int argc, char **argv)
{
    const char *dir = NULL, *name = NULL, *precision = "f32";
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "DIR holds forward.safetensors (log-sum-exp, the 20 largest logits, loss and sizes of the states "
         "of\n"
         "some texts) and greedy.json (continuations), made from SmolLM2-135M-Instruct.Q4_1.gguf.\n"
         "In f32 the values must be equal to about 1e-3; in bf16 and int8 the means and the order are\n"
         "compared. Exit status 3 when a comparison is beyond its tolerance.\n\n"
         "Example:\n  retort verify smollm2 tests/golden/smollm2 --model smollm2-135m-instruct"},
        {CLI_STRING, "DIR", &dir, "folder of reference values"},
        {CLI_STRING | CLI_REQUIRED, "--model MODEL", &name, "the model that they were made from"},
        {CLI_STRING, "--precision f32|bf16|int8", &precision, "in which to compute (default f32)"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_verify result = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK || run(&result, dir, name, precision, &err) != RT_OK)
        return cli_fail(&err);
    return verify_print(&result, json);
}
