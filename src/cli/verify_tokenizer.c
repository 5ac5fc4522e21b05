/* cli/verify_tokenizer.c - `retort verify tokenizer FILE`: ids and chat templates against reference files. */
#include "judge/verify_tokenizer.h"

#include <stdlib.h>

#include "cli/cli.h"
#include "cli/model_arg.h"
#include "cli/verify.h"

static rt_status run(rt_verify *result, const char *file, const char *name, rt_error *err)
{
    char *path;
    rt_tokenizer *tokenizer = NULL;
    rt_status status = cli_model_path(&path, name, err);
    if (status == RT_OK)
        status = rt_tokenizer_open(&tokenizer, path, err);
    if (status == RT_OK)
        status = rt_verify_tokenizer(result, file, tokenizer, err);
    rt_tokenizer_close(tokenizer);
    free(path);
    return status;
}

int verify_tokenizer(int argc, char **argv)
{
    const char *file = NULL, *name = NULL;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "FILE holds JSON lines (.jsonl or .jsonl.zst), told apart by their fields: strings {text, "
         "parse_special,\n"
         "ids}, chats {messages, add_generation_prompt, text, ids}, malformed bytes {hex, replaced_ids}; or "
         "it is\n"
         "an .inp file with its .out beside it. Every row is one comparison; exit status 3 when one "
         "fails.\n\n"
         "Example:\n  retort verify tokenizer strings.jsonl.zst --model smollm2-135m-instruct"},
        {CLI_STRING, "FILE", &file, "reference rows"},
        {CLI_STRING | CLI_REQUIRED, "--model MODEL", &name, "whose tokenizer and chat template are compared"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_verify result = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK || run(&result, file, name, &err) != RT_OK)
        return cli_fail(&err);
    return verify_print(&result, json);
}
