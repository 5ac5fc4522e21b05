/* cli/cmd_verify.c - `retort verify KIND PATH`: this build against reference vectors.
 *
 * Each kind has a function and an option table of its own; the table here says what they have in common and
 * serves help and completion. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/verify.h"

static const struct {
    const char *kind;
    char *command; /* what the kind's messages and help call it */
    int (*run)(int argc, char **argv);
} kinds[] = {
    {"model", (char[]){"verify model"}, verify_model},
    {"smollm2", (char[]){"verify smollm2"}, verify_smollm2},
    {"curve", (char[]){"verify curve"}, verify_curve},
    {"tokenizer", (char[]){"verify tokenizer"}, verify_tokenizer},
    {"losses", (char[]){"verify losses"}, verify_losses},
    {"evidence", (char[]){"verify evidence"}, verify_evidence},
};

static json_t *report_json(const rt_verify *result)
{
    /* JSON has no infinity and no NaN: such an error is null */
    json_t *error = isfinite(result->worst_error) ? json_real(result->worst_error) : json_null();
    json_t *worst = json_null();
    if (result->worst[0])
        worst = json_pack("{s:s,s:O,s:f}", "name", result->worst, "error", error, "tolerance",
                          result->worst_tolerance);
    json_decref(error);
    return json_pack("{s:I,s:I,s:I,s:o}", "passed", (json_int_t)result->passed, "failed",
                     (json_int_t)result->failed, "not_covered", (json_int_t)result->not_covered, "worst",
                     worst);
}

int verify_print(const rt_verify *result, bool json)
{
    int printed = 0;
    if (json) {
        printed = cli_print_json(report_json(result));
    } else {
        if (result->worst[0])
            (void)printf("worst: %s, error %.3g, tolerance %.3g\n", result->worst, result->worst_error,
                         result->worst_tolerance);
        (void)printf("%zu passed, %zu failed", result->passed, result->failed);
        if (result->not_covered)
            (void)printf(", %zu not covered", result->not_covered);
        (void)printf("\n");
    }
    return result->failed > 0 ? rt_status_exit_code(RT_CHECK_FAILED) : printed;
}

int cmd_verify(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(argv[1], kinds[i].kind) == 0) {
            argv[1] = kinds[i].command;
            return kinds[i].run(argc - 1, argv + 1);
        }
    const char *kind = NULL, *path = NULL, *model = NULL, *precision = NULL;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "model      PATH is a folder with config.json, model.safetensors and vectors.safetensors\n"
         "smollm2    PATH is a folder with forward.safetensors and greedy.json; --model is what they are of\n"
         "curve      PATH is the record of a distillation run; --model is its teacher\n"
         "tokenizer  PATH is a file of rows: strings, chats or malformed bytes, with the ids of --model\n"
         "losses     PATH is a folder with index.json and the tensors that it names\n"
         "evidence   PATH is a folder of watermark and evidence vectors\n\n"
         "Exit status 3 when a comparison is beyond its tolerance. 'retort verify KIND --help' says more.\n\n"
         "Examples:\n  retort verify model tests/golden/engine/llama --json\n"
         "  retort verify smollm2 tests/golden/smollm2 --model smollm2-135m-instruct\n"
         "  retort verify losses tests/golden/losses"},
        {CLI_STRING, "model|smollm2|curve|tokenizer|losses|evidence", &kind, "what to compare"},
        {CLI_STRING, "PATH", &path, "folder or file of reference vectors"},
        {CLI_STRING, "--model MODEL", &model, "smollm2, tokenizer: the model that the vectors are of"},
        {CLI_STRING, "--precision f32|bf16|int8|both", &precision,
         "model: f32, bf16 or both (default both)\nsmollm2: f32, bf16 or int8 (default f32)"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) == RT_OK)
        (void)rt_error_set(&err, RT_INVALID, "verify: the kind comes first: retort verify %s PATH", kind);
    return cli_fail(&err);
}
